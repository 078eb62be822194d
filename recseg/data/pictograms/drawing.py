"""Draws one silhouette: from a line of text to polygons, to a distorted and rotated raster, to textured pixels.

A silhouette (see `shapes`) is a list of strokes and areas in a box of about 100×100 units, y downwards;
operations are separated by `;` and painted in order, each over those before:

    P x,y x,y …          polygon                     C x,y x,y …          smooth closed curve through the points
    E x,y rx,ry [deg]    ellipse                     O x,y rx,ry w        ring (a wheel): an ellipse with a hole
    S w x,y x,y …        straight strokes, width w   Q w x,y x,y …        one smooth stroke
    R x,y x,y [r]        rectangle, corners cut by r D r n x,y x,y        row of n discs
    W n gap x,y x,y      row of n windows

Prefixes: `-` cuts a hole, `d` paints darker, `l` paints lighter; all but holes belong to the object.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

OUTSIDE, PLAIN, DARK, LIGHT, INK = range(5)  # the tones of a raster
_TONES = {"-": OUTSIDE, "d": DARK, "l": LIGHT}
_SMOOTHNESS = 5  # polygon vertices per given point of a curve

Points = NDArray[np.float64]
Raster = NDArray[np.uint8]


class Silhouette(NamedTuple):
    """Polygons in painting order: `points[ends[k - 1]:ends[k]]` is painted in `tones[k]`."""

    points: Points  # (N, 2), centred on the middle of the bounding box
    ends: tuple[int, ...]
    tones: tuple[int, ...]
    area: float  # covered area in square units: objects of all classes get the same distribution of sizes


class Layer(NamedTuple):
    """A silhouette on the canvas: `tones[y - top, x - left]` for the part of the canvas that it covers."""

    left: int
    top: int
    tones: Raster  # (h, w) of OUTSIDE, PLAIN, DARK, LIGHT


def _smooth(points: Points, closed: bool) -> Points:
    """Catmull-Rom spline through the points, which keeps hand-written coordinate lists short."""
    before, after = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    padded = np.concatenate([before, points, after])
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = (np.arange(_SMOOTHNESS) / _SMOOTHNESS)[None, :, None]
    curve = b + t * (c - a) / 2 + t**2 * (2 * a - 5 * b + 4 * c - d) / 2 + t**3 * (3 * b - a - 3 * c + d) / 2
    curve = curve.reshape(-1, 2)  # (segments, _SMOOTHNESS, 2) -> (M, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def _ellipse(centre: Points, rx: float, ry: float, degrees: float = 0.0) -> Points:
    count = 10 if max(rx, ry) < 5 else 24
    angle = np.arange(count) * (2 * np.pi / count)
    x, y, turn = rx * np.cos(angle), ry * np.sin(angle), np.deg2rad(degrees)
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    return np.asarray(centre + turned)


def _rectangle(corner: Points, opposite: Points, cut: float = 0.0) -> Points:
    (x0, y0), (x1, y1) = corner, opposite
    r = cut
    if r == 0:
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    h = 0.3 * r  # two cuts per corner look round at these sizes
    outline = [(x0 + r, y0), (x1 - r, y0), (x1 - h, y0 + h), (x1, y0 + r), (x1, y1 - r), (x1 - h, y1 - h)]
    outline += [(x1 - r, y1), (x0 + r, y1), (x0 + h, y1 - h), (x0, y1 - r), (x0, y0 + r), (x0 + h, y0 + h)]
    return np.array(outline)


def _strokes(points: Points, width: float) -> list[Points]:
    pieces = [_ellipse(point, width / 2, width / 2) for point in points]  # round ends and joints
    for start, stop in zip(points[:-1], points[1:], strict=True):
        along = (stop - start) / max(float(np.hypot(*(stop - start))), 1e-9) * width / 2
        side = np.array([-along[1], along[0]])
        pieces.append(np.stack([start + side, stop + side, stop - side, start - side]))
    return pieces


def _ribbon(points: Points, width: float) -> list[Points]:
    curve = _smooth(points, closed=False)
    along = np.gradient(curve, axis=0)
    along *= width / 2 / np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1)
    ends = [_ellipse(point, width / 2, width / 2) for point in (curve[0], curve[-1])]
    # One quad per segment: a single polygon around the ribbon would cancel itself where the curve is tight.
    left, right = curve + side, curve - side
    return ends + [np.stack([left[k], left[k + 1], right[k + 1], right[k]]) for k in range(len(curve) - 1)]


def _polygons(operation: str, words: list[str]) -> list[tuple[Points, int | None]]:
    """Polygons of one operation; a tone of None means that of the operation's prefix."""
    numbers = [float(word) for word in words if "," not in word]
    points = np.array([[float(v) for v in word.split(",")] for word in words if "," in word])
    shapes: list[Points]
    match operation:
        case "P":
            shapes = [points]
        case "C":
            shapes = [_smooth(points, closed=True)]
        case "E":
            shapes = [_ellipse(points[0], *points[1], *numbers)]
        case "R":
            shapes = [_rectangle(points[0], points[1], *numbers)]
        case "S":
            shapes = _strokes(points, numbers[0])
        case "Q":
            shapes = _ribbon(points, numbers[0])
        case "D":
            share = np.linspace(0, 1, int(numbers[1]))[:, None]
            shapes = [_ellipse(c, numbers[0], numbers[0]) for c in points[0] + share * (points[1] - points[0])]
        case "W":
            count, gap = int(numbers[0]), numbers[1]
            (x0, y0), (x1, y1) = points
            width = (x1 - x0 - gap * (count - 1)) / count
            lefts = [x0 + k * (width + gap) for k in range(count)]
            shapes = [_rectangle(np.array([x, y0]), np.array([x + width, y1])) for x in lefts]
        case "O":
            inner = points[1] - numbers[0]
            return [(_ellipse(points[0], *points[1]), None), (_ellipse(points[0], *inner), OUTSIDE)]
        case _:
            raise AssertionError(f"unknown operation {operation!r}")
    return [(shape, None) for shape in shapes]


@cache
def silhouette(text: str) -> Silhouette:
    """Parse a silhouette written in the language above."""
    shapes: list[Points] = []
    tones: list[int] = []
    for line in filter(None, (part.strip() for part in text.replace("\n", ";").split(";"))):
        first, *words = line.split()
        own_tone = _TONES.get(first[0], PLAIN)
        for polygon, tone in _polygons(first[-1], words):
            shapes.append(polygon)
            tones.append(own_tone if tone is None else tone)
    points = np.concatenate(shapes)
    ends = tuple(int(end) for end in np.cumsum([len(shape) for shape in shapes]))
    low, high = points.min(axis=0), points.max(axis=0)
    layer = rasterize(Silhouette(points - low, ends, tuple(tones), 0.0), points - low, 160)
    area = float(np.count_nonzero(layer.tones))
    return Silhouette(points - (low + high) / 2, ends, tuple(tones), area)


def bend(points: Points, rng: np.random.Generator, turn: float) -> Points:
    """Flip, stretch, wobble, tilt (perspective), shear and rotate by up to `turn` degrees: (N, 2) -> (N, 2) units."""
    flip = 1 if rng.random() < 0.5 else -1
    stretch, shear, wobble = rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12), rng.uniform(0.2, 0.8)
    angle = np.deg2rad(np.clip(rng.normal(0, turn / 2), -turn, turn))
    tilt = rng.uniform(-0.0022, 0.0022, size=2)  # at most ±11 % of size from the middle to an edge
    waves, phases = rng.uniform(-0.07, 0.07, size=(2, 2)), rng.uniform(0, 2 * np.pi, size=2)
    points = points * [flip * (1 + stretch), 1 - stretch]
    points = points + wobble * np.sin(points @ waves + phases)
    points = points / (1 + points @ tilt)[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin + shear * cos, cos + shear * sin]]))


def rasterize(shape: Silhouette, points: Points, canvas: int) -> Layer:
    """Paint polygons with vertices at `points` (canvas pixels), clipped to the canvas."""
    # Whole pixels: the last bits of a sine differ between processors, the nearest integer does not.
    corners = np.rint(points).astype(np.int64)
    # Even borders, so that the layer scales down to whole pixels of the image.
    left, top = np.clip(corners.min(axis=0), 0, canvas - 2) // 2 * 2
    right, bottom = (np.clip(corners.max(axis=0) + 1, 2, canvas) + 1) // 2 * 2
    mask = Image.new("L", (max(int(right - left), 2), max(int(bottom - top), 2)), OUTSIDE)
    draw = ImageDraw.Draw(mask)
    flat = (corners - (left, top)).ravel().tolist()
    start = 0
    for end, tone in zip(shape.ends, shape.tones, strict=True):
        draw.polygon(flat[2 * start : 2 * end], fill=tone)
        start = end
    return Layer(int(left), int(top), np.asarray(mask))


def texture(rng: np.random.Generator, width: int, height: int, unit: float, colours: NDArray[np.int64]) -> Raster:
    """A shaded pattern of two colours: (height, width, 3) uint8.

    Args:
        unit: pixels per 1/128 of the image side, so that patterns keep their scale at any resolution.
        colours: (2, 3) RGB.
    """
    kind = int(rng.integers(6))
    period, angle = rng.uniform(5, 17) * unit, rng.uniform(0, np.pi)
    # Fixed-point phases, 256 per period: integers give the same image on every machine.
    step_x, step_y = (
        int(np.rint(np.cos(angle) * 65536 / period)),
        int(np.rint(np.sin(angle) * 65536 / period)),
    )
    sharp = max(int(period), 1)  # edges about a pixel wide
    x, y = np.arange(width, dtype=np.int32)[None, :], np.arange(height, dtype=np.int32)[:, None]
    grid = rng.integers(0, 256, size=(9, 9), dtype=np.uint8)
    mix: Raster
    match kind:
        case 0:  # plain
            mix = np.zeros((height, width), dtype=np.uint8)
        case 1:  # stripes
            wave = np.abs(((x * step_x + y * step_y) >> 8 & 255) - 128) - 64
            mix = np.clip(wave * sharp + 128, 0, 255).astype(np.uint8)
        case 2:  # checks
            u = np.abs(((x * step_x + y * step_y) >> 8 & 255) - 128) - 64
            v = np.abs(((y * step_x - x * step_y) >> 8 & 255) - 128) - 64
            mix = np.clip((u * v * sharp >> 5) + 128, 0, 255).astype(np.uint8)
        case 3:  # dots
            u, v = ((x * step_x + y * step_y) >> 8 & 255) - 128, ((y * step_x - x * step_y) >> 8 & 255) - 128
            mix = np.clip(((5500 - u * u - v * v) * sharp >> 7) + 128, 0, 255).astype(np.uint8)
        case 4:  # cloudy noise
            mix = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
        case _:  # gradient
            mix = np.asarray(Image.fromarray(grid[:2, :2]).resize((width, height), Image.Resampling.BILINEAR))
    ramp = np.arange(256)[:, None]
    table = (colours[0] * (255 - ramp) + colours[1] * ramp) // 255
    # Light from one side: a gain in units of 1/128 that varies linearly over the area.
    light = rng.integers(-26, 27, size=2)
    gain = 128 + (light[0] * (2 * x - width)) // width + (light[1] * (2 * y - height)) // height
    lit = table.astype(np.uint16)[mix] * gain.astype(np.uint16)[..., None] >> 7
    return np.asarray(np.minimum(lit, 255), dtype=np.uint8)


def _rim(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels of a shape at most `width` rows or columns from its outside; edges cut off by the canvas have no rim."""
    deep = np.pad(inside, width, mode="edge")
    height, breadth = inside.shape
    deep = np.logical_and.reduce([deep[k : k + height] for k in range(2 * width + 1)])
    deep = np.logical_and.reduce([deep[:, k : k + breadth] for k in range(2 * width + 1)])
    return np.asarray(inside & ~deep)


def shade(pixels: Raster, tones: Raster, ink: int) -> tuple[Raster, Raster]:
    """Make the DARK and LIGHT parts of an object darker and lighter, and draw its outline in ink.

    Args:
        pixels: (h, w, 3) texture at the image's resolution.
        tones: (2h, 2w), supersampled.
        ink: width of the outline in supersampled pixels, inside the shape.

    Returns:
        The object, (h, w, 3), and its coverage of each pixel, (h, w), from 0 to 255.
    """
    tables = np.zeros((3, 256), dtype=np.uint8)
    tables[0, PLAIN:] = 255
    tables[1] = 128
    tables[1, [DARK, LIGHT, INK]] = 72, 104, 28
    tables[2, LIGHT] = 68
    drawn = Image.fromarray(np.where(_rim(tones != OUTSIDE, ink), np.uint8(INK), tones))
    cover, gain, lift = (np.asarray(drawn.point(table.tolist()).reduce(2)) for table in tables)
    shaded = (pixels * gain[..., None].astype(np.uint16) >> 7) + lift[..., None]
    return np.minimum(shaded, 255).astype(np.uint8), cover
