"""Confidence intervals of a score, or of the difference of two: the bootstrap over images.

As many images as the list has are drawn from it with replacement, and everything is scored on them. The middle 95 % of
many such draws is the percentile interval (Efron and Tibshirani, "An introduction to the bootstrap", 1993). Two
networks are scored on the same draws, so an image that is hard for both does not widen their difference.

A mean over classes is over the classes that occur in the ground truth of the images drawn, the same for every network:
pixels wrongly given to another class count against the classes they belong to.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recseg.evaluation.metrics import IOU_UNIT
from recseg.evaluation.scores import ImageCounts

Array = NDArray[np.float64]

RESAMPLES = 10_000
MEASURES = ("miou", "label_set_f1", "label_set_recall", "count_accuracy", "slot_accuracy", "slot_iou")


class Interval(NamedTuple):
    """A value on the original list, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def resamples(images: int, number: int = RESAMPLES, seed: int = 0) -> Array:
    """(1 + number, images): how often each image is drawn. The first row is the list itself, each image once."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=number)
    return np.concatenate([np.ones((1, images)), drawn])


def interval(values: Array) -> Interval:
    """Interval of a score given for each row of `resamples`; undefined (NaN) values are left out."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5]) if np.isfinite(values[1:]).any() else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def measure(images: Sequence[ImageCounts], num_classes: int, weights: Array) -> dict[str, Array]:
    """Every score of `MEASURES` on each of R resampled lists, and the IoU of each class.

    Args:
        images: counts of N images, under one rule.
        num_classes: K labels, background included.
        weights: (R, N), how often each image counts.

    Returns:
        (R,) arrays by name, and `iou_per_class` (R, K); NaN where undefined.
    """
    sums = weights @ _columns(images, num_classes)  # (R, 6 K + 4)
    by_class, pooled = sums[:, :-4], sums[:, -4:].T
    hit, true, predicted, slots, slot_hits, slot_iou = np.split(by_class, 6, axis=1)  # (R, K) each
    correct, named, present, right = pooled  # (R,) each
    iou = _ratio(hit, np.where(true > 0, true + predicted - hit, 0))
    return {
        "miou": _mean(iou),
        "label_set_f1": _ratio(2 * correct, named + present),
        "label_set_recall": _ratio(correct, present),
        "count_accuracy": right / weights.sum(axis=1),
        "slot_accuracy": _mean(_ratio(slot_hits, slots)),
        "slot_iou": _mean(_ratio(slot_iou, slot_hits)),
        "iou_per_class": iou,
    }


def _columns(images: Sequence[ImageCounts], num_classes: int) -> Array:
    """Contribution of each image to each sum: (N, 6 K + 4)."""
    by_class = np.zeros((len(images), 6, num_classes))
    pooled = np.zeros((len(images), 4))
    for row, sums, image in zip(by_class, pooled, images, strict=True):
        for true, predicted, pixels in image.confusion:
            row[0, true] += pixels * (true == predicted)
            row[1, true] += pixels
            row[2, predicted] += pixels
        for label, hit, iou in image.slots:
            row[3:, label] = 1, hit, iou / IOU_UNIT
        named, present = set(image.named), set(image.present)
        sums[:] = len(named & present), len(named), len(present), len(image.named) == len(present)
    return np.concatenate([by_class.reshape(len(images), -1), pooled], axis=1)


def _ratio(part: Array, whole: Array) -> Array:
    ratio: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _mean(values: Array) -> Array:
    """Mean over classes, (R, K) → (R,), ignoring NaN."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))
