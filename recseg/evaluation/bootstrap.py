"""How far a score, or the difference of two, may be luck of the images: the bootstrap over images.

Images are drawn anew from the list, with replacement and as many as it has, and everything is scored on them. What the
middle 95 % of many such draws give is the interval (Efron and Tibshirani, "An introduction to the bootstrap", 1993:
the percentile interval). Two networks are scored on the same draws: an image that is hard for both widens neither.

A mean over classes is over the classes that occur in the ground truth of the images drawn, in every row the same ones:
what a network invents elsewhere costs the classes that it takes pixels from.
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
    """A value on the list as it is, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def resamples(images: int, number: int = RESAMPLES, seed: int = 0) -> Array:
    """(1 + number, images): how often each image is drawn. The first row is the list itself, each image once."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=number)
    return np.concatenate([np.ones((1, images)), drawn])


def interval(values: Array) -> Interval:
    """Of a score on each row of `resamples`; draws on which nothing is defined are left out."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5]) if np.isfinite(values[1:]).any() else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def measure(images: Sequence[ImageCounts], num_classes: int, weights: Array) -> dict[str, Array]:
    """Every score of `MEASURES` on each of R resampled lists, and the IoU of each class.

    Args:
        images: N counts, of one way to answer.
        num_classes: K labels, background included.
        weights: (R, N), how often each image counts.

    Returns:
        (R,) arrays by name, and `iou_per_class` (R, K); NaN where nothing is defined.
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
    """What each image adds to each sum: (N, 6 K + 4)."""
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
    """Mean over classes (R, K) → (R,) of what is defined."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))
