"""Tables of a report as HTML, with captions and row and column headers; wide ones scroll."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from recseg.classes import BACKGROUND, Legend
from recseg.evaluation.report import percent
from recseg.report.facts import MOST_COUNTED, ClassRow, Facts

MOST_CONFUSED = 30  # largest matrix that is still readable


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column holds the row headers; cells are HTML."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(f'<tr><th scope="row">{first}</th>{"".join(rest)}</tr>' for first, *rest in map(_cells, rows))
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cells(row: Sequence[str]) -> list[str]:
    return [row[0], *(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row[1:])]


def named(legend: Legend, label: int) -> str:
    """A class's name beside its colour."""
    return f'<span class="swatch" style="background:rgb{legend.colours[label]}"></span>{escape(legend.names[label])}'


def class_table(facts: Facts) -> str:
    """Scores of each class, worst IoU first."""
    head = ["class", "IoU", "precision", "recall", "pixels", "images", "named in", "correctly"]
    if facts.training is not None:
        head.append(f"images in {escape(facts.trained_on or '')}")
    rows = sorted(facts.rows, key=lambda row: (row.iou is None, row.iou))
    return table(
        "Scores of each class, worst IoU first. IoU, precision and recall are over pixels, in %; pixels: the class's "
        "share of all scored pixels, in %.",
        head,
        [_class_row(facts, row) for row in rows],
        "numbers",
    )


def _class_row(facts: Facts, row: ClassRow) -> list[str]:
    bar = f'<td class="bar" style="--share:{percent(row.iou or 0)}%">{percent(row.iou)}</td>'
    shares = [percent(share) for share in (row.precision, row.recall, row.share)]
    naming = ["–", "–"] if row.label == BACKGROUND else [str(row.named), str(row.right)]
    cells = [named(facts.legend, row.label), bar, *shares, str(row.images), *naming]
    return cells if facts.training is None else [*cells, f"{facts.training.images[row.label]:,}"]


def confusion_table(facts: Facts) -> str:
    """Confusion matrix in whole percent; of many classes, those with the most wrong pixels."""
    labels = [row.label for row in facts.rows]
    wrong = facts.confusion.sum(axis=0) + facts.confusion.sum(axis=1) - 2 * facts.confusion.diagonal()
    few = sorted(sorted(labels, key=lambda label: -wrong[label])[:MOST_CONFUSED])
    left_out = f" Of {len(labels)} classes the {len(few)} with the most wrong pixels." if len(few) < len(labels) else ""
    shares = facts.confusion / facts.confusion.sum(axis=1, keepdims=True).clip(min=1)
    return table(
        "Predicted class (column) of the pixels of each class (row), in % of its pixels; blank: below half a percent."
        + left_out,
        ["true ↓ · predicted →", *(f"<span>{escape(facts.legend.names[label])}</span>" for label in few)],
        [
            [named(facts.legend, true), *(_shaded(shares[true, given], true == given) for given in few)]
            for true in few
            if facts.confusion[true].any()
        ],
        "matrix",
    )


def count_table(facts: Facts) -> str:
    """How many classes an image has, and how many are named."""
    used = np.flatnonzero(facts.counts.any(axis=0) | facts.counts.any(axis=1))
    numbers = range(used[0], used[-1] + 1)
    names = [f"{number} or more" if number == MOST_COUNTED else str(number) for number in numbers]
    shares = facts.counts / facts.counts.sum(axis=1, keepdims=True).clip(min=1)
    rows = [
        [name, *(_shaded(shares[true, given], true == given, str(facts.counts[true, given])) for given in numbers)]
        for true, name in zip(numbers, names, strict=True)
        if facts.counts[true].any()
    ]
    caption = "Images by number of classes present (row) and number of classes named (column)."
    return table(caption, ["classes ↓ · named →", *names], rows, "matrix")


def _shaded(share: float, right: bool, words: str | None = None) -> str:
    words = words if words is not None else f"{100 * share:.0f}"
    if words == "0":
        return "<td></td>"
    return f'<td class="{"right" if right else "wrong"}" style="--share:{share:.2f}">{words}</td>'


def facts_table(caption: str, values: dict[str, object]) -> str:
    """Names and values."""
    rows = [[escape(name), escape(str(value))] for name, value in values.items()]
    return table(caption, ["", ""], rows, "settings")


def share_of_largest(confusion: NDArray[np.int64]) -> float:
    """mIoU of predicting the most frequent label for every pixel."""
    true = confusion.sum(axis=1)
    return float(true.max() / true.sum() / np.count_nonzero(true))
