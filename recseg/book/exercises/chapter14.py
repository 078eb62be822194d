"""Exercises of chapter 14: sizes of outputs, their cost and storage. The loop (exercise 6) is in `exported.py`."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from recseg.benchmark.networks import output_bytes
from recseg.book.exercises.comparison import short, to_compare
from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Mistakes, Number, Off
from recseg.book.exercises.exported import LOOP
from recseg.classes import VOID

LVIS, VOC = 1203, 20  # classes
LARGE, USUAL, STORED = 512, 256, 128  # sides of images


def _dense(classes: int, side: int, *, background: int = 1) -> int:
    """Counted on a tensor of that shape on the "meta" device, which takes no memory."""
    return output_bytes(torch.empty(classes + background, side, side, device="meta"))  # (C + 1, H, W)


def _recurrent(present: int, classes: int, side: int, steps: int) -> int:
    shapes = ((present, side, side), (present, classes), (steps,))
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
        (_recurrent(2, 0, LARGE, 0), "masks are not all: each step has logits of classes, too, and a stop"),
        (_recurrent(2, LVIS, LARGE, 0), "the stops are missing: a logit for each step"),
        (_recurrent(2, LVIS, LARGE, 2), "three steps ran: at the last one the network stops"),
        (_recurrent(3, LVIS, LARGE, 3), "the step at which the network stops has neither a mask nor class logits"),
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
    """Where the line through the recurrent network's bytes at 0 and 1 classes meets the dense network's bytes."""
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
    """Number of runs in a mask; the first is of pixels outside the mask, and may be empty."""
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
    """A chessboard with cells of some pixels."""
    cells = torch.arange(STORED) // cell
    return (cells[:, None] + cells) % 2 == 1  # (H, W)


def _gates(
    counts: Mapping[int, int],
    x: int,
    h: int,
    T: int,  # noqa: N803 - as the chapter writes it
    *,
    first: int = 0,
    stop: int = 1,
    most: bool = True,
) -> list[float]:
    """Multiplications relative to the plain program's: hoisted; hoisted and stopped. All in units of 36 h g."""
    plain = hoisted = stopped = 0
    for n, images in counts.items():
        steps = min(n + stop, T) if most else n + stop
        plain += images * T * (x + h)
        hoisted += images * (x + (T - first) * h)
        stopped += images * (x + (steps - first) * h)
    return [hoisted / plain, stopped / plain]


def _mixes() -> Iterator[Case]:
    yield Case("images of one to three classes", ({1: 60, 2: 30, 3: 10}, 104, 64, 5))
    yield Case("images that are all full", ({5: 3}, 40, 16, 5))
    yield Case("streets of eleven classes", ({8: 37, 9: 81, 10: 155, 11: 118}, 104, 64, 11))
    yield Case("images with more classes than steps", ({1: 2, 9: 2}, 24, 8, 5))
    yield Case("images without classes", ({0: 4, 1: 4}, 24, 8, 3))


GATES = Function(
    "(counts, x, h, T) → (share with hoisting, share with hoisting and stopping)",
    _gates,
    _mixes,
    [
        (
            lambda *given: _gates(*given, first=1),
            "the first step convolves its state of zeros, too: T steps convolve T times",
        ),
        (
            lambda *given: _gates(*given, stop=0),
            "an image with n classes runs n + 1 steps: at the last one the network stops",
        ),
        (lambda *given: _gates(*given, most=False), "no image runs more than T steps, whatever it holds"),
        (lambda *given: _gates(*given)[::-1], "the two shares are swapped"),
        (
            lambda *given: [_gates(*given)[0], _gates(*given)[1] / _gates(*given)[0]],
            "the second share is one of the hoisted program; both are of the plain one",
        ),
        (lambda *given: [1 - share for share in _gates(*given)], "that is what is saved; give what is left"),
        (
            lambda counts, x, h, T: _gates(dict.fromkeys(counts, 1), x, h, T),  # noqa: N803
            "each number of classes counts once; count its images",
        ),
    ],
)


SMALL = 0.05  # share of an image


def _ious(
    ground_truth: Tensor,
    back: Tensor,
    *,
    void: bool = False,
    below: float = SMALL,
    recall: bool = False,
    gone: bool = True,
) -> list[float]:
    """IoU of each small class, by ascending label."""
    ious = []
    for label in sorted(set(torch.unique(ground_truth).tolist()) - {0, VOID}):
        true = ground_truth == label
        said = (back == label) if void else (back == label) & (ground_truth != VOID)
        both, either = int((true & said).sum()), int((true if recall else true | said).sum())
        if float(true.double().mean()) < below and (both or gone):
            ious.append(both / either)
    return ious


def _shrunk() -> Iterator[Case]:
    ground_truth = torch.zeros(20, 30, dtype=torch.int64)
    ground_truth[:10] = 15  # a large thing
    ground_truth[14:18, 4:9], ground_truth[15:17, 20:24] = 8, 3
    moved = ground_truth.roll(1, dims=1)
    yield Case("two small things, moved by a pixel", (ground_truth, moved))
    yield Case("a small thing that is gone", (ground_truth, ground_truth.where(ground_truth != 3, 0)))
    yield Case("a large thing alone", (ground_truth.where(ground_truth == 15, 0), moved))
    framed = ground_truth.clone()
    framed[13:19, 3:10][framed[13:19, 3:10] == 0] = VOID
    yield Case("a small thing with a rim of void", (framed, moved))
    yield Case("a small thing that comes back too large", (ground_truth, ground_truth.where(framed != VOID, 8)))


SMALL_ONES = Function(
    "(ground_truth, back) → IoU of each small class, by ascending label",
    _ious,
    _shrunk,
    [
        (lambda *maps: _ious(*maps, void=True), "void pixels count as wrong; leave them out of the union"),
        (lambda *maps: _ious(*maps, below=2.0), "all classes are there; keep those of less than a twentieth"),
        (lambda *maps: _ious(*maps, recall=True), "divided by the true pixels; divide by the union"),
        (lambda *maps: _ious(*maps, gone=False), "a class that is gone is left out; its IoU is 0"),
    ],
)

EXERCISES: dict[int, Exercise] = {
    1: Custom(_judge_both, _both_mistakes),
    2: BREAK_EVEN,
    3: GATES,
    4: SMALL_ONES,
    5: Custom(
        _judge_mask,
        lambda: [
            (_board(2), "not more than"),
            (torch.zeros(STORED, STORED), "its 1 stretches take 2 bytes"),
            (_board(1).flatten(), "expected a mask of shape"),
            (255 * _board(1), "zeros and ones only"),
        ],
    ),
    6: LOOP,
}
