"""Exercises of chapter 1: segmentation as a sequence."""

import json
from collections.abc import Iterator
from itertools import combinations, count, permutations
from typing import Any

import torch
from torch import Tensor

from recseg.book.exercises.exercise import Case, Exercise, Function, Number
from recseg.book.exercises.inputs import label_maps
from recseg.resources import resource
from recseg.training.targets import to_sequence


def _paint(masks: Tensor, classes: list[int]) -> Tensor:
    labels = torch.zeros(masks.shape[1:], dtype=torch.long)  # (H, W)
    for mask, label in zip(masks, classes, strict=True):
        labels[mask] = label
    return labels


def _paintings() -> Iterator[Case]:
    for name, labels in label_maps(void=False).items():
        steps = to_sequence(labels[None], 5, num_classes=21, order="area")  # not in ascending order
        number = int(steps.lengths)
        shown = "no step at all" if not number else f"the steps of {name}"
        yield Case(shown, (steps.masks[0, :number], steps.classes[0, :number].tolist()))


def _winner(masks: Tensor, classes: list[int]) -> Tensor:
    if not classes:
        return torch.zeros(masks.shape[1:])
    return torch.tensor(classes)[masks.int().argmax(dim=0)]


PAINT = Function(
    "(masks, classes) → label map",
    _paint,
    _paintings,
    [
        (lambda masks, classes: masks.sum(dim=0), "every mask is painted with a 1; paint it with its step's class"),
        (
            lambda masks, classes: (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(dim=0),
            "masks are painted with the number of their step; paint them with the class of the step",
        ),
        (_winner, "where there is no mask, the label is background, 0; `argmax` gives the first step there"),
    ],
)


def _break_even(known: int) -> int:
    """By trial: the number of classes from which on the masks are larger than the dense scores."""
    dense = torch.empty(known + 1, 8, 8, device="meta").numel()
    return next(there for there in count(1) if torch.empty(there, 8, 8, device="meta").numel() > dense)


BREAK_EVEN = Function(
    "C → number of classes",
    _break_even,
    lambda: (Case(f"C = {known}", (known,)) for known in (1, 2, 20, 150)),
    [
        (lambda known: known + 1, "with that many classes both need the same; the sequence should need more"),
        (lambda known: known, "the dense model has a channel for background, too"),
    ],
)


def _train() -> tuple[dict[int, int], int]:
    """Images by number of classes, and the total number of images, in VOC's training list."""
    file = resource("results", "voc-statistics.json")
    split: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["splits"]["official_train"]
    return {int(key): value for key, value in split["images_by_number_of_classes"].items()}, split["images"]


def _share(least: int) -> float:
    by_number, images = _train()
    return sum(count for number, count in by_number.items() if number >= least) / images


def _lost_classes() -> float:
    """The share of (image, class) pairs for which there is no step."""
    by_number, _ = _train()
    total = sum(number * count for number, count in by_number.items())
    return sum(max(0, number - 3) * count for number, count in by_number.items()) / total


LOSING = Number(
    "the share of images that lose a class",
    lambda: _share(4),
    lambda: [
        (_share(3), "an image with three classes loses none: three steps are enough for it"),
        (_share(5), "images with four classes lose one, too"),
        (_train()[0][4] + _train()[0][5], "that is their number; divide it by the number of images"),
        (_lost_classes(), "that is the share of classes that are lost; the question is for images"),
    ],
    share=True,
)

SEQUENCES = Number(
    "the number of sequences",
    lambda: len(list(permutations(range(5)))),
    lambda: [
        (5**5, "5⁵ lets a class come twice; each class has one step"),
        (2**5, "2⁵ counts sets of classes; here all five are there, and their order varies"),
        (
            len(list(permutations(range(3)))),
            "that is the number for the three stripes; the question is for five classes",
        ),
    ],
)


def _sets(sizes: range) -> int:
    return sum(1 for size in sizes for _ in combinations(range(20), size))


SETS = Number(
    "the number of sets of at most five classes",
    lambda: _sets(range(6)),
    lambda: [
        (_sets(range(1, 6)), "the empty set is missing: an image may show background alone"),
        (_sets(range(5, 6)), "those are the sets of exactly five; smaller ones count as well"),
        (2**20, "those are the sets of any size"),
        (_sets(range(5)), "those are the sets of at most four: does your `range` end too soon?"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: PAINT, 2: BREAK_EVEN, 3: LOSING, 4: SEQUENCES, 5: SETS}
