"""Exercises of chapter 4: the recurrent U-Net and its packed output."""

from collections.abc import Iterator

import torch
from torch import Tensor

from recseg.book.exercises.exercise import Case, Exercise, Function
from recseg.models.recurrent_unet import lengths_from_stop, live_pairs


def _stops() -> Iterator[Case]:
    for name, rows in {
        "an image that stops after two steps": [[-3.0, -0.2, 4.0, 2.0, 5.0]],
        "an image that never stops": [[-3.0, -1.0, -2.0]],
        "an image that stops at once": [[2.0, -1.0, -1.0]],
        "an image that would go on after its stop": [[-1.0, 2.0, -3.0, -2.0], [-1.0, -1.0, 2.0, -1.0]],
        "a stop probability of exactly one half": [[0.0, 0.5, -1.0]],
    }.items():
        yield Case(name, (torch.tensor(rows),))


LENGTHS = Function(
    "stop logits (B, T) → lengths (B,)",
    lengths_from_stop,
    _stops,
    [
        (lambda stop: (stop <= 0).sum(dim=1), "steps behind the first stop count, too; the sequence is over there"),
        (
            lambda stop: (stop > 0).int().argmax(dim=1),
            "`argmax` gives 0 where nothing stops; such an image runs all its steps",
        ),
        (
            lambda stop: lengths_from_stop(stop) + 1,
            "off by one: the step that says stop is none of the live ones",
        ),
        (
            lambda stop: (stop <= 0.5).long().cumprod(dim=1).sum(dim=1),
            "those are logits: a probability of one half is the logit 0",
        ),
        (lambda stop: (stop < 0).long().cumprod(dim=1).sum(dim=1), "at exactly one half the sequence goes on"),
    ],
)


def _unpack(masks: Tensor, sample: Tensor, step: Tensor, batch: int, steps: int) -> Tensor:
    unpacked = torch.full((batch, steps, *masks.shape[1:]), -torch.inf)  # (B, T, h, w)
    unpacked[sample, step] = masks
    return unpacked


def _zeros(masks: Tensor, sample: Tensor, step: Tensor, batch: int, steps: int) -> Tensor:
    return _unpack(masks, sample, step, batch, steps).nan_to_num(neginf=0.0)


def _swapped(masks: Tensor, sample: Tensor, step: Tensor, batch: int, steps: int) -> Tensor:
    return _unpack(masks, step, sample, steps, batch).reshape(batch, steps, *masks.shape[1:])


def _packs() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    for lengths in ([2, 1, 3], [2, 0, 1], [0, 0], [4]):
        sample, step = live_pairs(torch.tensor(lengths))
        masks = torch.randn(len(sample), 2, 3, generator=draw)
        yield Case(f"images of {lengths} steps", (masks, sample, step, len(lengths), 4))


UNPACK = Function(
    "(masks, sample, step, B, T) → (B, T, h, w)",
    _unpack,
    _packs,
    [
        (_zeros, "where there is no live pair, a logit of 0 says one half; fill with -inf, which says 0"),
        (_swapped, "`sample` and `step` are mixed up"),
    ],
)


def _decoded(lengths: Tensor, steps: int) -> tuple[int, int, int]:
    packed = len(live_pairs(lengths)[0])
    longest = torch.empty(len(lengths), int(lengths.max()), device="meta").numel()
    return packed, longest, torch.empty(len(lengths), steps, device="meta").numel()


DECODED = Function(
    "(lengths, T) → (packed, to the longest, always all)",
    _decoded,
    lambda: (
        Case(f"lengths {lengths}, T = {steps}", (torch.tensor(lengths), steps))
        for lengths, steps in (([1, 2, 3, 4], 5), ([5, 5], 5), ([0, 0, 0], 4), ([3], 6))
    ),
    [
        (lambda n, t: (int(n.sum()), int(n.max()), t), "the last two are for one image; there are B of them"),
        (
            lambda n, t: (int((n + 1).sum()), len(n) * int(n.max()), len(n) * t),
            "the step that says stop has no mask: it is not decoded",
        ),
        (lambda n, t: (len(n) * t, len(n) * int(n.max()), int(n.sum())), "the other way round: packed comes first"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: LENGTHS, 2: UNPACK, 5: DECODED}
