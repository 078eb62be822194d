"""What speed costs: the score of the published networks in 32 bits and in 16, on the same images."""

from typing import Any

import torch

from recseg.benchmark.parts import Bar, Found, Setting, precisions
from recseg.data import open_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.weights.io import load

NAMES = ("pictograms-recurrent", "pictograms-dense")


def quality(setting: Setting) -> Found:
    """mIoU of the published pictogram networks, each way of computing."""
    pictures = open_dataset("pictograms", "val")
    result: dict[str, Any] = {"images": len(pictures)}
    bars = []
    for name in NAMES:
        model = load(name, setting.device)
        scores: dict[str, float] = {}
        for kind, precision in precisions(setting.device).items():
            with torch.autocast(setting.device.type, dtype=precision, enabled=precision is not None):
                scores[kind] = evaluate(model, pictures, progress=False)["miou"]
            setting.progress()
        result[name] = {kind: round(score, 6) for kind, score in scores.items()}
        for kind in set(scores) - {"float32"}:
            lost = 100 * abs(scores["float32"] - scores[kind])
            bars.append(Bar(f"{name}, mIoU points between float32 and {kind}", lost, 0.3))
    return result, bars
