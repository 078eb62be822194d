"""Comparable times on a shared machine: interleaved rounds, medians, and ratios with their range.

On a shared machine, absolute times depend on the load from others. In each round all contestants run one after the
other, so a slow minute slows all of them, and the ratio of two times from the same round is hardly affected.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """Median, lowest and highest of the ratios of all rounds."""

    median: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in vars(self).items()}


def waiter(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has finished its work; on a CPU it does nothing."""
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
    """Seconds per call of each function, for each round.

    Args:
        acts: functions to time, by name.
        rounds: number of rounds.
        wait: see `waiter`.
        least: minimum seconds of a measurement: a quick function is called repeatedly, and the mean is taken.
        progress: called after each measurement.
    """
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: expected at least 1")
    for act in acts.values():  # warm up: planning, allocation and compilation are not measured
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            act()  # warm the caches, which hold the data of the contestant before
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
    """The weighted mean of several contestants' times, round by round."""
    total = sum(weights)
    return [sum(w * t for w, t in zip(weights, row, strict=True)) / total for row in zip(*times, strict=True)]
