"""Line charts as SVG, without matplotlib; their colours follow the page, in light and in dark mode."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 10, 36  # margins
MOST_POINTS = 300


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
        name: in the legend.
        points: (x, y).
        marks: whether each point is marked.
    """

    name: str
    points: Sequence[tuple[float, float]]
    marks: bool = False


def line_chart(
    lines: Sequence[Line], x_label: str, alt: str, *, square: bool = False, breaks: Sequence[float] = ()
) -> str:
    """A chart with a legend below.

    Args:
        lines: at least one, with points.
        x_label: label of the horizontal axis.
        alt: alt text.
        square: both axes go from 0 to 100, with the diagonal.
        breaks: x positions of vertical lines.
    """
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    x_ticks, y_ticks = ticks(min(0, *xs), max(xs)), ticks(min(0, *ys), max(ys))
    right = max(xs)  # the x axis ends with the data
    if square:
        x_ticks = y_ticks = ticks(0, 100)
        right = 100
    x_scale = (WIDTH - LEFT - RIGHT) / ((right - x_ticks[0]) or 1)
    y_scale = (HEIGHT - TOP - BOTTOM) / (y_ticks[-1] - y_ticks[0])

    def place(x: float, y: float) -> tuple[float, float]:
        return round(LEFT + (x - x_ticks[0]) * x_scale, 1), round(HEIGHT - BOTTOM - (y - y_ticks[0]) * y_scale, 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">']
    for y in y_ticks:
        height = place(x_ticks[0], y)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {height}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{height + 4}" text-anchor="end">{y:g}</text>')
    for x in (tick for tick in x_ticks if tick <= right):
        left = place(x, 0)[0]
        parts.append(f'<text x="{left}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_short(x)}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    if square:
        parts.append(f'<path class="grid" d="M{_path([place(0, 0), place(100, 100)])}"/>')
    for x in breaks:
        parts.append(f'<path class="break" d="M{_path([place(x, y_ticks[0]), place(x, y_ticks[-1])])}"/>')
    for number, line in enumerate(lines):
        points = [place(*point) for point in _thinned(line.points)]
        parts.append(f'<path class="line line{number}" d="M{_path(points)}"/>')
        if line.marks:
            parts += [f'<circle class="mark{number}" cx="{x}" cy="{y}" r="3"/>' for x, y in points]
    keys = "".join(
        '<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
        f'<path class="line line{number}" d="M0 4H24"/></svg>{escape(line.name)}</li>'
        for number, line in enumerate(lines)
    )
    return "".join(parts) + f'</svg><ul class="keys">{keys}</ul>'


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Evenly spaced round numbers that enclose a range."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= most)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def smoothed(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Running mean of y over `width` points, each at the x of its last point."""
    means = np.convolve([y for _, y in points], np.ones(width) / width, mode="valid")
    return [(x, mean) for (x, _), mean in zip(points[width - 1 :], means.tolist(), strict=True)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = -(-len(points) // MOST_POINTS)
    return points if every == 1 else [*points[:-1:every], points[-1]]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x} {y}" for x, y in points)


def _short(number: float) -> str:
    return f"{number / 1000:g}k" if number >= 10_000 else f"{number:g}"
