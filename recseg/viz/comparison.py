"""Figures of a comparison, from the output of `recseg compare --json`: intervals and naming curves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recseg.viz.figures import DASHES, LINES
from recseg.viz.plotting import FAINT, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"miou": "mIoU", "label_set_f1": "label-set F1", "count_accuracy": "count accuracy"}


def difference_intervals(result: Mapping[str, Any]) -> "Figure":
    """Each difference as a point with its 95 % interval, one panel per score; grey if the interval contains 0.

    Args:
        result: JSON of `recseg compare`.
    """
    rows = result["differences"]
    names = [f"{row['of']} − {row['minus'].removeprefix(row['of'] + ': ')}".replace(", ", ",\n") for row in rows]
    figure = new_figure(8.0, 0.42 * len(rows) + 0.8)
    panels = figure.subplots(1, len(NAMES), sharey=True)
    for axes, (key, title) in zip(panels, NAMES.items(), strict=True):
        axes.axvline(0, color=FAINT, linewidth=1)
        for y, row in enumerate(rows):
            found = row[key]
            if found["low"] is None:
                continue
            colour = LINES[0] if found["low"] > 0 or found["high"] < 0 else FAINT
            axes.plot([100 * found["low"], 100 * found["high"]], [y, y], color=colour, linewidth=2)
            axes.plot(100 * found["value"], y, "o", color=colour, markersize=5)
        axes.set_title(f"{title}, points", loc="left")
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the first difference on top
        axes.tick_params(axis="y", length=0)
    return figure


def naming_curves(result: Mapping[str, Any]) -> "Figure":
    """Label-set F1 and count accuracy of pixels over the minimum area of a named class; dashed: the model's own steps.

    Args:
        result: JSON of `recseg compare`.
    """
    figure = new_figure(7.6, 3.2)
    keys = ("label_set_f1", "count_accuracy")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), keys, strict=True):
        for number, (group, curve) in enumerate(result["naming"].items()):
            style = {"color": LINES[number % len(LINES)]}
            x, y = ([100 * value for value in curve[name]] for name in ("thresholds", key))
            axes.plot(x, y, linestyle=DASHES[0], marker=".", label=f"{group}: own pixels", **style)
            if f"{group}: own pixels" in result["rows"]:  # a recurrent model
                axes.axhline(100 * result["rows"][group]["mean"][key], linestyle=DASHES[1], label=group, **style)
        axes.set_xscale("log")
        axes.set_title(f"{NAMES[key]}, %", loc="left")
        axes.set_xlabel("minimum area of a class, % of the image")
        axes.legend()
    return figure
