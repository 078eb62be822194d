"""Figures of results: bars by class, learning curves, predictions next to the ground truth, the palette.

Lines use the Okabe–Ito colours, which colour-blind readers can tell apart, and differ in dash as well.
"""

import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recseg.classes import VOC_CLASSES, VOID
from recseg.classes import palette as voc_palette
from recseg.errors import RecsegError
from recseg.inference.prediction import ImageLike, as_image
from recseg.viz.plotting import FAINT, INK, new_figure, to_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

# Okabe & Ito, "Color Universal Design", 2008 (without yellow, which is too pale on white).
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", "-.", ":")
MISTAKES = {"missed": "#d55e00", "invented": "#0072b2", "another class": "#000000", "void": "#b8bec6"}
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # keeps a number readable over a line


def class_bars(scores: Mapping[str, Mapping[str, float | None]], *, names: Sequence[str] = VOC_CLASSES) -> "Figure":
    """Bars of per-class scores, one panel per score, classes in label order.

    Args:
        scores: score name → class name → value in [0, 1]; None or NaN for a class without one.
        names: classes by label, which sets the colours of the bars; classes in no panel are left out.
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
            axes.text(value + 0.012, row, f"{100 * value:.0f}", va="center", bbox=BEHIND)
        mean = float(np.mean(found)) if found else float("nan")
        axes.axvline(mean, color=INK, linewidth=1, linestyle="--")
        axes.set_title(f"{score}, %  (mean {100 * mean:.1f}, dashed)", loc="left")
        most = 1.0 if max(found, default=1) > 0.5 else math.ceil(5 * max(found)) / 5  # small values fill the panel, too
        ticks = np.linspace(0, most, 5)
        axes.set_xlim(0, 1.08 * most)
        axes.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first label on top
        axes.tick_params(length=0)
    return figure


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a JSON-lines log; a truncated last line is left out."""
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
    logs: Mapping[str, Path | str], y: str = "loss", x: str = "step", *, smooth: int = 1, axes: "Axes | None" = None
) -> "Figure":
    """One line per run: value `y` of its JSON-lines log over `x`.

    Args:
        logs: name of a run → path of its log. Rows without both keys are skipped.
        smooth: width of a running mean, in rows; 1 draws the values as they are.
        axes: axes to draw on instead of a new figure.
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
        style: dict[str, Any] = {"color": LINES[number % len(LINES)], "linestyle": DASHES[number % len(DASHES)]}
        canvas.plot(points[width - 1 :, 0], values, linewidth=1.8, label=name, **style)
    canvas.set_xlabel(x)
    canvas.set_ylabel(y)
    canvas.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    canvas.legend()
    return figure


def palette_legend(names: Sequence[str] = VOC_CLASSES, palette: NDArray[np.uint8] | None = None) -> "Figure":
    """Colour, number and name of each label, void last.

    Args:
        names: names of the labels; empty ones, as of a missing background, are left out.
        palette: (256, 3) colours, such as those of a `recseg.classes.Legend`; VOC's by default.
    """
    entries = [(label, name) for label, name in [*enumerate(names), (VOID, "void")] if name]
    columns, rows = 6, -(-len(entries) // 6)
    figure = new_figure(1.55 * columns, 0.34 * rows)
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    colours = (voc_palette() if palette is None else palette) / 255
    for position, (label, name) in enumerate(entries):
        column, row = divmod(position, rows)
        patch: dict[str, Any] = {"facecolor": tuple(colours[label]), "edgecolor": FAINT, "linewidth": 0.6}
        axes.add_patch(Rectangle((column, row + 0.2), 0.16, 0.6, **patch))
        axes.text(column + 0.2, row + 0.52, f"{label} {name}", va="center")
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    return figure


def comparison(rows: Sequence[tuple[str, ImageLike, NDArray[np.uint8], NDArray[np.uint8]]]) -> "Figure":
    """A row per image: the image, the ground truth, the answer, and the pixels where the two differ.

    A pixel is *missed* if the answer is background and the ground truth is not, *invented* if it is the other way
    round, and *another class* if the two are different classes. Void is grey: it is not scored.

    Args:
        rows: title, image, ground truth and answer of each row; both are label maps (H, W) of the image's size.
    """
    from matplotlib.patches import Patch

    figure = new_figure(8.4, 2.15 * len(rows) + 0.35)
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for line, (title, image, truth, answer) in zip(grid, rows, strict=True):
        rgb = as_image(image)
        solid = [np.where((labels == VOID)[..., None], 224, voc_palette()[labels]) for labels in (truth, answer)]
        panels = (np.asarray(rgb), *solid, mistakes(truth, answer))
        for axes, name, panel in zip(line, (title, "ground truth", "answer", "mistakes"), panels, strict=True):
            axes.imshow(panel.astype(np.uint8), interpolation="nearest")
            axes.set_title(name)
            axes.set_axis_off()
    patches = [Patch(facecolor=colour, label=name) for name, colour in MISTAKES.items()]
    figure.legend(handles=patches, loc="outside lower right", ncols=len(patches))
    return figure


def mistakes(truth: NDArray[np.uint8], answer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) image of the pixels where two label maps (H, W) differ, in the colours of `MISTAKES`."""
    if truth.shape != answer.shape:
        raise RecsegError(f"ground truth {truth.shape} and answer {answer.shape}: expected label maps of one size")
    differs, void = truth != answer, truth == VOID
    kinds = {
        "missed": differs & (answer == 0),
        "invented": differs & (truth == 0),
        "another class": differs & (truth > 0) & (answer > 0),
        "void": void,  # last, over the others: void is not scored
    }
    canvas = np.where((truth > 0)[..., None], 236, 255).repeat(3, axis=2).astype(np.uint8)  # if correct: pale, or white
    for name, where in kinds.items():
        canvas[where] = [int(MISTAKES[name][digit : digit + 2], 16) for digit in (1, 3, 5)]
    return canvas


def confusion_figure(confusion: Sequence[Sequence[int]], names: Sequence[str] = VOC_CLASSES) -> "Figure":
    """A confusion matrix as squares: each row is a true class, shaded by the share of its pixels.

    Args:
        confusion: (C, C) counts, rows true and columns predicted, as `VOCMetric.compute` gives them.
        names: names of the C classes.
    """
    counts = np.asarray(confusion, dtype=float)
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 0.27 * len(names) + 1.6
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    # Square root: otherwise a share of 1 % would be invisible.
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=[0, 0.1**0.5, 0.5**0.5, 1])
    bar.ax.set_yticklabels(["0 %", "10 %", "50 %", "100 %"])
    bar.set_label("share of the true class's pixels")
    return figure


def flip_book(pages: Sequence[tuple[str, "Figure | Image.Image", str]]) -> str:
    """Images to page through, as HTML, which works in notebooks and on static pages without a kernel or script.

    Radio buttons, which also work with the arrow keys, select the page; CSS shows it.

    Args:
        pages: label of the button, image and alt text of each page.
    """
    images = [to_html(image, alt) for _, image, alt in pages]
    # Unique, since one page may have several flip books; a digest is the same at every build.
    book = "book-" + hashlib.sha256("".join(images).encode()).hexdigest()[:12]
    buttons, rules, sheets = [], [], []
    for number, ((label, *_), image) in enumerate(zip(pages, images, strict=True)):
        key = f"{book}-{number}"
        checked = " checked" if number == 0 else ""
        buttons.append(
            f'<input type="radio" name="{book}" id="{key}"{checked}>'
            f'<label for="{key}" style="margin:0 1em 0 .3em">{html.escape(label)}</label>'
        )
        rules.append(f"#{key}:checked~.{key}{{display:block}}")
        sheets.append(f'<div class="{book} {key}" style="margin-top:.6em">{image}</div>')
    style = f"<style>.{book}{{display:none}}{''.join(rules)}</style>"
    return f'<div role="group" aria-label="pages">{style}{"".join(buttons)}{"".join(sheets)}</div>'
