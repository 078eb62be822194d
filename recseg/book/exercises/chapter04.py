"""Exercises of chapter 4: the recurrent U-Net and its packed output."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from recseg.book.exercises.exercise import Case, Exercise, Function
from recseg.models.config import RecurrentUNetConfig
from recseg.models.recurrent_unet import (
    Features,
    RecurrentUNet,
    State,
    StepOutput,
    lengths_from_stop,
    live_pairs,
)


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
        (lambda stop: (stop <= 0).sum(dim=1), "steps after the first stop are counted; the sequence has ended"),
        (
            lambda stop: (stop > 0).int().argmax(dim=1),
            "`argmax` gives 0 where nothing stops; such an image runs all its steps",
        ),
        (
            lambda stop: lengths_from_stop(stop) + 1,
            "off by one: the step that stops is not one of the live ones",
        ),
        (
            lambda stop: (stop <= 0.5).long().cumprod(dim=1).sum(dim=1),
            "those are logits: a probability of one half is the logit 0",
        ),
        (lambda stop: (stop < 0).long().cumprod(dim=1).sum(dim=1), "at exactly one half the sequence goes on"),
    ],
)


def _uncovered(masks: Tensor) -> Tensor:
    """As in the network: one step after the other."""
    uncovered = [torch.ones_like(masks[0])]
    for mask in masks[:-1]:
        uncovered.append(uncovered[-1] * (-mask).sigmoid())
    return torch.stack(uncovered)  # (T, h, w)


def _mask_logits() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    for steps in (4, 1, 2):
        yield Case(f"masks of {steps} steps", (2 * torch.randn(steps, 2, 3, generator=draw),))


UNCOVERED = Function(
    "mask logits (T, h, w) → uncovered before each step (T, h, w)",
    _uncovered,
    _mask_logits,
    [
        (
            lambda masks: (-masks).sigmoid().cumprod(dim=0),
            "that is what is uncovered after each step; before the first one it is 1",
        ),
        (
            lambda masks: _uncovered(-masks),
            "that is the product of what the masks cover: a mask takes its probability off, 1 − σ(m)",
        ),
        (
            lambda masks: 1 - _uncovered(masks),
            "that is the coverage; uncovered is the rest",
        ),
        (
            lambda masks: _uncovered(torch.where(masks > 0, 100.0, -100.0)),
            "masks count with their probabilities, not as yes or no",
        ),
        (
            lambda masks: 1 - (masks.sigmoid().cumsum(dim=0) - masks.sigmoid()),
            "probabilities do not add up: a mask covers its share of what is still uncovered, so multiply",
        ),
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
        (_zeros, "where there is no live pair, a logit of 0 means one half; fill with -inf, which means 0"),
        (_swapped, "`sample` and `step` are mixed up"),
    ],
)


class _Scripted(RecurrentUNet):
    """A small untrained network with given stop logits, so that the answer is known."""

    def __init__(self, stops: Sequence[float], seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                RecurrentUNetConfig(
                    num_classes=7, encoder_widths=(4, 8, 8), decoder_widths=(8,), hidden=8, reduced=8,
                    max_steps=len(stops),
                )
            )  # fmt: skip
        self.stops = stops
        self.eval().requires_grad_(False)

    def step(self, features: Features, state: State) -> tuple[State, StepOutput]:
        number = int(state.named[0].sum())  # each step names one class more
        state, output = super().step(features, state)
        return state, output._replace(stop=torch.full_like(output.stop, self.stops[number]))


Steps = list[tuple[int, Tensor]]


def _segment(network: RecurrentUNet, image: Tensor) -> Steps:
    (found,) = network(image[None]).split()
    labels = (found.classes.argmax(dim=1) + 1).tolist()
    return list(zip(labels, found.masks > 0, strict=True))


def _emit(
    network: RecurrentUNet, image: Tensor, *, shift: int = 1, last: bool = False, live: Callable[[float], bool]
) -> Steps:
    """The loop, with options for mistakes: `shift` from column to label, `last` keeps the step that stops."""
    features = network.encode(image[None])
    state, found = network.initial_state(features), []
    for _ in range(network.max_steps):
        state, output = network.step(features, state)
        goes_on = live(float(output.stop))
        if goes_on or last:
            found.append((int(output.classes[0].argmax()) + shift, output.mask[0] > 0))
        if not goes_on:
            break
    return found


def _networks() -> Iterator[Case]:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    for name, stops in {
        "a network that stops after two steps": [-3.0, -0.2, 0.3, -2.0],
        "a network that never stops": [-3.0, -1.0, -2.0],
        "a network that stops at once": [2.0, -1.0],
    }.items():
        yield Case(name, (_Scripted(stops, seed=len(stops)), image))


SEGMENT = Function(
    "(network, image) → [(label, mask), …]",
    _segment,
    _networks,
    [
        (
            lambda network, image: _emit(network, image, last=True, live=lambda stop: stop <= 0),
            "the step that stops is not one of the live ones: break before you keep it",
        ),
        (
            lambda network, image: _emit(network, image, shift=0, live=lambda stop: stop <= 0),
            "column 0 of the class logits is label 1, since no step is background",
        ),
        (
            lambda network, image: _emit(network, image, live=lambda stop: stop <= 0.5),
            "`stop` holds logits: a probability of one half is the logit 0",
        ),
        (
            lambda network, image: _emit(network, image, live=lambda stop: True),
            "nothing ends the sequence: look at `output.stop` at each step",
        ),
    ],
)


def _computed(lengths: Tensor, steps: int) -> tuple[int, int]:
    """Counted as the network runs: a step for all images until each of them has stopped."""
    kept = len(live_pairs(lengths.clamp(max=steps))[0])
    ran = 0
    for step in range(steps):
        ran += len(lengths)
        if not (lengths > step).any():
            break
    return kept, ran


COMPUTED = Function(
    "(lengths, T) → (kept, computed)",
    _computed,
    lambda: (
        Case(f"lengths {lengths}, T = {steps}", (torch.tensor(lengths), steps))
        for lengths, steps in (([1, 2, 3, 4], 5), ([5, 5], 5), ([0, 0, 0], 4), ([3], 6), ([7, 1], 5))
    ),
    [
        (
            lambda n, t: (int(n.clamp(max=t).sum()), len(n) * min(int(n.max()), t)),
            "the step that stops is computed as well",
        ),
        (
            lambda n, t: (int(n.clamp(max=t).sum()), len(n) * (int(n.max()) + 1)),
            "no sequence runs more than T steps",
        ),
        (
            lambda n, t: (int(n.sum()), len(n) * min(int(n.max()) + 1, t)),
            "an image of more than T classes has T masks",
        ),
        (
            lambda n, t: (int(n.clamp(max=t).sum()), int((n + 1).clamp(max=t).sum())),
            "an image that has stopped stays in the batch: all run as long as the longest",
        ),
        (lambda n, t: _computed(n, t)[::-1], "the other way round: kept comes first"),
    ],
)

EXERCISES: dict[int, Exercise] = {1: LENGTHS, 2: UNCOVERED, 3: UNPACK, 4: SEGMENT, 5: COMPUTED}
