"""All protocols for one list of images under one rule, as sums over the list and as counts of each image.

Every score is a ratio of sums over images, so it can be recomputed from the counts of each image, on the same list or
on a resampled one: `recseg.evaluation.bootstrap`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from recseg.evaluation.answers import Answer, to_slot_size
from recseg.evaluation.metrics import CalibrationMetric, SetMetric, SlotMetric, VOCMetric


class ImageCounts(NamedTuple):
    """Contribution of one image to the scores, as JSON-able lists.

    Attributes:
        confusion: the non-zero entries of its confusion matrix: true label, predicted label, pixels.
        present: true classes, in ascending id.
        named: class of each step, or each class that a rule names.
        slots: class, 1 for a hit, and IoU of the hit in units of 2^-40, for each slot that has a true class.
        areas: share of the image that each label covers, if pixels could take any label; else empty.
    """

    confusion: list[list[int]]
    present: list[int]
    named: list[int]
    slots: list[list[int]]
    areas: list[float]


class Scores:
    """The protocols of `recseg.evaluation.metrics` together, and the counts of each image by its index in the list."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.voc, self.slot, self.label_set = VOCMetric(num_classes), SlotMetric(num_classes), SetMetric()
        self.stop, self.named = CalibrationMetric("stop", "ended"), CalibrationMetric("class", "present")
        self.images: dict[int, ImageCounts] = {}

    def update(self, index: int, answer: Answer, labels: Tensor, present: Sequence[int]) -> None:
        """Score one image: its index in the list, the answer, the label map (H, W), the classes in that map."""
        voc, slot = VOCMetric(self.num_classes), SlotMetric(self.num_classes)
        voc.update(answer.labels, labels.to(answer.labels.device))
        slot.update(answer.classes, answer.masks, to_slot_size(labels))
        self.voc.merge(voc)
        self.slot.merge(slot)
        self.label_set.update(answer.classes, present, len(answer.classes))
        self.stop.update(answer.stops, [step >= len(present) for step in range(len(answer.stops))])
        if answer.probabilities:
            self.named.update(answer.probabilities, [label in present for label in answer.classes])
        pairs = voc.confusion.nonzero()  # (E, 2)
        entries = torch.cat([pairs, voc.confusion[pairs[:, 0], pairs[:, 1], None]], dim=1).tolist()
        slots = [[k, int(slot.hits[k]), int(slot.iou[k])] for k in slot.total.nonzero()[0].tolist()]
        self.images[index] = ImageCounts(entries, list(present), list(answer.classes), slots, answer.areas)

    def merge(self, other: "Scores") -> Self:
        """Add the counts of another process; these are integer sums, so the order does not matter."""
        for name in ("voc", "slot", "label_set", "stop", "named"):
            getattr(self, name).merge(getattr(other, name))
        self.images |= other.images
        return self

    def compute(self) -> dict[str, Any]:
        """The scores of all protocols, by class id."""
        metrics: tuple[Any, ...] = (self.voc, self.slot, self.label_set, self.stop, self.named)
        return {name: value for metric in metrics for name, value in metric.compute().items()}
