"""The numbers behind a report, from the scores of a network and the masks of its data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recseg.classes import BACKGROUND, NO_BACKGROUND, Legend
from recseg.data.survey import Survey
from recseg.evaluation.bootstrap import MEASURES, Interval, interval, measure, resamples
from recseg.evaluation.scores import ImageCounts

MOST_COUNTED = 10  # larger numbers of classes in an image count as this one
RESAMPLES = 2000


class ClassRow(NamedTuple):
    """Scores of one label. Shares are in 0 … 1, or None where the denominator is 0.

    Attributes:
        label: the label.
        name: name of its class.
        images: images that contain it.
        named: images in which the network names it.
        right: images for which both are true.
        share: its share of all scored pixels.
        precision: of the pixels predicted as this label, the share that is correct.
        recall: of the pixels of this label, the share predicted as such.
        iou: intersection over union of the two.
    """

    label: int
    name: str
    images: int
    named: int
    right: int
    share: float
    precision: float | None
    recall: float | None
    iou: float | None


@dataclass(frozen=True)
class Facts:
    """Everything that the page and its hints are built from.

    Attributes:
        scores: from `recseg.evaluation.evaluate.evaluate`, with `per_image`.
        legend: classes and colours of the data.
        kind: kind of the network: "recurrent", "dense" or "published".
        side: short side of its input in pixels; None: images are not resized.
        cell: output stride: side, in pixels of its input, of one cell of its masks.
        masks: survey of the masks of the scored images.
        trained_on: name of the list that it was trained on, if the data have that list.
        training: survey of the masks of that list.
        shared: number of scored images that are in that list.
        log: rows of the training log.
    """

    scores: Mapping[str, Any]
    legend: Legend
    kind: str
    side: int | None
    cell: float
    masks: Survey
    trained_on: str | None
    training: Survey | None
    shared: int
    log: list[dict[str, Any]]

    @cached_property
    def images(self) -> dict[str, ImageCounts]:
        """Counts of each image, by its id."""
        return {name: ImageCounts(**counts) for name, counts in self.scores["per_image"].items()}

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) pixel counts, rows true and columns predicted."""
        return np.array(self.scores["confusion"], np.int64)

    @cached_property
    def rows(self) -> list[ClassRow]:
        """One row for each label that occurs in the ground truth or in a prediction."""
        hits, true, given = self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        images, named, right = counts = np.zeros((3, len(true)), np.int64)
        for image in self.images.values():
            present = {label for label, _, _ in image.confusion}  # including background
            for row, labels in zip(counts, (present, set(image.named), present & set(image.named)), strict=True):
                row[list(labels)] += 1
        return [
            ClassRow(
                label, name, int(images[label]), int(named[label]), int(right[label]),
                float(true[label] / true.sum()), _share(hits[label], given[label]), _share(hits[label], true[label]),
                _share(hits[label], true[label] + given[label] - hits[label]),
            )
            for label, name in enumerate(self.legend.names)
            if name != NO_BACKGROUND and (true[label] or given[label])
        ]  # fmt: skip

    @cached_property
    def classes(self) -> list[ClassRow]:
        """`rows` without the background."""
        return [row for row in self.rows if row.label != BACKGROUND]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(N, N) image counts, by number of classes (rows) and number of classes named (columns)."""
        images = self.images.values()
        pairs = np.array([(len(image.present), len(image.named)) for image in images]).clip(max=MOST_COUNTED)  # (n, 2)
        table = np.zeros((1 + pairs.max(),) * 2, np.int64)
        np.add.at(table, tuple(pairs.T), 1)
        return table

    @cached_property
    def swaps(self) -> NDArray[np.int64]:
        """(K, K) image counts: the row's class is present but not named, the column's is named but not present."""
        table = np.zeros_like(self.confusion)
        for image in self.images.values():
            present, named = set(image.present), set(image.named)
            for missed in present - named:
                table[missed, list(named - present)] += 1
        return table

    @cached_property
    def image_iou(self) -> dict[str, float]:
        """Mean IoU of each image over the classes present or named in it, worst image first."""
        found = {name: _mean_iou(image) for name, image in self.images.items()}
        return dict(sorted(found.items(), key=lambda entry: entry[1]))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Scores with their 95 % intervals over images."""
        images = list(self.images.values())
        values = measure(images, len(self.legend.names), resamples(len(images), RESAMPLES))
        return {name: interval(values[name]) for name in MEASURES}

    @cached_property
    def widths(self) -> dict[int, float]:
        """Approximate width in image pixels of each class that occurs.

        A strip of width w and length L has w L pixels and (w − 1) (L − 1) squares of 2×2 pixels, so their ratio gives
        w where L is large. For a square block it gives half the side.
        """
        areas, solid = self.masks.pixels, self.masks.solid
        return {row.label: float(areas[row.label] / (areas[row.label] - solid[row.label])) for row in self.classes
                if areas[row.label]}  # fmt: skip

    @cached_property
    def shrink(self) -> float:
        """Factor by which an image of median size is shrunk for the network, per side."""
        if self.side is None or not len(self.masks.sizes):
            return 1.0
        return float(np.median(self.masks.sizes.min(axis=1)) / self.side)


def _mean_iou(image: ImageCounts) -> float:
    hits, sums = dict[int, int](), dict[int, int]()
    for true, given, pixels in image.confusion:
        for label in {true, given}:
            sums[label] = sums.get(label, 0) + pixels
        if true == given:
            hits[true] = pixels
    labels = {*image.present, *image.named} & sums.keys()
    return float(np.mean([hits.get(label, 0) / sums[label] for label in labels])) if labels else 1.0


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def objective_changes(log: list[dict[str, Any]]) -> Iterator[int]:
    """Steps of a training at which the terms of the loss change."""
    terms = [(row["step"], {key for key in row if not key.startswith("val_")}) for row in log if "loss" in row]
    for (_, before), (step, after) in zip(terms, terms[1:], strict=False):
        if before != after:
            yield step
