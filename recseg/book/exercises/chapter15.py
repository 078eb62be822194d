"""Exercises of chapter 15: sets, queries and order."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from recseg.book.exercises.exercise import Case, Exercise, Function, Number
from recseg.models.recurrent_unet import live_pairs

QUERIES, TARGETS = 100, 3

WAYS = Number(
    "the number of ways",
    lambda: math.perm(QUERIES, TARGETS),
    lambda: [
        (
            QUERIES**TARGETS,
            "a query is matched with one target, so the second target has one query fewer to choose from",
        ),
        (math.comb(QUERIES, TARGETS), "that chooses three queries; which of them gets which target matters, too"),
        (math.factorial(TARGETS), "those are the ways to order three targets; there are 100 queries to give them to"),
        (QUERIES * TARGETS, "those are the entries of the matrix; an assignment takes one for each target"),
    ],
)


def _suppress(
    masks: Tensor, logits: Tensor, *, surest: bool = True, by_dropped: bool = False, most: float = 0.5
) -> list[int]:
    """Indices of the masks that are kept."""
    order = logits.argsort(descending=True, stable=True).tolist() if surest else list(range(len(masks)))
    kept: list[int] = []
    for rank, answer in enumerate(order):
        rivals = order[:rank] if by_dropped else kept
        both = [int((masks[answer] & masks[other]).sum()) for other in rivals]
        either = [int((masks[answer] | masks[other]).sum()) for other in rivals]
        if all(b <= most * e for b, e in zip(both, either, strict=True)):
            kept.append(answer)
    return kept


def _stripes(*spans: tuple[int, int]) -> Tensor:
    """Masks (N, 2, 12), each covering a range of columns."""
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
    "(masks, logits) → indices of the masks that stay, surest first",
    _suppress,
    _answers,
    [
        (
            lambda masks, logits: _suppress(masks, logits, surest=False),
            "the masks are taken as the queries are numbered; begin with the surest",
        ),
        (
            lambda masks, logits: _suppress(masks, logits, by_dropped=True),
            "a mask is dropped for one that has been dropped itself; compare with those that stay",
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


def _faults(named: Named, ground_truths: Truths) -> tuple[int, int]:
    twice = sum((Counter(classes) - Counter(set(classes))).total() for classes in named)
    return twice, sum(len(true.difference(classes)) for classes, true in zip(named, ground_truths, strict=True))


def _by_number(named: Named, ground_truths: Truths) -> tuple[int, int]:
    lengths = [(len(classes), len(true)) for classes, true in zip(named, ground_truths, strict=True)]
    return _faults(named, ground_truths)[0], sum(max(0, there - said) for said, there in lengths)


FAULTS = Function(
    "(named, ground_truths) → (named twice, missed)",
    _faults,
    lambda: iter(
        [
            Case("a class that is named twice", ([[15, 15, 8]], [{15, 8}])),
            Case("a class that is named three times", ([[7, 7, 7], [12]], [{7}, {12}])),
            Case("a class that is missed", ([[3], [8, 12]], [{3, 20}, {8, 12}])),
            Case("a wrong class instead of a true one", ([[8], [12]], [{12}, {12}])),
            Case("an image of which nothing is named", ([[], [5]], [{2, 5}, {5}])),
        ]
    ),
    [
        (_by_number, "missed are the true classes that are not named; the number of outputs does not show that"),
        (
            lambda named, ground_truths: (
                sum(len({label for label in classes if classes.count(label) > 1}) for classes in named),
                _faults(named, ground_truths)[1],
            ),
            "a class that is named three times is named twice too often: count each output too many",
        ),
        (lambda named, ground_truths: _faults(named, ground_truths)[::-1], "the two numbers are swapped"),
    ],
)

Logits = Callable[[Tensor], Tensor]


def _unroll(
    logits_of: Logits,
    size: Sequence[int],
    steps: int,
    coverage: bool,
    *,
    multiply: bool = True,
    subtract: bool = False,
) -> Tensor:
    """Attention maps (steps, h, w)."""
    uncovered, maps = torch.ones(*size), []
    for _ in range(steps):
        share = logits_of(uncovered).sigmoid()  # (h, w)
        maps.append(share * uncovered if multiply else share)
        if coverage:
            uncovered = uncovered - share if subtract else uncovered * (1 - share)
    return torch.stack(maps)


def _half(uncovered: Tensor) -> Tensor:
    """Attends to most of the left half, whatever is covered."""
    logits = torch.full_like(uncovered, -3.0)
    logits[:, : uncovered.shape[1] // 2] = 2.0
    return logits


def _steps() -> Iterator[Case]:
    for coverage in (True, False):
        words = "with" if coverage else "without"
        yield Case(f"logits of 0, {words} coverage", (torch.zeros_like, (2, 3), 3, coverage))
        yield Case(f"attention to the left half, {words} coverage", (_half, (3, 4), 3, coverage))
        yield Case(
            f"logits that follow what is uncovered, {words} coverage", (lambda u: 4 * u - 1, (2, 2), 4, coverage)
        )


UNROLL = Function(
    "(logits_of, size, steps, coverage) → attention maps (steps, h, w)",
    _unroll,
    _steps,
    [
        (
            lambda *given: _unroll(*given, multiply=False),
            "those are the sigmoids alone; an attention map is their product with what is uncovered",
        ),
        (
            lambda *given: _unroll(*given, multiply=False, subtract=True),
            "those are the sigmoids alone, taken off what is uncovered; an attention map is the product of both",
        ),
        (
            lambda *given: _unroll(*given, subtract=True),
            "the sigmoid is taken off what is uncovered, and so more than there is; multiply by one minus it",
        ),
        (
            lambda logits_of, size, steps, _: _unroll(logits_of, size, steps, True),
            "without coverage every step is given a map of ones",
        ),
        (
            lambda logits_of, size, steps, _: _unroll(logits_of, size, steps, False),
            "with coverage a step is given what is uncovered",
        ),
        (
            lambda logits_of, size, steps, coverage: _unroll(logits_of, size, steps, not coverage),
            "coverage is on where it should be off, and off where it should be on",
        ),
    ],
)


def _by_label(lengths: Tensor) -> Tensor:
    """Image, step and target of each pair, (3, M)."""
    image, step = live_pairs(lengths)
    return torch.stack([image, step, step])


BY_LABEL = Function(
    "lengths → image, step and target of each pair, (3, M)",
    _by_label,
    lambda: iter(
        [
            Case("three images of one to three classes", (torch.tensor([2, 1, 3]),)),
            Case("an image without classes among others", (torch.tensor([1, 0, 2]),)),
            Case("one image of five classes", (torch.tensor([5]),)),
        ]
    ),
    [
        (lambda lengths: _by_label(lengths).T, "one pair a row; `assign` gives one pair a column"),
        (
            lambda lengths: _by_label(lengths) + torch.tensor([[0], [1], [1]]),
            "steps and targets are counted from 1; as indices they begin with 0",
        ),
        (
            lambda lengths: torch.stack(
                [_by_label(lengths)[0], _by_label(lengths)[1], torch.arange(int(lengths.sum()))]
            ),
            "targets are counted through the batch; each image's begin with 0",
        ),
        (
            lambda lengths: _by_label(lengths[lengths > 0]),
            "an image without classes has no pair and still its number; those behind it keep theirs",
        ),
    ],
)

EXERCISES: dict[int, Exercise] = {1: WAYS, 2: SUPPRESS, 3: UNROLL, 4: FAULTS, 5: BY_LABEL}
