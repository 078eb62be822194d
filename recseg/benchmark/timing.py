"""Times that can be compared on a machine that others use too: interleaved rounds, medians, ratios with their range.

An absolute time says as much about the machine's other guests as about the program. In each round every contestant runs
once after the other, so a slow minute slows all of them, and the ratio of two times of one round stays what it is.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds' ratios, the lowest of them and the highest."""

    median: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in vars(self).items()}


def waiter(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has done what it was asked to do; a CPU has, when a call returns."""
    if device.type == "cuda":
        return torch.cuda.synchronize
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def interleave(
    acts: Mapping[str, Callable[[], object]],
    rounds: int,
    wait: Callable[[], None] = lambda: None,
    *,
    least: float = 0.05,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of one call of each act, for each round.

    Args:
        acts: what is timed, by name.
        rounds: how often each has its turn.
        wait: see `waiter`.
        least: seconds that a turn lasts at least: a quick act is called several times, and its mean counts.
        progress: called after each turn.
    """
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: expected at least 1")
    for act in acts.values():  # plans, allocations, compilers: not what is measured
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            act()  # what the contestant before left in the caches is not this one's
            wait()
            calls, start = 0, time.perf_counter()
            while calls == 0 or time.perf_counter() - start < least:
                act()
                wait()
                calls += 1
            times[name].append((time.perf_counter() - start) / calls)
            progress()
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Ratio of two contestants, round by round."""
    found = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))


def weighted(times: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Round by round, the mean of several contestants' times, weighted."""
    total = sum(weights)
    return [sum(w * t for w, t in zip(weights, row, strict=True)) / total for row in zip(*times, strict=True)]
