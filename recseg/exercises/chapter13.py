"""Exercises of chapter 13: what networks hand back, and in which form to store it."""

from typing import Any

import torch
from torch import Tensor

from recseg.benchmark.networks import output_bytes
from recseg.exercises.comparison import short, to_compare
from recseg.exercises.exercise import Custom, Exercise, Mistakes, Number, Off

LVIS, VOC = 1203, 20  # classes
LARGE, USUAL, STORED = 512, 256, 128  # sides of pictures


def _dense(classes: int, side: int, *, background: int = 1) -> int:
    """Counted on a tensor of the true shape that takes no memory."""
    return output_bytes(torch.empty(classes + background, side, side, device="meta"))  # (C + 1, H, W)


def _recurrent(present: int, classes: int, side: int, turns: int) -> int:
    shapes = ((present, side, side), (present, classes), (turns,))
    return sum(output_bytes(torch.empty(shape, device="meta")) for shape in shapes)


DENSE = Number(
    "the bytes of the dense network",
    lambda: _dense(LVIS, LARGE),
    lambda: [
        (_dense(LVIS, LARGE, background=0), "the dense network hands back a map of background as well: C + 1 maps"),
        (_dense(LVIS, LARGE) / 4, "those are numbers; each has 4 bytes"),
        (_dense(LVIS, LARGE) / 2**20, "that is in MiB; give bytes"),
    ],
)
RECURRENT = Number(
    "the bytes of the recurrent network",
    lambda: _recurrent(2, LVIS, LARGE, 3),
    lambda: [
        (_recurrent(2, 0, LARGE, 0), "masks are not all: each step has logits of classes, too, and each turn a stop"),
        (_recurrent(2, LVIS, LARGE, 0), "the stops are missing: a logit for each turn"),
        (_recurrent(2, LVIS, LARGE, 2), "three turns ran: the last one says stop"),
        (_recurrent(3, LVIS, LARGE, 3), "the turn that says stop has neither a mask nor class logits"),
        (_recurrent(2, LVIS, LARGE, 3) / 4, "those are numbers; each has 4 bytes"),
        (_recurrent(2, LVIS, LARGE, 3) / 2**20, "that is in MiB; give bytes"),
    ],
)


def _judge_both(answer: Any) -> None:
    both = to_compare(answer)
    if not isinstance(both, (list, Tensor)) or (isinstance(both, Tensor) and not both.dim()) or len(both) != 2:
        raise Off(f"the answer is {short(answer)}; expected two numbers, (dense, recurrent)")
    DENSE.judge(both[0])
    RECURRENT.judge(both[1])


def _both_mistakes() -> Mistakes:
    dense, recurrent = DENSE.truth(), RECURRENT.truth()
    first = [((wrong, recurrent), hint) for wrong, hint in DENSE.mistakes()]
    second = [((dense, wrong), hint) for wrong, hint in RECURRENT.mistakes()]
    return [
        *first,
        *second,
        (dense, "expected two numbers"),
        ((recurrent, dense), "too small for the bytes of the dense"),
    ]


def _break_even() -> float:
    """Where the recurrent network's line, through no class and one, meets the dense network's bytes."""
    nothing, one = (_recurrent(present, VOC, USUAL, present + 1) for present in (0, 1))
    return (_dense(VOC, USUAL) - nothing) / (one - nothing)


BREAK_EVEN = Number(
    "the number of classes",
    _break_even,
    lambda: [
        (VOC + 1, "that compares maps alone: the classes' logits and the stops have bytes, too"),
        (VOC, "the dense network hands back a map of background as well: C + 1 maps"),
    ],
)


def _stretches(mask: Tensor) -> int:
    """How many runs a mask has, the first one of pixels that are off: it may be empty."""
    flat = torch.cat([torch.zeros(1, dtype=torch.bool), mask.flatten()])  # (1 + H·W,)
    return 1 + int((flat[1:] != flat[:-1]).sum())


def _judge_mask(answer: Any) -> None:
    mask = to_compare(answer)
    try:
        mask = mask if isinstance(mask, Tensor) else torch.tensor(mask, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Off(f"expected a mask of shape ({STORED}, {STORED}), not {short(answer)}") from None
    if mask.shape != (STORED, STORED):
        raise Off(f"expected a mask of shape ({STORED}, {STORED}), not {tuple(mask.shape)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise Off("a mask holds zeros and ones only")
    number = _stretches(mask == 1)
    if 2 * number <= mask.numel():
        raise Off(f"its {number} stretches take {2 * number} bytes, not more than the {mask.numel()} of its pixels")


def _board(cell: int) -> Tensor:
    """A board whose cells have a side of some pixels."""
    place = torch.arange(STORED) // cell
    return (place[:, None] + place) % 2 == 1  # (H, W)


EXERCISES: dict[int, Exercise] = {
    1: Custom(_judge_both, _both_mistakes),
    2: BREAK_EVEN,
    5: Custom(
        _judge_mask,
        lambda: [
            (_board(2), "not more than"),
            (torch.zeros(STORED, STORED), "its 1 stretches take 2 bytes"),
            (_board(1).flatten(), "expected a mask of shape"),
            (255 * _board(1), "zeros and ones only"),
        ],
    ),
}
