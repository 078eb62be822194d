"""Three protocols for scoring a segmentation; their scores are not comparable with each other.

- `VOCMetric`: one confusion matrix over the whole split, as in the PASCAL VOC development kit.
- `SlotMetric`: the two scores of the published recurrent baseline, over slots 1 … 5.
- `SetMetric`: which classes the model names, and in how many steps; `CalibrationMetric`: whether its probabilities, for
  a class or for the stop, are calibrated.

All state is integer, so a score depends neither on the order of the images nor on how they were split over processes:
`a.merge(b)` is exactly what one metric would have counted.

Sources: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015 (VOC);
"Recurrently Semantic Segmentation" (slots).
"""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from recseg.classes import BACKGROUND, VOID
from recseg.errors import RecsegError

# IoUs are summed in units of 2^-40: a sum of floats depends on the order of its terms, a sum of integers does not.
IOU_UNIT = 1 << 40


class Metric:
    """A metric whose attributes are sums over images, except for its settings, which `_fixed` names."""

    _fixed: ClassVar[tuple[str, ...]] = ()

    def merge(self, other: Self) -> Self:
        """Add the counts of another metric."""
        for name in self._fixed:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise RecsegError(f"metrics of different {name} cannot be merged: {mine} and {theirs}")
        for name in vars(self).keys() - set(self._fixed):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class VOCMetric(Metric):
    """Mean intersection over union of a whole split, at the resolution of the labels, void ignored.

    A class is counted over all pixels of all images; averaging the IoU of each image is another, higher score.

    Args:
        num_classes: labels, background included, e.g. 21.
    """

    _fixed = ("num_classes",)

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # Rows: ground truth, columns: prediction.
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count the pixels of one image (H, W) or of a batch (B, H, W); void (255) in `labels` is left out.

        Raises:
            RecsegError: shapes differ, or a label is out of range.
        """
        if predicted.shape != labels.shape:
            raise RecsegError(f"prediction {tuple(predicted.shape)} and labels {tuple(labels.shape)} differ in shape")
        counted = labels != VOID
        truth, guess = labels[counted].long(), predicted[counted].long()  # (N,), (N,)
        for name, values in (("label", truth), ("predicted label", guess)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < self.num_classes:
                wrong = values[(values < 0) | (values >= self.num_classes)][0]
                raise RecsegError(f"{name} {int(wrong)} is not one of 0 … {self.num_classes - 1}")
        pairs = torch.bincount(truth * self.num_classes + guess, minlength=self.num_classes**2)
        # Not in place, so that a sum started in inference mode can be continued outside it; (C²,) -> (C, C)
        self.confusion = self.confusion + pairs.view(self.num_classes, self.num_classes).cpu()

    def compute(self) -> dict[str, Any]:
        """`miou`, `iou_per_class`, `pixel_accuracy`, `confusion` (a list of rows, one per true class).

        `miou` is the mean over the classes that occur in the ground truth, the same for every network. A class that
        occurs only in predictions has IoU 0; if there is one, `miou_with_absent` is the mean that includes it. A class
        that occurs in neither has IoU None and is part of no mean.
        """
        hits = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        ious = [int(hit) / int(all_) if all_ else None for hit, all_ in zip(hits, union, strict=True)]
        true = [iou for iou, pixels in zip(ious, self.confusion.sum(1), strict=True) if pixels]
        absent = {} if len(true) == sum(iou is not None for iou in ious) else {"miou_with_absent": _mean(ious)}
        return {
            "miou": _mean(true),
            **absent,
            "iou_per_class": ious,
            "pixel_accuracy": _ratio(int(hits.sum()), int(self.confusion.sum())),
            "confusion": self.confusion.tolist(),
        }


class SlotMetric(Metric):
    """The baseline's slot accuracy and slot IoU.

    The true classes of an image, in ascending id, fill slots 1 … `slots`. Predicted steps are merged by class, sorted
    by class id, and fill slots likewise. A slot is a hit if both have the same class. Slot accuracy of a class is the
    share of its slots that are hits; slot IoU is the mean IoU **over those hits only**, so a model that gets few
    classes right can still have a high slot IoU: read the two together.

    One missing or extra class shifts all later slots, so the same steps are also scored in the model's own order
    (`slot_accuracy_own_order`, steps of one class merged into the first of them).

    Args:
        num_classes: labels, background included, e.g. 21.
        slots: number of slots; further classes are not scored.
    """

    _fixed = ("num_classes", "slots")

    def __init__(self, num_classes: int, slots: int = 5) -> None:
        self.num_classes = num_classes
        self.slots = slots
        self.total = np.zeros(num_classes, np.int64)  # slots of each class in the ground truth
        self.hits = np.zeros(num_classes, np.int64)
        self.hits_own_order = np.zeros(num_classes, np.int64)
        self.iou = np.zeros(num_classes, np.int64)  # over hits, in units of 2^-40

    def update(self, classes: Sequence[int], masks: Tensor, labels: Tensor) -> None:
        """Score one image.

        Args:
            classes: class id (1 … C - 1) of each of N predicted steps, in the model's own order.
            masks: (N, H, W) bool, the mask of each step; H = W = 256 in the baseline's protocol.
            labels: (H, W) true labels at the same size, resized by nearest neighbour; void counts as background.

        Raises:
            RecsegError: shapes do not match, or a class id is not a foreground class.
        """
        if masks.shape != (len(classes), *labels.shape):
            raise RecsegError(
                f"masks {tuple(masks.shape)} do not match {len(classes)} classes and labels {tuple(labels.shape)}"
            )
        merged: dict[int, Tensor] = {}
        for class_id, mask in zip(classes, masks.bool(), strict=True):
            merged[class_id] = merged[class_id] | mask if class_id in merged else mask
        true = sorted(set(torch.unique(labels).tolist()) - {BACKGROUND, VOID})
        for class_id in (*merged, *true):
            if not BACKGROUND < class_id < self.num_classes:
                raise RecsegError(f"class {class_id} is not one of 1 … {self.num_classes - 1}")

        own, ascending = list(merged)[: self.slots], sorted(merged)[: self.slots]
        for slot, class_id in enumerate(true[: self.slots]):
            self.total[class_id] += 1
            self.hits_own_order[class_id] += own[slot : slot + 1] == [class_id]
            if ascending[slot : slot + 1] == [class_id]:
                mask, truth = merged[class_id], labels == class_id
                intersection, union = int((mask & truth).sum()), int((mask | truth).sum())
                self.hits[class_id] += 1
                self.iou[class_id] += (intersection * IOU_UNIT + union // 2) // union  # union > 0: the class is present

    def compute(self) -> dict[str, Any]:
        """Slot accuracy and slot IoU: means over classes, and lists of C - 1 values with class k + 1 at index k.

        A class that never occurs has None and is part of neither mean; a class without hits has no IoU, is left out of
        that mean, and is listed in `slot_classes_without_hits`.
        """
        total, hits = self.total[1:].tolist(), self.hits[1:].tolist()
        accuracy = list(map(_ratio, hits, total))
        iou = [_ratio(part, number * IOU_UNIT) for part, number in zip(self.iou[1:].tolist(), hits, strict=True)]
        return {
            "slot_accuracy": _mean(accuracy),
            "slot_iou": _mean(iou),
            "slot_accuracy_own_order": _mean(list(map(_ratio, self.hits_own_order[1:].tolist(), total))),
            "slot_accuracy_per_class": accuracy,
            "slot_iou_per_class": iou,
            "slot_classes_without_hits": (1 + np.flatnonzero((self.total[1:] > 0) & (self.hits[1:] == 0))).tolist(),
        }


class SetMetric(Metric):
    """Precision, recall and F1 of the set of classes named, and how often the number of steps is right.

    Micro-averaged: labels of all images are pooled before dividing. A mean over images would give an image of one
    class, where a single miss means 0, the same weight as an image of five.
    """

    def __init__(self) -> None:
        self.images = self.steps = self.right_counts = 0
        self.named = self.present = self.correct = 0  # counts of classes; correct: named and present

    def update(self, predicted: Collection[int], true: Collection[int], steps: int) -> None:
        """Score one image.

        Args:
            predicted: foreground class ids that the model names (repeats count once).
            true: foreground class ids present, at the labels' own resolution.
            steps: steps that the model ran, repeats included; the count is right if it equals the number of classes.
        """
        named, present = set(predicted) - {BACKGROUND, VOID}, set(true) - {BACKGROUND, VOID}
        self.images += 1
        self.correct += len(named & present)
        self.named += len(named)
        self.present += len(present)
        self.steps += steps
        self.right_counts += steps == len(present)

    def compute(self) -> dict[str, Any]:
        """`label_set_precision`, `label_set_recall`, `label_set_f1`, `count_accuracy`, `mean_steps`, `images`.

        If nothing is named and nothing is present, the scores are 1.0; if only one of the two is empty, 0.0.
        """
        nothing = float(self.named == self.present == 0)
        return {
            "label_set_precision": self.correct / self.named if self.named else nothing,
            "label_set_recall": self.correct / self.present if self.present else nothing,
            "label_set_f1": 2 * self.correct / (self.named + self.present) if self.named + self.present else nothing,
            "count_accuracy": _ratio(self.right_counts, self.images),
            "mean_steps": _ratio(self.steps, self.images),
            "images": self.images,
        }


class CalibrationMetric(Metric):
    """Expected calibration error: of the events predicted with 30 %, do 30 % happen?

    Predictions are binned by probability. The error is the absolute difference between mean probability and observed
    frequency in each bin, averaged over predictions (Guo et al., "On calibration of modern neural networks", ICML
    2017).

    Args:
        name: name of the prediction, such as "stop".
        outcome: name of the event, such as "ended".
        bins: number of bins of equal width in 0 … 1.
    """

    _fixed = ("name", "outcome", "bins")

    def __init__(self, name: str, outcome: str, bins: int = 10) -> None:
        self.name, self.outcome, self.bins = name, outcome, bins
        self.decisions = np.zeros(bins, np.int64)
        self.happened = np.zeros(bins, np.int64)
        self.probability = np.zeros(bins, np.int64)  # in units of 2^-40

    def update(self, probabilities: Sequence[float], outcomes: Sequence[bool]) -> None:
        """Count predicted probabilities and whether each event happened."""
        for probability, outcome in zip(probabilities, outcomes, strict=True):
            index = min(int(probability * self.bins), self.bins - 1)
            self.decisions[index] += 1
            self.happened[index] += outcome
            self.probability[index] += round(probability * IOU_UNIT)

    def compute(self) -> dict[str, Any]:
        """`NAME_calibration_error` (None if nothing was counted), and `NAME_calibration`: the non-empty bins."""
        bins = np.stack([self.decisions, self.happened, self.probability], axis=1)  # (bins, 3)
        rows = [
            {"probability": total / count / IOU_UNIT, self.outcome: happened / count, "decisions": count}
            for count, happened, total in bins.tolist()
            if count
        ]
        gaps = sum(row["decisions"] * abs(row["probability"] - row[self.outcome]) for row in rows)
        return {
            f"{self.name}_calibration_error": gaps / int(self.decisions.sum()) if rows else None,
            f"{self.name}_calibration": rows,
        }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
