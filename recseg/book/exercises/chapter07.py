"""Exercises of chapter 7: the training loop."""

import copy
import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from recseg.book.exercises.exercise import Case, Exercise, Function, Number
from recseg.resources import resource
from recseg.training.optim import averaged_model, schedule


def _updates() -> int:
    last = resource("results", "pictograms-recurrent-log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return int(json.loads(last)["step"])


SEEN = Number(
    "the number of times",
    lambda: _updates() * 16 / 8000,
    lambda: [
        (_updates() / 8000, "an update sees a batch, not one image"),
        (_updates() * 16, "that is the number of crops; they are of 8,000 images"),
        (8000 / (_updates() * 16), "upside down: crops divided by images"),
        (8000 / 16, "that is the number of updates in which each image is seen once"),
    ],
)


def _cosine(step: int, total: int, warmup: int) -> float:
    return schedule(step, 0.0, warmup=warmup) * 0.5 * (1 + math.cos(math.pi * step / total))


COSINE = Function(
    "(k, total, warmup) → factor",
    _cosine,
    lambda: (
        Case("k = {}, total = {}, warmup = {}".format(*numbers), numbers)
        for numbers in (
            (0, 2000, 100),
            (50, 2000, 100),
            (99, 2000, 100),
            (1000, 2000, 100),
            (2000, 2000, 100),
            (3, 9, 1),
        )
    ),
    [
        (lambda k, total, warmup: 0.5 * (1 + math.cos(math.pi * k / total)), "the warm-up is missing"),
        (
            lambda k, total, warmup: min(1, k / warmup) * 0.5 * (1 + math.cos(math.pi * k / total)),
            "off by one in the warm-up: update 0 would not move at all; it is (k + 1) / warmup",
        ),
        (
            lambda k, total, warmup: min(1, (k + 1) / warmup) * (1 + math.cos(math.pi * k / total)),
            "the factor one half is missing",
        ),
        (
            lambda k, total, warmup: (
                min(1, (k + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * max(0, k - warmup) / (total - warmup)))
            ),
            "p is the share of the whole training run that is over, its warm-up included",
        ),
        (
            lambda k, total, warmup: schedule(k, k / total, warmup=warmup),
            "that is the poly rule",
        ),
    ],
)


@torch.no_grad()
def _average(values: Sequence[float], decay: float) -> float:
    """Computed by the package, with a model of one weight."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    model.weight.fill_(values[0])
    average = averaged_model(model, decay)
    for value in values[1:]:
        model.weight.fill_(value)
        average.update_parameters(model)
    weight = average.module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.item()


def _by_hand(
    values: Sequence[float], decay: float, *, warm: bool = True, first: int = 0, swapped: bool = False
) -> float:
    average = values[0]
    for step, value in enumerate(values[1:], first):
        keep = min(decay, (1 + step) / (10 + step)) if warm else decay
        keep = 1 - keep if swapped else keep
        average = keep * average + (1 - keep) * value
    return average


AVERAGE = Function(
    "(values, decay) → average",
    _average,
    lambda: (
        Case(f"values = {values}, decay = {decay}", (values, decay))
        for values, decay in (
            ([2.0], 0.9),
            ([0.0, 1.0], 0.999),
            ([1.0, 2.0, 4.0, 8.0], 0.99),
            ([0.0, 1.0, 1.0, 5.0], 0.15),
        )
    ),
    [
        (
            lambda values, decay: _by_hand(values, decay, warm=False),
            "the decay warms up: min(decay, (1 + k) / (10 + k))",
        ),
        (
            lambda values, decay: _by_hand(values, decay, first=1),
            "off by one: k starts with 0, so the first decay is 1/10",
        ),
        (
            lambda values, decay: _by_hand(values, decay, swapped=True),
            "the other way round: the decay is the share of the old average that is kept",
        ),
        (lambda values, decay: sum(values) / len(values), "that is the plain mean, where old values never fade"),
    ],
)

Batch = tuple[Tensor, Tensor]
Fitted = tuple[list[tuple[int, float]], dict[str, Tensor]]


def _fit(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    score: Callable[[nn.Module], float],
    every: int,
    *,
    zero: bool = True,
    evaluate: bool = True,
    back: bool = True,
    keep: Callable[[dict[str, Tensor]], dict[str, Tensor]] = copy.deepcopy,
    sign: int = 1,
) -> Fitted:
    """The loop, with options for mistakes."""
    scores: list[tuple[int, float]] = []
    highest, kept = -math.inf, network.state_dict()
    for count, batch in enumerate(batches, 1):
        if back:
            network.train()
        if zero:
            optimiser.zero_grad()
        loss(network, batch).backward()
        optimiser.step()
        if count % every:
            continue
        if evaluate:
            network.eval()
        with torch.no_grad():
            scores.append((count, float(score(network))))
        if sign * scores[-1][1] > highest:
            highest, kept = sign * scores[-1][1], keep(network.state_dict())
    return scores, kept


def _trainings() -> Iterator[Case]:
    """Noise as data, so that the scores go up and down; a batch norm, so that the mode matters."""
    draw = torch.Generator().manual_seed(0)
    held_out = torch.randn(16, 3, generator=draw), torch.randn(16, 1, generator=draw)

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.mse_loss(network(batch[0]), batch[1])

    for every, count in ((1, 8), (3, 12)):
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        batches = [(torch.randn(6, 3, generator=draw), torch.randn(6, 1, generator=draw)) for _ in range(count)]
        optimiser = torch.optim.SGD(network.parameters(), lr=0.3)
        score = functools.partial(_minus, loss, held_out)
        yield Case(f"{count} batches, every = {every}", (network, optimiser, batches, loss, score, every))


def _minus(loss: Callable[[nn.Module, Batch], Tensor], batch: Batch, network: nn.Module) -> float:
    return -loss(network, batch).item()


FIT = Function(
    "(network, optimiser, batches, loss, score, every) → (scores, best state dict)",
    _fit,
    _trainings,
    [
        (functools.partial(_fit, zero=False), "gradients add up: they have to be set to zero before each `backward()`"),
        (functools.partial(_fit, evaluate=False), "the score is that of a network in training mode: call `eval()`"),
        (functools.partial(_fit, back=False), "after a validation the network stays in `eval()` mode: call `train()`"),
        (functools.partial(_fit, keep=lambda state: state), "the best weights go on changing: keep a copy of them"),
        (functools.partial(_fit, sign=-1), "those are the weights with the lowest score"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: SEEN, 2: COSINE, 3: AVERAGE, 4: FIT}
