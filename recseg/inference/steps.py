"""Turn the output of a network for one image into a prediction: steps and label map at the image's own size.

All networks, and those run by ONNX Runtime, follow one rule: logits are resized *before* any threshold or argmax, so
that edges do not follow the network's coarse grid. Plain NumPy: no torch is needed.
"""

from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recseg.classes import BACKGROUND, SMALLEST_AREA, Legend, has_background
from recseg.inference.prediction import Prediction, Step

Floats = NDArray[np.float32]


class Sequence(NamedTuple):
    """The output of a recurrent network for one image: N steps, and the stop that ended them.

    Attributes:
        masks: (N, h, w) mask logits at the network's own resolution.
        classes: (N, C) class logits; column k is label k + 1.
        stops: logits of the stop decisions: N + 1 of them, or N if all steps ran.
    """

    masks: Floats
    classes: Floats
    stops: list[float]


Output: TypeAlias = "Sequence | Floats"  # of a dense network: logits (num_classes, h, w)


def to_prediction(output: Output, size: tuple[int, int], legend: Legend, threshold: float = 0.5) -> Prediction:
    """The prediction for one image, from the output of a network.

    Args:
        output: steps of a recurrent network, or logits of a dense one.
        size: (H, W) of the image.
        legend: of the labels.
        threshold: probability above which a pixel belongs to a step's mask.
    """
    if isinstance(output, Sequence):
        return from_steps(output, size, legend, threshold)
    return from_pixels(output, size, legend)


def from_steps(output: Sequence, size: tuple[int, int], legend: Legend, threshold: float = 0.5) -> Prediction:
    """The prediction of a recurrent network: its steps in their order, fused as `recseg.inference.fusion` does."""
    with np.errstate(divide="ignore"):  # infinite for 0 and 1
        bound = np.log(threshold) - np.log1p(-threshold)  # as a logit
    least = 0 if has_background(legend.names) else -np.inf  # a class must exceed it
    best, labels = np.full(size, least, np.float32), np.zeros(size, np.uint8)
    steps = []
    for (label, logits, discount), scores, stop in zip(
        _resized(output, size), output.classes, output.stops, strict=False
    ):
        log_odds = logits + discount
        labels[log_odds > best] = label
        best = np.maximum(best, log_odds)
        inside = logits > bound
        probability = float(1 / np.exp(scores - scores.max()).sum())
        name = class_name(legend.names, label)
        steps.append(Step(label, name, probability, sigmoid(stop), inside, float(inside.mean())))
    end = sigmoid(output.stops[len(steps)]) if len(output.stops) > len(steps) else None
    return Prediction(steps, labels, legend.palette, end, legend.value_of_label)


def _resized(output: Sequence, size: tuple[int, int]) -> Iterator[tuple[int, Floats, np.float32]]:
    """For each step: label, mask logits at the image's size, and log-probability that the sequence gets this far."""
    survival = 0.0
    for mask, scores, stop in zip(output.masks, output.classes, output.stops, strict=False):
        survival -= float(np.logaddexp(0, stop))
        yield int(scores.argmax()) + 1, resize(mask, size), np.float32(survival)


def from_pixels(logits: Floats, size: tuple[int, int], legend: Legend) -> Prediction:
    """The prediction of a dense network: a step for each class that covers 0.4 % of the image, largest first."""
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    total = best.copy()
    first = BACKGROUND if has_background(legend.names) else BACKGROUND + 1
    for label in range(first, len(logits)):  # one class at a time: all at once may not fit in memory
        plane = resize(logits[label], size)
        labels[plane > best] = label
        best, total = np.maximum(best, plane), np.logaddexp(total, plane)
    confidence = np.exp(best - total)  # softmax of the winner
    steps = []
    for label in range(1, len(logits)):
        mask = labels == label
        area = float(mask.mean())
        if area >= SMALLEST_AREA:
            steps.append(Step(label, class_name(legend.names, label), float(confidence[mask].mean()), None, mask, area))
    steps.sort(key=lambda step: -step.area)
    return Prediction(steps, labels, legend.palette, None, legend.value_of_label)


def probabilities(output: Output, size: tuple[int, int], *, background: bool = True) -> dict[int, Floats]:
    """Probability of each label at each pixel: label → (H, W), summing to 1 at each pixel.

    For a dense network, a softmax over all labels. For a recurrent one, a softmax over background and the classes that
    it named, whose discounted mask logits are log-odds against background; fusion takes the largest of them. If a pixel
    cannot be background (`background` is False), both leave it out.
    """
    logits: dict[int, Floats] = {}
    if isinstance(output, Sequence):
        if background:
            logits[BACKGROUND] = np.zeros(size, np.float32)
        for label, plane, discount in _resized(output, size):
            log_odds = plane + discount
            logits[label] = np.maximum(logits[label], log_odds) if label in logits else log_odds
    else:
        first = BACKGROUND if background else BACKGROUND + 1
        logits |= {label: resize(output[label], size) for label in range(first, len(output))}
    highest = reduce(np.maximum, logits.values())
    shares = {label: np.exp(plane - highest) for label, plane in logits.items()}
    total = sum(shares.values())
    return {label: share / total for label, share in shares.items()}


def class_name(names: tuple[str, ...], label: int) -> str:
    """A label's name, or a substitute if the file does not name it."""
    return names[label] if label < len(names) else f"class {label}"


def resize(plane: Floats, size: tuple[int, int]) -> Floats:
    """Resize logits (h, w) to (H, W), bilinearly between pixel centres, without antialiasing."""
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
    """The logistic function, without overflow."""
    return float(np.exp(-np.logaddexp(0, -logit)))
