"""Exercises of chapter 14: sets, queries and order."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from recseg.exercises.exercise import Case, Exercise, Function, Number

QUERIES, TARGETS = 100, 3

WAYS = Number(
    "the number of ways",
    lambda: math.perm(QUERIES, TARGETS),
    lambda: [
        (QUERIES**TARGETS, "a query answers for one target, so the second target has one query fewer to choose from"),
        (math.comb(QUERIES, TARGETS), "that chooses three queries; which of them gets which target matters, too"),
        (math.factorial(TARGETS), "those are the ways to order three targets; there are 100 queries to give them to"),
        (QUERIES * TARGETS, "those are the entries of the matrix; an assignment takes one for each target"),
    ],
)


def _suppress(
    masks: Tensor, logits: Tensor, *, surest: bool = True, by_dropped: bool = False, most: float = 0.5
) -> list[int]:
    """Places of the answers that stay."""
    order = logits.argsort(descending=True, stable=True).tolist() if surest else list(range(len(masks)))
    kept: list[int] = []
    for place, answer in enumerate(order):
        rivals = order[:place] if by_dropped else kept
        both = [int((masks[answer] & masks[other]).sum()) for other in rivals]
        either = [int((masks[answer] | masks[other]).sum()) for other in rivals]
        if all(b <= most * e for b, e in zip(both, either, strict=True)):
            kept.append(answer)
    return kept


def _stripes(*spans: tuple[int, int]) -> Tensor:
    """Masks (N, 2, 12), each on between two columns."""
    columns = torch.arange(12)
    return torch.stack([((columns >= start) & (columns < end)).expand(2, 12) for start, end in spans])


def _answers() -> Iterator[Case]:
    yield Case("two masks that are the same", (_stripes((0, 6), (0, 6)), torch.tensor([1.0, 2.0])))
    yield Case("three masks apart, the surest last", (_stripes((0, 4), (4, 8), (8, 12)), torch.tensor([1.0, 2.0, 3.0])))
    chain = _stripes((2, 10), (0, 8), (4, 12))
    yield Case("a mask that overlaps only one that is dropped", (chain, torch.tensor([2.0, 3.0, 1.0])))
    yield Case("two masks that overlap by a half", (_stripes((0, 6), (2, 8)), torch.tensor([2.0, 1.0])))
    yield Case("two empty masks", (_stripes((0, 0), (3, 3), (1, 5)), torch.tensor([1.0, 3.0, 2.0])))


SUPPRESS = Function(
    "(masks, logits) → places of the answers that stay, surest first",
    _suppress,
    _answers,
    [
        (
            lambda masks, logits: _suppress(masks, logits, surest=False),
            "the answers are taken as the queries are numbered; begin with the surest",
        ),
        (
            lambda masks, logits: _suppress(masks, logits, by_dropped=True),
            "an answer is dropped for one that has been dropped itself; compare with those that stay",
        ),
        (
            lambda masks, logits: _suppress(masks, logits, most=0.0),
            "whatever overlaps at all is dropped; drop what overlaps by more than half",
        ),
        (lambda masks, logits: logits.argsort(descending=True).tolist(), "nothing is dropped"),
    ],
)

Named = Sequence[Sequence[int]]
Truths = Sequence[set[int]]


def _faults(named: Named, truths: Truths) -> tuple[int, int]:
    twice = sum((Counter(classes) - Counter(set(classes))).total() for classes in named)
    return twice, sum(len(truth.difference(classes)) for classes, truth in zip(named, truths, strict=True))


def _by_number(named: Named, truths: Truths) -> tuple[int, int]:
    lengths = [(len(classes), len(truth)) for classes, truth in zip(named, truths, strict=True)]
    return _faults(named, truths)[0], sum(max(0, there - said) for said, there in lengths)


FAULTS = Function(
    "(named, truths) → (named twice, missed)",
    _faults,
    lambda: iter(
        [
            Case("a class that is named twice", ([[15, 15, 8]], [{15, 8}])),
            Case("a class that is named three times", ([[7, 7, 7], [12]], [{7}, {12}])),
            Case("a class that is missed", ([[3], [8, 12]], [{3, 20}, {8, 12}])),
            Case("a wrong class in the place of a true one", ([[8], [12]], [{12}, {12}])),
            Case("a picture of which nothing is said", ([[], [5]], [{2, 5}, {5}])),
        ]
    ),
    [
        (_by_number, "missed are the true classes that are not named; the number of answers does not tell that"),
        (
            lambda named, truths: (
                sum(len({label for label in classes if classes.count(label) > 1}) for classes in named),
                _faults(named, truths)[1],
            ),
            "a class that is named three times has been said twice too often: count each answer too many",
        ),
        (lambda named, truths: _faults(named, truths)[::-1], "the two numbers are swapped"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: WAYS, 2: SUPPRESS, 4: FAULTS}
