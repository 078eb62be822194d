"""The cost of speed in quality: the score of a published network in 32 and 16 bits, on the same images."""

from typing import Any

import torch

from recseg.benchmark.parts import Bar, Found, Setting, precisions
from recseg.data import open_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.weights.io import load

NAME = "pictograms-recurrent"


def quality(setting: Setting) -> Found:
    """mIoU of the published pictogram network in each precision."""
    images = open_dataset("pictograms", "val")
    model = load(NAME, setting.device)
    scores: dict[str, float] = {}
    for kind, precision in precisions(setting.device).items():
        with torch.autocast(setting.device.type, dtype=precision, enabled=precision is not None):
            scores[kind] = evaluate(model, images, progress=False)["miou"]
        setting.progress()
    bars = [
        Bar(f"mIoU points lost, {kind} instead of float32, {NAME}", 100 * (scores["float32"] - score), 0.3,
            "whether predicting in 16 bits costs quality")
        for kind, score in scores.items() if kind != "float32"
    ]  # fmt: skip
    result: dict[str, Any] = {"images": len(images), NAME: {kind: round(score, 6) for kind, score in scores.items()}}
    return result, bars
