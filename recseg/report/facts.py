"""What a report shows, from the scores of a network and from the masks of its data."""

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

MOST_COUNTED = 10  # numbers of classes in an image that are distinguished; more count as this
RESAMPLES = 2000


class ClassRow(NamedTuple):
    """One label. Shares are 0 … 1, or None where there is nothing to divide by.

    Attributes:
        label: number of the label.
        name: its name.
        images: images that hold it.
        named: images in which the network names it.
        right: images for which both is true.
        share: of all pixels that are scored.
        precision: of the pixels that are given this label, the share that has it.
        recall: of the pixels that have it, the share that is given it.
        iou: of both.
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
    """All that the page and its hints are made of.

    Attributes:
        scores: of `recseg.evaluation.evaluate.evaluate`, with `per_image`.
        legend: of the data.
        kind: of the network: "recurrent", "dense" or "published".
        side: short side in pixels that it works at; None: it takes images as they are.
        cell: pixels of its input that a cell of its masks spans a side.
        masks: of the images that were scored.
        trained_on: name of the list that it was trained on, where the data have that list.
        training: masks of that list.
        shared: images that were scored and are in that list.
        log: rows of the training's log.
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
        """What each image adds to the scores."""
        return {name: ImageCounts(**counts) for name, counts in self.scores["per_image"].items()}

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) pixels, rows true and columns predicted."""
        return np.array(self.scores["confusion"], np.int64)

    @cached_property
    def rows(self) -> list[ClassRow]:
        """Of each label that occurs in the ground truth or in an answer."""
        hits, true, given = self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        images, named, right = counts = np.zeros((3, len(true)), np.int64)
        for image in self.images.values():
            present = {label for label, _, _ in image.confusion}  # the background, too
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
        """(N, N) images, by their number of classes (rows) and the number that was named (columns)."""
        images = self.images.values()
        pairs = np.array([(len(image.present), len(image.named)) for image in images]).clip(max=MOST_COUNTED)  # (n, 2)
        table = np.zeros((1 + pairs.max(),) * 2, np.int64)
        np.add.at(table, tuple(pairs.T), 1)
        return table

    @cached_property
    def swaps(self) -> NDArray[np.int64]:
        """(K, K) images that hold the class of the row, in which that of the column, absent, is named instead."""
        table = np.zeros_like(self.confusion)
        for image in self.images.values():
            present, named = set(image.present), set(image.named)
            for missed in present - named:
                table[missed, list(named - present)] += 1
        return table

    @cached_property
    def image_iou(self) -> dict[str, float]:
        """Of each image, the worst first: mean IoU over the classes that it holds or that are named in it."""
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
        """About how many pixels of its image a class is wide, for each that occurs.

        A strip of width w and length L has w L pixels and (w − 1) (L − 1) squares of 2×2 pixels, so their ratio gives
        w where L is large. A square block comes out at half its side.
        """
        areas, solid = self.masks.pixels, self.masks.solid
        return {row.label: float(areas[row.label] / (areas[row.label] - solid[row.label])) for row in self.classes
                if areas[row.label]}  # fmt: skip

    @cached_property
    def shrink(self) -> float:
        """Pixels of an image, of the median size, for each pixel a side that the network sees."""
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
    """Steps of a training from which on the loss has other terms than before."""
    terms = [(row["step"], {key for key in row if not key.startswith("val_")}) for row in log if "loss" in row]
    for (_, before), (step, after) in zip(terms, terms[1:], strict=False):
        if before != after:
            yield step
