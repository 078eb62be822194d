"""The page of a report: its sections, one HTML file that asks nothing of any server and runs no script."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any, TypeAlias

from recseg.errors import counted
from recseg.report.charts import Line, line_chart, smoothed
from recseg.report.facts import Facts, objective_changes
from recseg.report.hints import hints
from recseg.report.images import Panel
from recseg.report.tables import (
    bins_table,
    class_table,
    confusion_table,
    count_table,
    facts_table,
    percent,
    share_of_largest,
)

# Nothing is fetched and nothing runs, whatever a class or a file may be called.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
Shown: TypeAlias = Mapping[str, Sequence[Panel]]  # images by their ids
CARDS = {
    "miou": ("mIoU", "mean overlap of predicted and true pixels of a class"),
    "label_set_f1": ("label-set F1", "are the right classes named?"),
    "count_accuracy": ("count accuracy", "images with as many classes as are named"),
}
VALIDATION = {"val_miou": "mIoU", "val_label_set_f1": "label-set F1", "val_count_accuracy": "count accuracy"}


def page(
    title: str,
    facts: Facts,
    worst: Shown,
    best: Shown,
    origin: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page.

    Args:
        title: what was scored on what.
        facts: what it shows.
        worst: the worst images.
        best: the best ones.
        origin: tables of settings, by their captions.
    """
    sections = {
        "In short": _summary(facts),
        "What stands out": _hints(facts),
        "Training": _training(facts),
        "Classes": class_table(facts),
        "Confusion": confusion_table(facts),
        "Naming": _naming(facts),
        "The worst images": _images(facts, worst),
        "The best images": _images(facts, best),
        "Where it comes from": "".join(facts_table(caption, dict(values)) for caption, values in origin.items()),
    }
    style = files("recseg.report").joinpath("style.css").read_text(encoding="utf-8")
    body = "".join(
        f"<section><h2>{escape(name)}</h2>{content}</section>" for name, content in sections.items() if content
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def _summary(facts: Facts) -> str:
    cards = [
        f"<li>{name}<b>{percent(facts.intervals[key].value)} %</b>"
        f"{percent(facts.intervals[key].low)} … {percent(facts.intervals[key].high)}<br>{words}</li>"
        for key, (name, words) in CARDS.items()
    ]
    cards.append(
        f"<li>pixel accuracy<b>{percent(facts.scores['pixel_accuracy'])} %</b>pixels with the right label</li>"
    )
    count = counted(len(facts.images), "image")
    return (
        f'<ul class="cards">{"".join(cards)}</ul>'
        f'<p class="note">Of {count}. Below a score is its 95 % interval over images: as far as other images of the '
        "same kind would move it. An answer that gives all pixels the most frequent label would score an mIoU of "
        f"{percent(share_of_largest(facts.confusion))} %. mIoU is the mean over the classes that occur in the ground "
        "truth.</p>"
    )


def _hints(facts: Facts) -> str:
    found = hints(facts)
    if not found:
        return "<p>Nothing that these numbers could show: look at the worst images.</p>"
    return f'<ul class="hints">{"".join(f"<li>{escape(sentence)}</li>" for sentence in found)}</ul>'


def _training(facts: Facts) -> str:
    losses = [_line(name, facts.log, key) for name, key in (("training", "loss"), ("validation", "val_loss"))]
    scores = [_line(name, facts.log, key, 100, marks=True) for key, name in VALIDATION.items()]
    changes = list(objective_changes(facts.log))
    charts = []
    for title, lines, breaks in (("Loss", losses, changes), ("Validation scores, %", scores, [])):
        drawn = [line for line in lines if line.points]
        if drawn:
            alt = f"{title} over steps. " + ". ".join(_told(line) for line in drawn)
            charts.append(f"<div><h3>{title}</h3>{line_chart(drawn, 'step', alt, breaks=breaks)}</div>")
    if not charts:
        return "<p>There is no log of the training beside these weights, so no curves.</p>"
    note = ""
    if changes:
        steps = ", ".join(f"{step:,}" for step in changes)
        words = f"At step {steps} the loss gets other terms: what it is before and after does not compare."
        note = f'<p class="note">{words}</p>'
    return f'<div class="charts">{"".join(charts)}</div>{note}'


def _line(name: str, log: Sequence[Mapping[str, Any]], key: str, factor: float = 1, marks: bool = False) -> Line:
    points = [(float(row["step"]), factor * row[key]) for row in log if row.get(key) is not None and "step" in row]
    points = [(x, y) for x, y in points if isfinite(y)]
    if key == "loss":
        points = smoothed(points, max(1, len(points) // 40))
    return Line(name, points, marks)


def _told(line: Line) -> str:
    (first, begin), (last, end) = line.points[0], line.points[-1]
    return f"{line.name}: {begin:.3g} at {first:g}, {end:.3g} at {last:g}"


def _naming(facts: Facts) -> str:
    parts = [count_table(facts)]
    bins = {
        "class": ("a class is there", "present", facts.scores["class_calibration"]),
        "stop": ("nothing is left", "ended", facts.scores["stop_calibration"]),
    }
    lines = [
        Line(name, [(100 * row["probability"], 100 * row[outcome]) for row in rows], marks=True)
        for name, outcome, rows in bins.values()
        if rows
    ]
    if not lines:
        words = "This network gives no probability that a class is in an image: there is nothing to calibrate."
        return "".join([*parts, f'<p class="note">{words}</p>'])
    alt = "Calibration: how often a thing is true over how probable the network says it is. " + ". ".join(
        map(_told, lines)
    )
    chart = line_chart(lines, "said, % (upwards: true, %)", alt, square=True)
    words = "On the diagonal a probability is to be believed; below it the network is too sure."
    tables = "".join(
        bins_table(f"How probable it is said to be that {name}, and how often it is true.", outcome, rows)
        for name, outcome, rows in bins.values()
        if rows
    )
    details = f"<details><summary>The same as tables</summary>{tables}</details>"
    parts.append(
        f'<div class="charts"><div><h3>Calibration</h3>{chart}<p class="note">{words}</p>{details}</div></div>'
    )
    return "".join(parts)


def _images(facts: Facts, shown: Shown) -> str:
    return "".join(_image(name, facts.image_iou[name], panels) for name, panels in shown.items())


def _image(name: str, iou: float, panels: Sequence[Panel]) -> str:
    shown = "".join(panel.html() for panel in panels)
    return f'<h3>{escape(name)}: IoU {percent(iou, 0)} %</h3><div class="panels">{shown}</div>'
