"""Outlines to label maps: the shapes of all tools are filled here, by the same rule and in the same order.

Polygons are filled by pycocotools, as in COCO's own tools: a pixel counts if its centre is inside. (Pillow draws the
outline as well, half a pixel more on each side.) Its RLE decoder is not used, since it returns uninitialised memory if
runs are missing.

Where shapes overlap, the smaller one is in front: shapes are painted by increasing `z`, then by decreasing area, then
in the order of the file.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recseg.classes import BACKGROUND, VOID, Legend
from recseg.data.annotations.export import Outline, Shape, label_of
from recseg.data.images import MOST_PIXELS, read_labels
from recseg.errors import RecsegError

Mask: TypeAlias = NDArray[np.bool_]
# A black-and-white file for one class.
BINARY = Legend(("background", "mask"), (0, 1), ((0, 0, 0), (255, 255, 255)))


def paint(shapes: Sequence[Shape], height: int, width: int, legend: Legend) -> tuple[NDArray[np.uint8], list[int], int]:
    """Paint shapes on background: a label map `(H, W)`.

    Returns:
        The label map, the area of each shape in pixels, and how many pixels belong to shapes of two classes.

    Raises:
        RecsegError: a shape that does not fit this image.
    """
    packed, areas = list[NDArray[np.uint8]](), list[int]()  # 1 bit per pixel: an image may have a hundred shapes
    for shape in shapes:
        mask = fill(shape.outline, height, width)
        packed.append(np.packbits(mask))
        areas.append(int(mask.sum()))
    labels = np.full((height, width), BACKGROUND, np.uint8)
    shared = np.zeros((height, width), bool)
    for index in sorted(range(len(shapes)), key=lambda index: (shapes[index].z, -areas[index])):
        label = label_of(shapes[index].name, legend)
        mask = np.unpackbits(packed[index], count=height * width).reshape(height, width).astype(bool)
        if label not in (BACKGROUND, VOID):
            shared |= mask & (labels != BACKGROUND) & (labels != VOID) & (labels != label)
        labels[mask] = label
    return labels, areas, int(shared.sum())


def fill(outline: Outline, height: int, width: int) -> Mask:
    """The pixels `(H, W)` inside an outline.

    Raises:
        RecsegError: an outline that does not fit this image.
    """
    if isinstance(outline, Path):
        values = read_labels(outline, BINARY)  # (H, W)
        if values.shape != (height, width):
            raise RecsegError(f"{outline}: is {values.shape[1]}×{values.shape[0]} pixels, its image {width}×{height}")
        inside: Mask = values != 0
        return inside
    if isinstance(outline, dict):
        return _runs(outline, height, width)
    mask = np.zeros((height, width), bool)
    for points in outline:
        _check_points(points, height, width)
        if len(points) >= 6:  # pycocotools reads four numbers as a box; two points have no area
            coco = pycocotools()
            mask |= coco.decode(coco.frPyObjects([points], height, width))[..., 0].astype(bool)  # (H, W, 1) -> (H, W)
    return mask


def pycocotools() -> Any:
    """`pycocotools.mask`, which is an optional dependency."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise RecsegError('pycocotools is not installed: pip install "recseg[import]"') from error
    return mask


def encode(mask: Mask) -> dict[str, Any]:
    """A mask `(H, W)` as COCO's compressed RLE."""
    found: dict[str, Any] = pycocotools().encode(np.asfortranarray(mask.astype(np.uint8)))
    return found


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A rectangle as a polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def ellipse(x: float, y: float, across: float, down: float) -> list[float]:
    """A polygon of 128 corners: centre and half axes of an ellipse."""
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    corners: list[float] = np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1).ravel().tolist()
    return corners


def turned(points: list[float], x: float, y: float, degrees: float) -> list[float]:
    """A polygon rotated clockwise around a centre (x, y)."""
    angle = math.radians(degrees)
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = np.reshape(points, (-1, 2)) - (x, y)  # (N, 2)
    moved: list[float] = (corners @ matrix + (x, y)).ravel().tolist()
    return moved


def placed(part: Mask, left: int, top: int, size: tuple[int, int], where: str) -> dict[str, Any]:
    """The RLE of a mask `(h, w)` whose upper left pixel is at (left, top) of an image of `size` (H, W)."""
    height, width = part.shape
    inside = min(left, top) >= 0 and left + width <= size[1] and top + height <= size[0]
    if not inside or size[0] * size[1] > MOST_PIXELS:
        raise RecsegError(
            f"{where}: has a mask of {width}×{height} at ({left}, {top}), outside its image of {size[1]}×{size[0]}"
        )
    whole = np.zeros(size, bool)
    whole[top : top + height, left : left + width] = part
    return encode(whole)


def _check_points(points: Any, height: int, width: int) -> None:
    if not isinstance(points, list | tuple) or len(points) % 2:
        raise RecsegError(f"has a polygon {str(points)[:60]}, expected a list of numbers x, y, x, y …")
    for number, value in enumerate(points):
        side = (width, height)[number % 2]
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise RecsegError(f"has a polygon with {str(value)[:60]!r}, expected a number of pixels")
        if not -side <= value <= 2 * side:  # tools let a shape cross the border, but not far
            raise RecsegError(f"has a polygon that reaches {value}, far outside its image of {width}×{height}")


def _runs(rle: dict[str, Any], height: int, width: int) -> Mask:
    """Decode COCO's RLE: lengths of alternating runs of 0 and 1, column by column; a list, or compressed to text."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise RecsegError(f"has an RLE of size {str(size)[:60]}, expected [{height}, {width}] as its image")
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if isinstance(counts, bytes):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or not all(type(run) is int and 0 <= run <= height * width for run in counts):
        raise RecsegError("has an RLE whose counts are not lengths of runs")
    if sum(counts) != height * width:
        raise RecsegError(f"has an RLE of {sum(counts):,} pixels, its image has {height * width:,}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)  # (W·H,)
    return flat.reshape(width, height).T  # (W·H,) -> (H, W)


def _unpacked(text: bytes) -> list[int]:
    """Decode COCO's compressed counts: five bits per character, lowest first; bit 5 is set if more follow. From the
    fourth run on, the number is the difference from the run two before.
    """
    counts, value, shift = list[int](), 0, 0
    for sign in text:
        bits = sign - 48
        if not 0 <= bits < 64 or shift > 60:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) * (bits >> 4 & 1)  # the highest bit is the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts if not shift else [-1]
