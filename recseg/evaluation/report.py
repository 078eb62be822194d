"""A comparison as text: one line on which differences are separable, then Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from recseg.evaluation.answers import PIXELS

HEADLINE = {"miou": "mIoU", "label_set_f1": "label-set F1", "count_accuracy": "count accuracy"}
COLUMNS = HEADLINE | {"label_set_recall": "recall", "slot_accuracy": "slot accuracy", "slot_iou": "slot IoU"}
FEWEST_SEEDS = 3


def findings(result: dict[str, Any]) -> list[str]:
    """Which differences are separable and which are not, and the caveats that go with them.

    Separable: the 95 % interval of the difference, over images, excludes 0.
    """
    text: dict[bool, list[str]] = {True: [], False: []}
    for difference in headline_differences(result):
        for key, name in HEADLINE.items():
            if difference[key]["low"] is not None:
                text[separable(difference[key])].append(f"{_title(difference)} {name} {points(difference[key])}")
    lines = [f"Separable: {'; '.join(text[True]) or 'nothing'}. Not separable: {'; '.join(text[False]) or 'nothing'}."]
    runs = result["runs"]
    few = {name: len(of) for name, of in runs.items() if len(of) < FEWEST_SEEDS}
    if few:
        said = ", ".join(f"{name} {number}" for name, number in few.items())
        lines.append(f"Fewer than {FEWEST_SEEDS} seeds ({said}): other seeds may differ by more than an interval says.")
    updates = {name: sorted({str(run["updates"]) for run in of}) for name, of in runs.items()}
    if len(set(map(tuple, updates.values()))) > 1:
        said = ", ".join(f"{name} {' and '.join(numbers)}" for name, numbers in updates.items())
        lines.append(f"Not trained alike: {said} updates.")
    if result["classes_not_in_ground_truth"]:
        lines.append(f"In no mean, since not in the ground truth: {', '.join(result['classes_not_in_ground_truth'])}.")
    return lines


def separable(interval: dict[str, float]) -> bool:
    """Whether an interval excludes 0."""
    return interval["low"] > 0 or interval["high"] < 0


def headline_differences(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Differences between two groups, and between a group and its own pixels."""
    return [
        each
        for each in result["differences"]
        if each["minus"] in result["runs"] or each["minus"] == f"{each['of']}: {PIXELS}"
    ]


def markdown(result: dict[str, Any], *, per_class: bool = False) -> str:
    """The findings, the rows, the differences, and on request the IoU of each class."""
    parts = ["\n".join(findings(result)), _rows(result), _differences(result)]
    return "\n\n".join(parts + ([_classes(result)] if per_class else [])) + "\n"


def _rows(result: dict[str, Any]) -> str:
    lines = []
    for name, row in result["rows"].items():
        cells = []
        for key in COLUMNS:
            of = [run[key] for run in row["runs"] if run[key] is not None]
            spread = f" ({100 * min(of):.1f} … {100 * max(of):.1f})" if len(of) > 1 else ""
            cells.append(percent(row["mean"][key]) + spread)
        lines.append([name, *cells])
    title = f"%, {result['images']} images; mean over seeds (range)"
    return _table([title, *COLUMNS.values()], lines)


def _differences(result: dict[str, Any]) -> str:
    lines = [[_title(each), *(points(each[key]) for key in COLUMNS)] for each in result["differences"]]
    return _table(["difference in points (95 % interval over images)", *COLUMNS.values()], lines)


def _classes(result: dict[str, Any]) -> str:
    rows = {name: row for name, row in result["rows"].items() if name in result["runs"] or name.endswith(f": {PIXELS}")}
    gaps = headline_differences(result)
    lines = [
        [name, *(percent(row["iou_per_class"][name]) for row in rows.values()),
         *(points(gap["iou_per_class"][name]) for gap in gaps)]
        for name in result["classes"]
    ]  # fmt: skip
    return _table(["IoU of each class, %", *rows, *map(_title, gaps)], lines)


def _title(difference: dict[str, Any]) -> str:
    return f"{difference['of']} − {difference['minus'].removeprefix(difference['of'] + ': ')}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


def points(interval: dict[str, float | None]) -> str:
    """A difference in points, with its 95 % interval."""
    if any(value is None for value in interval.values()):
        return "–"
    value, low, high = (100 * (interval[key] or 0.0) for key in ("value", "low", "high"))
    return f"{signed(value)} ({signed(low)} … {signed(high)})"


def signed(value: float) -> str:
    """Points with their sign, without one if they round to zero."""
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    rows = [head, *lines]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    rows.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in widths)])
    return "\n".join(f"| {' | '.join([name.ljust(first), *map(str.rjust, cells, widths)])} |" for name, *cells in rows)
