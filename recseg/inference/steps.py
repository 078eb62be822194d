"""From what a network computed for one image to its prediction: steps and label map at the image's own size.

One rule for all networks, and for those that ONNX Runtime runs: logits are resized *before* any threshold or argmax, so
edges fall between pixels instead of on the network's coarse grid. Plain NumPy: no torch is needed to predict.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recseg.classes import SMALLEST_AREA, Legend, has_background
from recseg.inference.prediction import Prediction, Step

Floats = NDArray[np.float32]


def from_steps(
    masks: Floats,
    classes: Floats,
    stops: Sequence[float],
    size: tuple[int, int],
    legend: Legend,
    *,
    threshold: float = 0.5,
) -> Prediction:
    """The prediction of a recurrent network: its steps in their order, fused as `recseg.inference.fusion` does.

    Args:
        masks: (N, h, w) mask logits of N steps.
        classes: (N, C) class logits; column k is label k + 1.
        stops: logits of the decisions that were taken: N + 1, or N where the last step was the last possible one.
        size: (H, W) of the image.
        legend: of the labels.
        threshold: probability from which on a pixel belongs to a step's mask.
    """
    bound = np.log(threshold) - np.log1p(-threshold)  # as a logit
    least = 0 if has_background(legend.names) else -np.inf  # which a class has to exceed
    best, labels = np.full(size, least, np.float32), np.zeros(size, np.uint8)
    steps, survival = [], 0.0  # logarithm of the probability that the sequence gets this far
    for mask, scores, stop in zip(masks, classes, stops, strict=False):
        survival -= float(np.logaddexp(0, stop))
        logits = resize(mask, size)
        label = int(scores.argmax()) + 1
        log_odds = logits + np.float32(survival)
        labels[log_odds > best] = label
        best = np.maximum(best, log_odds)
        inside = logits > bound
        probability = float(1 / np.exp(scores - scores.max()).sum())
        steps.append(Step(label, _name(legend, label), probability, sigmoid(stop), inside, float(inside.mean())))
    end = sigmoid(stops[len(steps)]) if len(stops) > len(steps) else None
    return Prediction(steps, labels, legend.palette, end, legend.value_of_label)


def from_pixels(logits: Floats, size: tuple[int, int], legend: Legend) -> Prediction:
    """The prediction of a dense network: a step for each class that covers 0.4 % of the image, largest first.

    Args:
        logits: (num_classes, h, w).
        size: (H, W) of the image.
        legend: of the labels.
    """
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    total = best.copy()
    first = 0 if has_background(legend.names) else 1
    for label in range(first, len(logits)):  # one class at a time: all of them at a camera's size may not fit
        plane = resize(logits[label], size)
        labels[plane > best] = label
        best, total = np.maximum(best, plane), np.logaddexp(total, plane)
    confidence = np.exp(best - total)  # softmax of the winner
    steps = []
    for label in range(1, len(logits)):
        mask = labels == label
        area = float(mask.mean())
        if area >= SMALLEST_AREA:
            steps.append(Step(label, _name(legend, label), float(confidence[mask].mean()), None, mask, area))
    steps.sort(key=lambda step: -step.area)
    return Prediction(steps, labels, legend.palette, None, legend.value_of_label)


def _name(legend: Legend, label: int) -> str:
    return legend.names[label] if label < len(legend.names) else f"class {label}"


def resize(plane: Floats, size: tuple[int, int]) -> Floats:
    """Resize logits (h, w) to (H, W), bilinear between the centres of pixels; never smoothed when they shrink."""
    for axis, length in enumerate(size):
        old = plane.shape[axis]
        centre = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        below = np.floor(centre).astype(np.int64)
        above = np.minimum(below + 1, old - 1)
        share = (centre - below).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None, :]
        plane = plane.take(below, axis) * (1 - share) + plane.take(above, axis) * share
    return plane


def sigmoid(logit: float) -> float:
    """Without overflow."""
    return float(np.exp(-np.logaddexp(0, -logit)))
