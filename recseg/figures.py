"""Figures of results: bars by class, learning curves, the palette.

Lines take the Okabe–Ito colours, which colour-blind readers can tell apart, and differ in dash as well.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recseg.classes import VOC_CLASSES, VOID
from recseg.classes import palette as voc_palette
from recseg.errors import RecsegError
from recseg.plotting import FAINT, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design", 2008 (their yellow left out: too pale on white).
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", "-.", ":")
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # keeps a number readable where it meets a line


def class_bars(scores: Mapping[str, Mapping[str, float | None]], *, names: Sequence[str] = VOC_CLASSES) -> "Figure":
    """Bars of per-class scores, one panel for each score, classes in label order.

    Args:
        scores: score name → class name → value in [0, 1]; None or NaN for a class without one.
        names: the classes by label, so that each bar gets its label's colour; classes in no panel are left out.
    """
    rows = [name for name in names if any(name in values for values in scores.values())]
    figure = new_figure(3.4 * len(scores) + 1.4, 0.24 * len(rows) + 0.9)
    colours = voc_palette() / 255
    grid = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (score, values) in zip(grid, scores.items(), strict=True):
        found: list[float] = []
        for row, name in enumerate(rows):
            value = values.get(name)
            if value is None or np.isnan(value):
                axes.text(0.01, row, "none" if name in values else "", va="center", color=FAINT)
                continue
            found.append(value)
            axes.barh(row, value, height=0.72, color=colours[names.index(name)], edgecolor=INK, linewidth=0.4)
            axes.text(value + 0.012, row, f"{100 * value:.0f}", va="center", fontsize=8, bbox=BEHIND)
        mean = float(np.mean(found)) if found else float("nan")
        axes.axvline(mean, color=INK, linewidth=1, linestyle="--")
        axes.set_title(f"{score}, %  (mean {100 * mean:.1f}, dashed)", loc="left")
        axes.set_xlim(0, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first label on top
        axes.tick_params(length=0)
    return figure


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a JSON-lines log; a last line cut off by an interruption is left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RecsegError(f"{path}: cannot be read ({error.strerror or error})") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise RecsegError(f"{path}, line {number}: not JSON ({error.msg})") from error
    return rows


def learning_curves(
    logs: Mapping[str, Path | str],
    y: str = "loss",
    x: str = "step",
    *,
    smooth: int = 1,
    axes: "Axes | None" = None,
) -> "Figure":
    """One line for each run: value `y` of its JSON-lines log over `x`.

    Args:
        logs: run's name → path of its log. Rows without both keys are skipped.
        smooth: width of a running mean, in rows; 1 draws the values as they are.
        axes: draw here instead of on a new figure.
    """
    figure = new_figure(6.4, 3.4) if axes is None else axes.get_figure(root=True)
    assert figure is not None
    canvas = figure.subplots() if axes is None else axes
    for number, (name, path) in enumerate(logs.items()):
        points = np.array([(row[x], row[y]) for row in read_log(path) if x in row and y in row], dtype=float)
        if len(points) == 0:
            raise RecsegError(f"{path}: no row has both {x!r} and {y!r}")
        width = min(smooth, len(points))
        values = np.convolve(points[:, 1], np.ones(width) / width, mode="valid")
        canvas.plot(
            points[width - 1 :, 0],
            values,
            color=LINES[number % len(LINES)],
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.8,
            label=name,
        )
    canvas.set_xlabel(x)
    canvas.set_ylabel(y)
    canvas.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    canvas.legend()
    return figure


def palette_legend(names: Sequence[str] = VOC_CLASSES, *, void: bool = True, columns: int = 6) -> "Figure":
    """Each label's colour, number and name; with the colour that unlabelled pixels wear."""
    entries = [(label, name) for label, name in enumerate(names)] + ([(VOID, "void")] if void else [])
    rows = -(-len(entries) // columns)
    figure = new_figure(1.55 * columns, 0.34 * rows)
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    colours = voc_palette() / 255
    for position, (label, name) in enumerate(entries):
        column, row = divmod(position, rows)
        patch: dict[str, Any] = {"facecolor": tuple(colours[label]), "edgecolor": FAINT, "linewidth": 0.6}
        axes.add_patch(Rectangle((column, row + 0.2), 0.16, 0.6, **patch))
        axes.text(column + 0.2, row + 0.52, f"{label} {name}", va="center", fontsize=8)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    return figure
