"""A data set of one's own, nothing like VOC: eleven classes, nearly all in every image, grey masks, no void."""

from pathlib import Path

import numpy as np
import pytest
import streets
from PIL import Image

from recseg.classes import palette
from recseg.data import open_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.training.train import TrainConfig, train
from recseg.weights.io import load


@pytest.fixture
def street(tmp_path: Path) -> Path:
    streets.write(tmp_path / "streets", 10)
    return tmp_path / "streets"


def test_trains_and_scores_with_its_own_classes(street: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=str(street), steps=2, size=32, batch_size=2, workers=0, device="cpu")
    model = load(train(config, tmp_path / "run", progress=False))
    assert isinstance(model, RecurrentUNet)
    masks = [open_dataset(str(street), "train").labels(index) for index in range(8)]
    assert model.max_steps == max(np.setdiff1d(mask, [0]).size for mask in masks) > 7  # as many steps as classes
    scores = evaluate(model, open_dataset(str(street), "val"), progress=False)
    assert tuple(scores["iou_per_class"]) == ("unlabelled", *streets.CLASSES)
    assert scores["images"] == 2 and 0 <= scores["miou"] <= 1


def test_grey_and_palette_masks_are_the_same(street: Path) -> None:
    before = [open_dataset(str(street), "train").labels(index) for index in range(8)]
    for path in (street / "SegmentationClass").iterdir():
        mask = Image.open(path)
        assert mask.mode == "L"
        indexed = Image.fromarray(np.asarray(mask))
        indexed.putpalette(palette().tobytes())
        indexed.save(path)
        assert Image.open(path).mode == "P"
    after = [open_dataset(str(street), "train").labels(index) for index in range(8)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
