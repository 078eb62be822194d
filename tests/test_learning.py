"""The network that ships, with every option at its default and only its sizes scaled down, learns what it is shown."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_indexed
from PIL import Image

import recseg
from recseg.data.folder import SegmentationFolder
from recseg.models.config import RecurrentUNetConfig
from recseg.training.train import TrainConfig, train

SMALL = RecurrentUNetConfig(encoder_widths=(8, 12, 16, 16), decoder_widths=(12, 12), hidden=12, reduced=12)
COLOURS = {1: (220, 40, 40), 2: (40, 200, 60), 3: (40, 60, 220)}
IMAGES, SIDE = 40, 32


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Images with none to three classes: a rectangle of the class's colour on grey, each in a quarter of its own."""
    root = tmp_path / "shapes"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        pixels, labels = np.full((SIDE, SIDE, 3), 128.0), np.zeros((SIDE, SIDE), np.uint8)
        present = generator.permutation(3)[: index % 4] + 1
        for label, quarter in zip(present, generator.permutation(4), strict=False):
            top, left = 16 * (quarter // 2) + generator.integers(0, 4), 16 * (quarter % 2) + generator.integers(0, 4)
            inside = slice(top, top + generator.integers(9, 12)), slice(left, left + generator.integers(9, 12))
            pixels[inside], labels[inside] = COLOURS[int(label)], label
        pixels = (pixels + generator.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{index}.png")
        save_indexed(labels, root / "SegmentationClass" / f"{index}.png")
    for split, ids in (("train", range(0, 28)), ("val", range(28, IMAGES))):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{index}\n" for index in ids))
    (root / "classes.txt").write_text("background\nred\ngreen\nblue\n")
    return root


def test_a_training_with_default_options_learns_to_name_and_to_paint(shapes: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = TrainConfig(
        data=str(shapes), network=SMALL, steps=250, size=SIDE, image_size=SIDE, batch_size=8, warmup=20, ema=0.97,
        workers=0, device="cpu", checkpoint_seconds=3600,
    )  # fmt: skip
    model = recseg.load(train(config, tmp_path / "run", progress=False))
    scores = recseg.evaluate(model, SegmentationFolder(shapes, "val"), progress=False)  # images that it has not seen
    torch.set_num_threads(threads)
    assert scores["miou"] > 0.75  # 0.21 is what an answer without any class gets
    assert scores["label_set_recall"] > 0.9  # the stop needs longer: see tests/test_losses.py
