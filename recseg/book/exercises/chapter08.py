"""Exercises of chapter 8: memory layouts and several devices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recseg.book.exercises.exercise import Case, Exercise, Function


def _strides(b: int, c: int, h: int, w: int) -> tuple[int, ...]:
    return torch.empty(b, c, h, w, device="meta", memory_format=torch.channels_last).stride()


STRIDES = Function(
    "(B, C, H, W) → four strides",
    _strides,
    lambda: (Case("the shape ({}, {}, {}, {})".format(*shape), shape) for shape in ((2, 16, 32, 32), (3, 5, 7, 4))),
    [
        (
            lambda b, c, h, w: (c * h * w, h * w, w, 1),
            "those are the strides of the default order; with channels_last the next number is of the next channel",
        ),
        (
            lambda b, c, h, w: (c * h * w, w * c, c, 1),
            "the right numbers in the order B, H, W, C; the shape stays (B, C, H, W), so the channel's is second",
        ),
        (lambda b, c, h, w: (c * h * w, 1, h * c, c), "a row has W pixels, so the next row is W·C numbers away"),
    ],
)


def _shared(parts: Sequence[Tensor]) -> list[float]:
    """What each process returns, so that the mean over processes is the mean over all steps."""
    whole = torch.cat(list(parts)).numel() / len(parts)
    return [float(part.sum() / whole) for part in parts]


SHARED = Function(
    "losses of each process → one number for each process",
    _shared,
    lambda: (
        Case(name, ([torch.tensor(part) for part in parts],))
        for name, parts in {
            "four steps and one step": ([1.0, 1.0, 1.0, 5.0], [3.0]),
            "a process without a step": ([2.0, 4.0], [], [6.0]),
            "one process": ([1.0, 2.0],),
        }.items()
    ),
    [
        (
            lambda parts: [float(part.mean()) if len(part) else 0.0 for part in parts],
            "a mean in each process gives a lone step the weight of all steps of another process",
        ),
        (
            lambda parts: [float(part.sum()) / sum(map(len, parts)) for part in parts],
            "gradients are averaged over processes, which divides once more: use the whole count over their number",
        ),
        (lambda parts: [float(part.sum()) for part in parts], "sums grow with the batch: divide by the whole count"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: STRIDES, 4: SHARED}
