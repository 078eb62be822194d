"""The page of a report: one self-contained HTML file without scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any

from recseg.errors import counted
from recseg.evaluation.report import percent
from recseg.report.charts import Line, line_chart, smoothed
from recseg.report.facts import Facts, objective_changes
from recseg.report.hints import hints
from recseg.report.tables import class_table, confusion_table, count_table, facts_table, share_of_largest

# Nothing is fetched or executed, whatever the name of a class or a file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CARDS = {
    "miou": ("mIoU", "mean overlap of predicted and true pixels of a class"),
    "label_set_f1": ("label-set F1", "are the right classes named?"),
    "count_accuracy": ("count accuracy", "images in which the right number of classes is named"),
}
VALIDATION = {"val_miou": "mIoU", "val_label_set_f1": "label-set F1", "val_count_accuracy": "count accuracy"}


def page(
    title: str, facts: Facts, shown: Mapping[str, str], worst: int, origin: Mapping[str, Mapping[str, Any]]
) -> str:
    """The page.

    Args:
        title: what was scored on what.
        facts: the numbers to show.
        shown: image id → its figures as HTML; the worst images first, then the best.
        worst: how many of them are the worst.
        origin: tables of settings, by caption.
    """
    images = [
        f'<h3>{escape(name)}: IoU {percent(facts.image_iou[name], 0)} %</h3><div class="panels">{figures}</div>'
        for name, figures in shown.items()
    ]
    sections = {
        "Summary": _summary(facts),
        "What stands out": _hints(facts),
        "Training": _training(facts),
        "Classes": class_table(facts),
        "Confusion": confusion_table(facts),
        "Naming": _naming(facts),
        "The worst images": "".join(images[:worst]),
        "The best images": "".join(images[worst:]),
        "How it was made": "".join(facts_table(caption, dict(values)) for caption, values in origin.items()),
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
    cards = ""
    for key, (name, words) in CARDS.items():
        value, low, high = map(percent, facts.intervals[key])
        cards += f"<li>{name}<b>{value} %</b>{low} … {high}<br>{words}</li>"
    accuracy = percent(facts.scores["pixel_accuracy"])
    return (
        f'<ul class="cards">{cards}<li>pixel accuracy<b>{accuracy} %</b>pixels with the right label</li></ul>'
        f'<p class="note">Of {counted(len(facts.images), "image")}. Below a score is its 95 % bootstrap '
        "interval over images. Predicting the most frequent label everywhere would give an mIoU of "
        f"{percent(share_of_largest(facts.confusion))} %. mIoU is the mean over the classes that occur in the ground "
        "truth.</p>"
    )


def _hints(facts: Facts) -> str:
    found = hints(facts)
    if not found:
        return "<p>Nothing stands out in these numbers: look at the worst images.</p>"
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
        return "<p>No curves: there is no training log next to these weights.</p>"
    note = ""
    if changes:
        steps = ", ".join(f"{step:,}" for step in changes)
        words = f"At step {steps} the terms of the loss change: values before and after are not comparable."
        note = f'<p class="note">{words}</p>'
    return f'<div class="charts">{"".join(charts)}</div>{note}'


def _line(name: str, log: Sequence[Mapping[str, Any]], key: str, factor: float = 1, marks: bool = False) -> Line:
    points = [(float(row["step"]), factor * row[key]) for row in log if row.get(key) is not None and "step" in row]
    points = [(x, y) for x, y in points if isfinite(y)]
    if key == "loss" and points:
        points = smoothed(points, max(1, len(points) // 40))
    return Line(name, points, marks)


def _told(line: Line) -> str:
    (first, begin), (last, end) = line.points[0], line.points[-1]
    return f"{line.name}: {begin:.3g} at {first:g}, {end:.3g} at {last:g}"


def _naming(facts: Facts) -> str:
    table = count_table(facts)
    bins = {
        "a class is present": ("present", facts.scores["class_calibration"]),
        "nothing is left": ("ended", facts.scores["stop_calibration"]),
    }
    lines = [
        Line(name, [(100 * row["probability"], 100 * row[outcome]) for row in rows], marks=True)
        for name, (outcome, rows) in bins.items()
        if rows
    ]
    if not lines:
        words = "This network gives no probability that a class is in an image, so there is no calibration."
        return f'{table}<p class="note">{words}</p>'
    alt = "Calibration: how often a statement is true, by the probability that the network gives it. "
    chart = line_chart(lines, "predicted, % (vertical: observed, %)", alt + ". ".join(map(_told, lines)), square=True)
    words = "On the diagonal, probabilities are calibrated; below it, the network is overconfident."
    return f'{table}<div class="charts"><div><h3>Calibration</h3>{chart}<p class="note">{words}</p></div></div>'
