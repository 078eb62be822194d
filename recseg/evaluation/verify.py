"""Published results, and their comparison with a new measurement, figure by figure: `recseg results --verify`.

The same weights, images and code give the same figures. Another processor or library version rounds differently, which
changes a few pixels at the edge of a mask, and occasionally a whole step. The same tolerances apply to every result.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from recseg.errors import RecsegError
from recseg.resources import resource
from recseg.weights.registry import published_weights

OVERALL = 0.002  # for a figure of the whole list, usually in 0 … 1
PER_CLASS = 0.02  # for a figure of one class, which may occur in only twenty images
MOVED = 0.002  # share of all pixels, or of all decisions, that may be counted elsewhere
ORIGIN = ("data", "split", "seed", "commit", "command")  # required in a published result
_NOT_MEASURED = {*ORIGIN, "training", "uncommitted_changes", "versions", "hardware", "date", "seconds"}


class Compared(NamedTuple):
    """A published figure, the one measured now, their distance, and the tolerance."""

    name: str
    published: Any
    measured: Any
    distance: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.distance <= self.tolerance


def published_results() -> dict[str, Path]:
    """The evaluations and comparisons shipped with recseg: name → file."""
    try:
        folder = resource("results")
    except RecsegError:
        return {}  # an installation without results
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if read_result(file).keys() & {"miou", "differences"}}


def from_counts(published: dict[str, Any]) -> bool:
    """Whether some networks of a comparison are missing, so that it is recomputed from the counts of each image."""
    names = {entry["name"] for entry in published_weights()}
    runs = [run["weights"] for group in published.get("runs", {}).values() for run in group]
    return not all(Path(run).exists() or run in names for run in runs)


def compare(published: dict[str, Any], measured: dict[str, Any]) -> list[Compared]:
    """Compare two evaluations or comparisons figure by figure, worst first.

    Figures of the whole list may differ by `OVERALL`, those of a class by `PER_CLASS`. A share `MOVED` of the pixels in
    the confusion matrix, and of the decisions in the calibration tables, may be counted elsewhere. Everything else must
    be equal, and a figure that only one of the two has does not agree.
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
    """Flatten a value of a result into figures, named e.g. "iou_per_class of cat"; a table of counts is one figure."""
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
    """Distance and tolerance; values other than floats and tables of counts are equal or infinitely far apart."""
    if old == new:
        return 0.0, 0.0
    if isinstance(old, dict) and isinstance(new, dict):
        return _moved(old, new), MOVED
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new), PER_CLASS if "_per_class of " in name or name.startswith("best_") else OVERALL
    return float("inf"), 0.0


def _moved(old: dict[Any, float], new: dict[Any, float]) -> float:
    """Share of the counts that are in different cells of two tables; infinite if the totals differ."""
    total = sum(old.values())
    if total != sum(new.values()):
        return float("inf")
    return sum(abs(old.get(key, 0) - new.get(key, 0)) for key in {*old, *new}) / 2 / max(total, 1)


def _bins(rows: list[dict[str, Any]]) -> dict[Any, float]:
    """For each tenth of probability, the decisions that happened and those that did not; empty tenths are left out."""
    counts = {}
    for row in rows:
        (outcome,) = row.keys() - {"probability", "decisions"}
        happened = round(row[outcome] * row["decisions"])
        tenth = min(int(10 * row["probability"]), 9)
        counts[tenth, True], counts[tenth, False] = happened, row["decisions"] - happened
    return counts


def read_result(file: Path) -> dict[str, Any]:
    """A stored result; empty if the file does not contain a JSON object.

    Raises:
        RecsegError: the file is missing, or not JSON.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecsegError(f"{file}: not a readable result ({error})") from error
    return value if isinstance(value, dict) else {}
