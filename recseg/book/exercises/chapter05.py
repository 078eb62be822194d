"""Exercises of chapter 5: targets, losses and fusion."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recseg.book.exercises.comparison import short, to_compare
from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Number, Off
from recseg.inference.fusion import fuse
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.training.losses import mask_dice, stop_target
from recseg.training.targets import match

SUMS = Number(
    "the number of sums",
    lambda: sum(1 for _ in itertools.permutations(range(8))),
    lambda: [
        (8**8, "8⁸ lets two steps take the same target"),
        (8 * 8, "those are the entries of the matrix; a sum takes one of each row"),
        (sum(1 for _ in itertools.permutations(range(7))), "off by one: that is the number for seven steps"),
    ],
)


def _totals(cost: Tensor) -> tuple[float, float]:
    """Total cost of the greedy assignment, and of the matching."""
    step = torch.arange(len(cost))
    greedy, matched = cost[step, _greedy(cost)], cost[step, _assign(cost)]
    return float(greedy.double().sum()), float(matched.double().sum())


def _judge_trap(answer: Any) -> None:
    cost = to_compare(answer)
    try:
        cost = cost.double() if isinstance(cost, Tensor) else torch.tensor(cost, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Off(f"expected a matrix of shape (2, 2), not {short(answer)}") from None
    if cost.shape != (2, 2):
        raise Off(f"expected a matrix of shape (2, 2), not {tuple(cost.shape)}")
    if not cost.isfinite().all():
        raise Off("every cost has to be finite")
    greedy, matched = _totals(cost)
    if greedy <= matched + 1e-6:
        raise Off(
            f"no trap: choosing greedily costs {greedy:g}, as matching does; the first step has to take a target that "
            "the second one needs much more"
        )


def _assign(cost: Tensor) -> Tensor:
    return match(cost[None], torch.tensor([len(cost)]))[0]


def _greedy(cost: Tensor) -> Tensor:
    free, chosen = list(range(len(cost))), list[int]()
    for row in cost.tolist():
        chosen.append(min(free, key=lambda column: row[column]))
        free.remove(chosen[-1])
    return torch.tensor(chosen)


def _matrices() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    yield Case("a matrix of one step", (torch.tensor([[0.5]]),))
    yield Case("a matrix where the cheapest target of step 1 is needed by step 2", (torch.tensor([[1.0, 2], [1, 9]]),))
    for n in (3, 3, 4, 5):
        yield Case(f"a matrix of {n} steps", (torch.randn(n, n, generator=draw),))


ASSIGN = Function(
    "cost (n, n) → target of each step (n,)",
    _assign,
    _matrices,
    [
        (lambda cost: cost.argmin(dim=1), "two steps may have the same target: look for a permutation"),
        (_greedy, "that is the greedy choice, whose total is not always the least"),
        (lambda cost: _assign(-cost), "that is the largest total; the least is asked for"),
        (lambda cost: _assign(cost.T), "the other way round: row t of the matrix is step t, and you give its target"),
    ],
)


def _gradient(p: Tensor, y: Tensor) -> Tensor:
    """By autograd through the package's loss, whose argument is the logit: d/dp = d/dm / (p (1 - p))."""
    m = p.double().logit()[None].requires_grad_()  # (1, N)
    loss = mask_dice(m, y.double()[None], torch.ones_like(m)).sum()
    (gradient,) = torch.autograd.grad(loss, m)
    return gradient[0] / (p * (1 - p))


def _closed(p: Tensor, y: Tensor, smooth: float = 1.0, overlap: float = 2.0, sign: float = -1.0) -> Tensor:
    i, s = overlap * (p * y).sum() + smooth, p.sum() + y.sum() + smooth
    return sign * (overlap * y * s - i) / s**2


def _masks() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(12, generator=draw, dtype=torch.float64) * 0.8 + 0.1
    thing = (torch.arange(12) < 4).double()
    yield Case("a thing on 4 of 12 pixels", (p, thing))
    yield Case("an empty mask", (p, torch.zeros(12, dtype=torch.float64)))
    yield Case("a full mask", (p, torch.ones(12, dtype=torch.float64)))
    yield Case("probabilities of one half everywhere", (torch.full_like(p, 0.5), thing))


DICE = Function(
    "(p, y) → gradient at each pixel",
    _gradient,
    _masks,
    [
        (
            lambda p, y: _closed(p, y) * p * (1 - p),
            "that is the gradient of the logit; without p (1 - p) it is that of p",
        ),
        (lambda p, y: _closed(p, y, smooth=0.0), "the 1 in both halves is missing, without which empty masks fail"),
        (
            lambda p, y: _closed(p, y, sign=1.0),
            "the sign is wrong: the loss is 1 − I / S, and falls as the overlap grows",
        ),
        (lambda p, y: _closed(p, y, overlap=1.0), "I has twice the overlap"),
        (
            lambda p, y: -2 * y / (p.sum() + y.sum() + 1),
            "S depends on p, too: the derivative of a quotient has two terms",
        ),
    ],
)


def _dog_loses() -> int:
    """The worked example of the chapter, fused by the package for each stop probability of step 2."""
    masks = torch.tensor([[0.9, 0.9, 0.6, 0.3, 0.1], [0.1, 0.2, 0.6, 0.9, 0.3]])  # (P, w)
    classes = torch.full((2, 20), -14.0)
    classes[0, 15 - 1] = classes[1, 12 - 1] = 0.0  # person, dog
    pairs = (torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([2]))
    for percent in range(100):
        stop = torch.tensor([[0.0001, percent / 100]]).logit()
        steps = RecurrentOutput(masks.logit()[:, None], classes, stop, *pairs, None, (1, 5))
        if fuse(steps)[0, 0, 3] == 0:
            return percent
    raise AssertionError("it never does")


LOSES = Number(
    "the stop probability in per cent",
    _dog_loses,
    lambda: [
        (_dog_loses() - 1, "there the dog still has the pixel: one per cent more"),
        (_dog_loses() + 1, "one per cent less is enough"),
        (_dog_loses() / 100, "that is the share; give it in per cent"),
    ],
)


def _index(lengths: Tensor, steps: int) -> Tensor:
    return torch.arange(steps).expand(len(lengths), steps)


STOP = Function(
    "(lengths, T) → (target, weight), both (B, T)",
    stop_target,
    lambda: (
        Case(f"lengths {lengths}, T = {steps}", (torch.tensor(lengths), steps))
        for lengths, steps in (([2, 0, 4, 5], 5), ([0, 0], 3), ([1], 1), ([1, 2], 6))
    ),
    [
        (
            lambda n, t: ((_index(n, t) == n[:, None] - 1).float(), (_index(n, t) <= n[:, None]).float()),
            "off by one: at the last class the target is still 0; it is 1 at the step after it",
        ),
        (
            lambda n, t: (stop_target(n, t)[0], torch.ones(len(n), t)),
            "steps after the stop belong to no sequence: their weight is 0",
        ),
        (
            lambda n, t: (stop_target(n, t)[0], (_index(n, t) < n[:, None]).float()),
            "the step after the last class needs a weight, too, or no stop is learned",
        ),
        (
            lambda n, t: (1 - stop_target(n, t)[0], stop_target(n, t)[1]),
            "the other way round: 1 means stop",
        ),
        (
            lambda n, t: ((_index(n, t) >= n[:, None]).float(), stop_target(n, t)[1]),
            "1 stands at one step only; later ones have weight 0 and target 0",
        ),
    ],
)


EXERCISES: dict[int, Exercise] = {
    1: SUMS,
    2: Custom(
        _judge_trap,
        lambda: [
            (torch.tensor([[1.0, 2.0], [3.0, 1.0]]), "no trap"),
            (torch.ones(3, 3), "expected a matrix of shape (2, 2)"),
            ([1.0, 2.0], "expected a matrix of shape (2, 2)"),
            ([[1.0, float("nan")], [0.0, 1.0]], "finite"),
        ],
    ),
    3: ASSIGN,
    4: DICE,
    5: LOSES,
    6: STOP,
}
