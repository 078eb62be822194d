"""Three protocols to score one segmentation, never to be mixed in one column.

- `VOCMetric`: one confusion matrix over the whole split, as the PASCAL VOC development kit counts.
- `SlotMetric`: the two figures of the published recurrent baseline, over slots 1 … 5.
- `SetMetric`: which classes the model says are present, and how many steps it takes to say so; `CalibrationMetric`:
  whether the probabilities that it gives, for a class or for having finished, are to be believed.

All state is whole numbers, so a score does not depend on the order of the images, nor on how they were split over
processes: `a.merge(b)` gives exactly what one metric would have seen.

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


class _Sums:
    """A metric whose state is sums over images, but for the attributes in `_fixed`, which say what is counted."""

    _fixed: ClassVar[tuple[str, ...]] = ()

    def merge(self, other: Self) -> Self:
        """Add what another metric has counted."""
        for name in self._fixed:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise RecsegError(f"metrics of different {name} cannot be merged: {mine} and {theirs}")
        for name in vars(self).keys() - set(self._fixed):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class VOCMetric(_Sums):
    """Mean intersection over union of a whole split, at the resolution of the labels, void ignored.

    Averaging IoUs image by image is another (and higher) figure: here a class is counted over all pixels of all images.

    Args:
        num_classes: labels with the background, e.g. 21.
    """

    _fixed = ("num_classes",)

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # Rows: ground truth, columns: prediction.
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count the pixels of one image (H, W) or of a batch (B, H, W); void (255) in `labels` is left out.

        Raises:
            RecsegError: shapes differ, or a label is none of the classes.
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
        # Not in place, so that a sum begun in inference mode can be continued outside; (C²,) -> (C, C)
        self.confusion = self.confusion + pairs.view(self.num_classes, self.num_classes).cpu()

    def compute(self) -> dict[str, Any]:
        """`miou`, `iou_per_class`, `pixel_accuracy`, `confusion` (a list of rows, one a true class).

        `miou` is the mean over the classes that occur in the ground truth: the same ones for every network. A class
        that occurs in predictions alone has IoU 0; where there is one, `miou_with_absent` is the mean that counts it
        too. A class that occurs in neither has IoU None, and is no part of a mean.
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


class SlotMetric(_Sums):
    """The baseline's slot accuracy and slot IoU.

    The true classes of an image, in ascending id, fill slots 1 … `slots`. Predicted steps of one class are merged,
    sorted by class id, and fill slots likewise. A slot is a hit where both hold the same class. Slot accuracy of a
    class is the share of its slots that are hits; slot IoU is the mean IoU **over those hits only**, so a model that
    names few classes right can still have a high slot IoU: read the two together.

    One class that is missing or too many shifts all later slots, which is why the same steps are also scored in the
    model's own order (`slot_accuracy_own_order`, steps of one class merged at the first of them).

    Args:
        num_classes: labels with the background, e.g. 21.
        slots: how many slots there are; classes beyond them are not scored.
    """

    _fixed = ("num_classes", "slots")

    def __init__(self, num_classes: int, slots: int = 5) -> None:
        self.num_classes = num_classes
        self.slots = slots
        self.total = np.zeros(num_classes, np.int64)  # slots that a class truly has
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
            RecsegError: shapes do not agree, or a class id is none of the foreground classes.
        """
        if masks.shape != (len(classes), *labels.shape):
            raise RecsegError(
                f"masks {tuple(masks.shape)} do not fit {len(classes)} classes and labels {tuple(labels.shape)}"
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
        """Slot accuracy and slot IoU: means over classes, and a list of C - 1 values, that of class k + 1 at index k.

        A class that never occurs has None and is no part of either mean; a class without hits has no IoU, is left out
        of that mean, and its id is listed in `slot_classes_without_hits`.
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


class SetMetric(_Sums):
    """Precision, recall and F1 of the set of classes named, and how often the number of steps is right.

    Micro-averaged: labels of all images are pooled before dividing. An average over images would give an image of
    one class, where a miss costs everything, the weight of an image of five.
    """

    def __init__(self) -> None:
        self.images = self.steps = self.right_counts = 0
        self.named = self.present = self.correct = 0  # classes; the correct ones are named and present

    def update(self, predicted: Collection[int], true: Collection[int], steps: int) -> None:
        """Score one image.

        Args:
            predicted: foreground class ids that the model names (repeats count once).
            true: foreground class ids that are present, at the labels' own resolution.
            steps: steps that the model ran, repeats included: the count is right where it equals the true one.
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

        Nothing named where nothing is present is right (1.0); where one of the two is empty, the score is 0.0.
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


class CalibrationMetric(_Sums):
    """Is a probability to be believed: of the times it is 30 %, does the thing happen in 30 %?

    Pairs are sorted into bins by the probability given. The error is the mean over pairs of the difference, in a bin,
    between mean probability and share of what happened (Guo et al., "On calibration of modern neural networks", ICML
    2017).

    Args:
        name: of what is given a probability, such as "stop".
        outcome: what may happen, such as "ended".
        bins: of equal width, from 0 to 1.
    """

    _fixed = ("name", "outcome", "bins")

    def __init__(self, name: str, outcome: str, bins: int = 10) -> None:
        self.name, self.outcome, self.bins = name, outcome, bins
        self.decisions = np.zeros(bins, np.int64)
        self.happened = np.zeros(bins, np.int64)
        self.probability = np.zeros(bins, np.int64)  # in units of 2^-40

    def update(self, probabilities: Sequence[float], outcomes: Sequence[bool]) -> None:
        """Count some pairs: what was said, and whether it happened."""
        for probability, outcome in zip(probabilities, outcomes, strict=True):
            index = min(int(probability * self.bins), self.bins - 1)
            self.decisions[index] += 1
            self.happened[index] += outcome
            self.probability[index] += round(probability * IOU_UNIT)

    def compute(self) -> dict[str, Any]:
        """`NAME_calibration_error` (None where nothing was counted), and `NAME_calibration`: the bins not empty."""
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
    """Mean of what is defined; None where nothing is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
