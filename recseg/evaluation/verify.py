"""Published scores, and their comparison, figure by figure, with a new measurement: `recseg results --verify`.

The same weights, images and code give the same figures. Another processor or another version of a library rounds
differently: a few pixels at the edge of a mask change, now and then a whole step. The tolerances below are those of
every result.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from recseg.errors import RecsegError
from recseg.resources import resource
from recseg.weights.registry import published_weights

OVERALL = 0.002  # a figure of the whole list, most of them shares of one
PER_CLASS = 0.02  # a figure of one class: a list may hold it twenty times only
MOVED = 0.002  # of all pixels, or of all decisions: how many may be counted elsewhere
ORIGIN = ("data", "split", "seed", "commit", "command")  # what a published score has to say
_NOT_MEASURED = {*ORIGIN, "training", "uncommitted_changes", "versions", "hardware", "date", "seconds"}


class Compared(NamedTuple):
    """One published figure, the one measured now, their distance, and the largest distance at which they agree."""

    name: str
    published: Any
    measured: Any
    distance: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.distance <= self.tolerance


def published_results() -> dict[str, Path]:
    """The evaluations and comparisons that come with recseg: name → file."""
    try:
        folder = resource("results")
    except RecsegError:
        return {}  # an installation without results
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if read_result(file).keys() & {"miou", "differences"}}


def from_counts(published: dict[str, Any]) -> bool:
    """Whether the networks of a comparison are not all here, so that the counts of each image have to do."""
    names = {entry["name"] for entry in published_weights()}
    runs = [run["weights"] for group in published.get("runs", {}).values() for run in group]
    return not all(Path(run).exists() or run in names for run in runs)


def compare(published: dict[str, Any], measured: dict[str, Any]) -> list[Compared]:
    """Each figure of two evaluations or comparisons, the worst first.

    Numbers of the whole list may differ by `OVERALL`, those of a class by `PER_CLASS`; of the pixels in the confusion
    matrix and of the decisions in the tables of calibration a share of `MOVED` may be counted elsewhere. Everything
    else has to be the same, and a figure that only one of the two has does not agree.
    """
    old, new = (
        dict(pair for key, value in result.items() if key not in _NOT_MEASURED for pair in _figures(key, value))
        for result in (published, measured)
    )
    found = []
    for name in dict.fromkeys([*old, *new]):
        distance, tolerance = float("inf"), 0.0
        if name in old and name in new:
            distance, tolerance = _distance(name, old[name], new[name])
        found.append(Compared(name, old.get(name), new.get(name), distance, tolerance))
    return sorted(found, key=lambda each: -(each.distance / each.tolerance if each.tolerance else each.distance))


def _figures(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The figures within a value of a result, by names such as "iou_per_class of cat"; tables of counts whole."""
    if name == "confusion":
        yield name, {(row, column): count for row, counts in enumerate(value) for column, count in enumerate(counts)}
    elif name.endswith("_calibration"):
        yield name, _bins(value)
    elif name.startswith("best_"):
        yield name, value["value"]
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _figures(f"{name} of {key}", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _figures(f"{name} {index}", part)
    else:
        yield name, value


def _distance(name: str, old: Any, new: Any) -> tuple[float, float]:
    """Distance and tolerance; what is neither a number nor a table of counts is the same or infinitely far."""
    if old == new:
        return 0.0, 0.0
    if isinstance(old, dict) and isinstance(new, dict):
        return _moved(old, new), MOVED
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new), PER_CLASS if "_per_class of " in name or name.startswith("best_") else OVERALL
    return float("inf"), 0.0


def _moved(old: dict[Any, float], new: dict[Any, float]) -> float:
    """Share of what was counted that two tables of counts hold in different cells; infinite for different totals."""
    total = sum(old.values())
    if total != sum(new.values()):
        return float("inf")
    return sum(abs(old.get(key, 0) - new.get(key, 0)) for key in {*old, *new}) / 2 / max(total, 1)


def _bins(rows: list[dict[str, Any]]) -> dict[Any, float]:
    """Decisions of each tenth of probability that happened, and that did not; empty tenths have no row."""
    counts = {}
    for row in rows:
        (outcome,) = row.keys() - {"probability", "decisions"}
        happened = round(row[outcome] * row["decisions"])
        tenth = min(int(10 * row["probability"]), 9)
        counts[tenth, True], counts[tenth, False] = happened, row["decisions"] - happened
    return counts


def read_result(file: Path) -> dict[str, Any]:
    """A stored result; empty where the file holds something else than a table.

    Raises:
        RecsegError: missing, or not JSON.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecsegError(f"{file}: not a readable result ({error})") from error
    return value if isinstance(value, dict) else {}
