"""labelme's JSON, one file per image, read with the standard library: polygons, rectangles, circles, masks."""

import base64
import io
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recseg.data.annotations.export import (
    BOXES,
    Annotated,
    Export,
    Outline,
    Shape,
    entry,
    legend_of,
    load_json,
    split_of,
    walk,
)
from recseg.data.annotations.shapes import box, ellipse, placed
from recseg.errors import RecsegError
from recseg.files import read_lines

FAR = 1e9  # pixels
POLYGONS = ("polygon", "rotation", "oriented_rectangle")
FILLED = "rectangle: filled as drawn"


def read_labelme(source: Path) -> Export:
    """Read the JSON files of a folder; images are the files that they name, not the embedded copies (`imageData`).

    Classes in labelme's `labels.txt`, if the folder has one, come first in its order; others follow alphabetically.

    Raises:
        RecsegError: no such file, an invalid shape, nothing but boxes.
    """
    if not source.is_dir():
        raise RecsegError(f"{source}: expected a folder with labelme's JSON files")
    notes, images = Counter[str](), list[Annotated]()
    for file in walk(source):
        if file.suffix.lower() != ".json":
            continue
        data = load_json(file)
        if not isinstance(data, dict) or "shapes" not in data or "imagePath" not in data:
            notes["JSON of another tool: left out"] += 1
            continue
        size = (entry(data, "imageHeight", int, str(file)), entry(data, "imageWidth", int, str(file)))
        shapes = list[Shape]()
        for shape in entry(data, "shapes", list, str(file)):
            where = f"{file}: a shape"
            name, kind = entry(shape, "label", str, where).strip(), shape.get("shape_type") or "polygon"
            outline = _outline(shape, kind, size, f"{file}: {name}")
            if outline is None:
                notes[f"{kind}: left out"] += 1
                continue
            notes[FILLED] += kind == "rectangle"
            shapes.append(Shape(name, outline))
        # labelme on Windows writes backslashes; a file moved together with its image still names the old folder.
        name = entry(data, "imagePath", str, str(file)).replace("\\", "/")
        base = name.rpartition("/")[2]
        if not os.path.isfile(file.parent / os.path.normpath(name)) and os.path.isfile(file.parent / base):
            name = base
        split = split_of(*reversed(file.relative_to(source).parts[:-1]))
        images.append(Annotated(name, file, split, size, tuple(shapes)))
    if not images:
        raise RecsegError(f"{source}: holds no JSON of labelme (with shapes and imagePath)")
    used = [shape.name for image in images for shape in image.shapes]
    if 0 < notes[FILLED] == len(used):
        raise RecsegError(f"{source}: {BOXES}")
    listed = source / "labels.txt"
    classes = [*(read_lines(listed) if listed.is_file() else []), *sorted(set(used))]
    return Export(source, legend_of(dict.fromkeys(classes), source), images, notes)


def _outline(shape: Any, kind: str, size: tuple[int, int], where: str) -> Outline | None:
    """Polygons or an RLE; None for shapes without area."""
    points = entry(shape, "points", list, where)
    if not all(
        isinstance(point, list | tuple)
        and len(point) == 2
        and all(isinstance(value, int | float) and abs(value) < FAR for value in point)
        for point in points
    ):
        raise RecsegError(f"{where}: has the points {str(points)[:60]}, expected pairs of numbers")
    if kind in POLYGONS or (kind == "rectangle" and len(points) > 2):
        return [[value for point in points for value in point]]
    if kind in ("rectangle", "circle", "mask") and len(points) != 2:
        raise RecsegError(f"{where}: is a {kind} of {len(points)} points, expected 2")
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return [box(left, top, right, bottom)]
    if kind == "circle":
        (x, y), rim = points
        return [ellipse(x, y, radius := math.dist((x, y), rim), radius)]
    return _mask(shape, points, size, where) if kind == "mask" else None


def _mask(shape: Any, points: list[list[float]], size: tuple[int, int], where: str) -> Outline:
    """The RLE of a PNG whose upper left pixel is at the first point."""
    left, top = (round(value) for value in points[0])
    text = entry(shape, "mask", str, where)
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            part = np.asarray(image.convert("L")) > 0  # (h, w)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecsegError(f"{where}: has a mask that is not a PNG") from error
    return placed(part, left, top, size, where)
