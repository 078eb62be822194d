"""Exercises of chapter 11: one's own data."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recseg.book.exercises.exercise import Case, Exercise, Function
from recseg.classes import VOID

Mask = NDArray[np.uint8]
Array = NDArray[np.float64]


def _remap(mask: Mask, table: dict[int, int], other: int = VOID) -> Mask:
    labels = np.full_like(mask, other)
    for number, label in table.items():
        labels[mask == number] = label
    return labels


def _in_place(mask: Mask, table: dict[int, int]) -> Mask:
    labels = np.where(np.isin(mask, list(table)), mask, VOID).astype(np.uint8)
    for number, label in table.items():
        labels[labels == number] = label
    return labels


def _tool_masks() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    draw = rng.choice(np.array([0, 1, 2, 4, 7], np.uint8), (6, 8))
    yield Case("numbers with holes", (draw, {0: 0, 1: 1, 2: 2, 4: 3, 7: 4}))
    yield Case("numbers that the table lacks", (draw, {0: 0, 4: 1}))
    yield Case("labels that are numbers as well", (draw, {0: 0, 1: 2, 2: 4, 4: 1, 7: 3}))


REMAP = Function(
    "(mask, table) → label map",
    _remap,
    _tool_masks,
    [
        (
            lambda mask, table: _remap(mask, table, other=0),
            "what the table lacks is void, 255, not background",
        ),
        (_in_place, "a label that was just written is replaced again: read from the old mask"),
    ],
)


def _scaled(weights: Array) -> Array:
    """Weights that sum to 1."""
    found: Array = weights / weights.sum()
    return found


def _weights(present: NDArray[np.bool_], power: float = 0.5) -> Array:
    found: Array = np.where(present, present.mean(axis=0), 1.0).min(axis=1) ** -power
    return _scaled(found)


def _by_mean(present: NDArray[np.bool_]) -> Array:
    share = np.where(present, present.mean(axis=0), 0.0).sum(axis=1) / present.sum(axis=1).clip(1)
    found: Array = np.where(share > 0, share, 1.0) ** -0.5
    return _scaled(found)


def _unscaled(present: NDArray[np.bool_]) -> Array:
    found: Array = np.where(present, present.mean(axis=0), 1.0).min(axis=1) ** -0.5
    return found


def _presence() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    often = rng.random((20, 4)) < np.array([0.8, 0.5, 0.3, 0.1])
    often[0] = (True, False, False, True)
    yield Case("classes of different rarity", (often,))
    alone = np.zeros((3, 2), dtype=bool)
    alone[0, 0] = True
    yield Case("images without a class", (alone,))


WEIGHTS = Function(
    "which classes are in which image (N, C) → probabilities (N,)",
    _weights,
    _presence,
    [
        (lambda present: _weights(present, power=1.0), "the square root is missing"),
        (_by_mean, "the rarest class of an image decides, not the mean of its classes"),
        (_unscaled, "they have to sum to 1"),
    ],
)


def _leaks(train: list[str], val: list[str]) -> list[str]:
    first, second = ({name.split("_")[1] for name in names} for names in (train, val))
    return sorted(first & second)


def _lists() -> Iterator[Case]:
    yield Case("a table in both lists", (["table_003_0", "table_001_0"], ["table_003_1", "table_002_0"]))
    yield Case("lists that share no table", (["table_001_0"], ["table_010_0"]))
    yield Case("two tables, one of them twice", (["table_2_0", "table_2_1", "table_1_0"], ["table_1_1", "table_2_2"]))


LEAKS = Function(
    "(train, val) → numbers of tables in both",
    _leaks,
    _lists,
    [
        (lambda train, val: sorted(set(train) & set(val)), "names were compared: compare the numbers of the tables"),
        (lambda train, val: sorted(_leaks(train, val) * 2), "each table once"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: REMAP, 2: WEIGHTS, 3: LEAKS}
