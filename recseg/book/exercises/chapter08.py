"""Exercises of chapter 8: memory layouts, the roofline, loss scaling, accumulation. The ring has a file of its own."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recseg.book.exercises.exercise import Case, Exercise, Function
from recseg.book.exercises.ring import RING


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


def _bound(work: Sequence[tuple[float, float]], peak: float, bandwidth: float) -> float:
    """Minimum time in seconds for a list of (operations, bytes), one entry after the other."""
    return sum(max(operations / peak, moved / bandwidth) for operations, moved in work)


def _totals(work: Sequence[tuple[float, float]], peak: float, bandwidth: float) -> tuple[float, float]:
    return sum(a for a, _ in work) / peak, sum(b for _, b in work) / bandwidth


BOUND = Function(
    "(work, peak, bandwidth) → seconds",
    _bound,
    lambda: (
        Case(name, (work, 1e12, 1e11))
        for name, work in {
            "one convolution": [(4e9, 1e8)],
            "a convolution and an addition": [(4e9, 1e8), (1e6, 3e8)],
            "nothing": [],
        }.items()
    ),
    [
        (
            lambda work, peak, bandwidth: max(_totals(work, peak, bandwidth)),
            "the larger of two sums: while an addition waits for memory no convolution computes, so take the larger "
            "time of each entry, then add",
        ),
        (
            lambda work, peak, bandwidth: sum(_totals(work, peak, bandwidth)),
            "an operation computes while it reads and writes: the larger of its two times counts, not their sum",
        ),
        (
            lambda work, peak, bandwidth: sum(min(a / peak, b / bandwidth) for a, b in work),
            "the slower of the two decides: the larger time, not the smaller",
        ),
        (
            lambda work, peak, bandwidth: sum(max(a * peak, b * bandwidth) for a, b in work),
            "seconds are operations divided by operations a second",
        ),
    ],
)

Pair = tuple[Tensor, Tensor]


class _Sixteen(torch.autograd.Function):
    """Identity that stores the gradient in float16, as a layer does under autocast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.half().float()


def _loss(network: nn.Module, batch: Pair) -> Tensor:
    output: Tensor = _Sixteen.apply(network(batch[0]))  # type: ignore[no-untyped-call]
    return nn.functional.mse_loss(output, batch[1])


def _scaled(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Pair],
    loss: Callable[[nn.Module, Pair], Tensor],
    scale: float,
    *,
    unscale: bool = True,
    skip: bool = True,
    lower: bool = True,
    zero: bool = True,
) -> tuple[list[float], dict[str, Tensor]]:
    """The loop, with options for mistakes."""
    scales = []
    for batch in batches:
        scales.append(scale)
        if zero:
            optimiser.zero_grad()
        (loss(network, batch) * scale).backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if unscale:
            for gradient in gradients:
                gradient /= scale
        if not skip or all(bool(gradient.isfinite().all()) for gradient in gradients):
            optimiser.step()
        elif lower:
            scale /= 2
    return scales, network.state_dict()


def _trainings() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    for scale, size in ((1.0, 1.0), (2.0**20, 1.0), (2.0**12, 1e-6)):
        network = nn.Linear(3, 1)
        with torch.no_grad():
            network.weight.fill_(0.0)
            network.bias.fill_(0.0)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        batches = [(torch.randn(6, 3, generator=draw), size * torch.randn(6, 1, generator=draw)) for _ in range(12)]
        yield Case(f"scale = {scale:g}", (network, optimiser, batches, _loss, scale))


SCALED = Function(
    "(network, optimiser, batches, loss, scale) → (scales, state dict)",
    _scaled,
    _trainings,
    [
        (functools.partial(_scaled, unscale=False), "the update is as many times too large as the scale: divide first"),
        (functools.partial(_scaled, skip=False), "an infinite gradient reaches the weights: leave such an update out"),
        (functools.partial(_scaled, lower=False), "the scale stays where it overflows: halve it after such a batch"),
        (functools.partial(_scaled, zero=False), "gradients add up: they have to be set to zero before `backward()`"),
    ],
)


def _summed(network: nn.Module, part: Pair) -> tuple[Tensor, int]:
    """Sum of squared errors over the rows that count (those whose target is not NaN), and their number."""
    counts = ~part[1].isnan()
    return (network(part[0])[counts] - part[1][counts]).square().sum(), int(counts.sum())


def _accumulated(
    network: nn.Module, loss: Callable[[nn.Module, Any], tuple[Tensor, int]], parts: Sequence[Any], *,
    how: str = "count",
) -> list[Tensor]:  # fmt: skip
    """Gradient of the mean over everything that counts in all parts, with options for mistakes."""
    network.zero_grad()
    total = 0
    for part in parts:
        value, count = loss(network, part)
        total += count
        if how == "means":
            value = value / max(1, count) / len(parts)
        value.backward()
    divisor = {"count": float(max(1, total)), "parts": float(len(parts))}.get(how, 1.0)
    return [p.grad / divisor for p in network.parameters() if p.grad is not None]


def _parts() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    for name, counts in {
        "parts of 4, 1 and 3": (4, 1, 3),
        "a part in which nothing counts": (2, 0),
        "one part": (5,),
    }.items():
        network = nn.Linear(3, 1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
        parts = []
        for count in counts:
            target = torch.randn(5, 1, generator=draw)
            target[count:] = float("nan")
            parts.append((torch.randn(5, 3, generator=draw), target))
        yield Case(name, (network, _summed, parts))


ACCUMULATED = Function(
    "(network, loss, parts) → gradients",
    _accumulated,
    _parts,
    [
        (functools.partial(_accumulated, how="means"), "a mean of means: a part with few numbers counts too much"),
        (
            functools.partial(_accumulated, how="sums"),
            "that is the gradient of the sum: divide by the count of all parts",
        ),
        (functools.partial(_accumulated, how="parts"), "divided by the number of parts, not by what counts in them"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: STRIDES, 2: BOUND, 3: SCALED, 4: ACCUMULATED, 5: RING}
