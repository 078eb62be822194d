"""Scores at other sizes and in fewer bits: each row is of the network that it names."""

from pathlib import Path

import pytest
import torch
from conftest import TINY

from recseg.book.ablation import SCORES
from recseg.book.measure_sizes import measure
from recseg.data import open_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.models.config import RecurrentUNetConfig
from recseg.models.recurrent_unet import RecurrentUNet


def test_each_row_is_scored_as_it_says(tiny_voc: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = RecurrentUNet(RecurrentUNetConfig(**TINY)).eval()
    dataset = open_dataset(str(tiny_voc), "train")
    model.image_size, model.classes = 32, dataset.classes
    rows = list(measure(model, dataset, dataset, sizes=(32, 64), limit=2))
    assert [(row["image_size"], row["precision"]) for row in rows] == [
        (32, "float32"), (64, "float32"), (32, "bfloat16"), (32, "int8")
    ]  # fmt: skip
    for row, size in zip(rows[:2], (32, 64), strict=True):
        scores = evaluate(model, dataset, image_size=size, limit=2, progress=False)
        assert {name: row[name] for name in SCORES} == {name: scores[name] for name in SCORES}
    assert all(0 <= row["miou"] <= 1 for row in rows)
