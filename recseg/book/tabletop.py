"""A drawn data set of objects on a table, exported as annotation tools do, with classes that are not VOC's.

Objects are drawn from the polygons that an annotator would click. Chapter 11 of the book imports the export.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Points = NDArray[np.float64]  # (N, 2) x and y

FINE = 4  # supersampling: canvas pixels per image pixel and side
UNCLEAR = "ignore"  # the annotators' name for a region in which nothing can be recognised
# With gaps, as in a tool where some classes were deleted.
CATEGORIES = {"mug": 1, "pencil": 2, "leaf": 4, "coin": 7, "key": 8, UNCLEAR: 11}


class Thing(NamedTuple):
    """A class of objects: its probability on a table, its half length in pixels, its usual colour."""

    probability: float
    size: float
    colour: tuple[int, int, int]


THINGS = {
    "mug": Thing(0.45, 15, (70, 100, 175)),
    "pencil": Thing(0.45, 26, (215, 160, 50)),
    "leaf": Thing(0.45, 20, (80, 140, 70)),
    "coin": Thing(0.45, 9, (195, 190, 185)),
    "key": Thing(0.15, 18, (45, 40, 50)),
}


class Shape(NamedTuple):
    """An annotation: a class, and its polygons in image pixels."""

    name: str
    polygons: list[Points]


def table(seed: Sequence[int], *, width: int = 96, height: int = 72, shot: int = 0) -> tuple[Image.Image, list[Shape]]:
    """An image and the shapes in it, from back to front.

    Args:
        seed: of the objects and their positions.
        width: of the image in pixels. A larger table has more objects, of the same size.
        height: likewise.
        shot: number of the photograph; each shows the same objects in different light.
    """
    rng, light = np.random.default_rng(seed), np.random.default_rng([*seed, shot])
    wood = rng.normal((165, 135, 105), 14)
    canvas = Image.new("RGB", (FINE * width, FINE * height), _rgb(wood))
    draw, shapes = ImageDraw.Draw(canvas), list[Shape]()
    for y in range(4, height, 9):  # the grain
        draw.line((0, FINE * y, FINE * width, FINE * (y + rng.normal(0, 3))), _rgb(0.92 * wood), width=3)
    tables = max(1, round(width * height / (96 * 72)))
    names = [name for _ in range(tables) for name, thing in THINGS.items() if rng.random() < thing.probability]
    for name in names or ["mug"]:
        paint = np.array(THINGS[name].colour) + rng.normal(0, 20, 3)
        where = rng.uniform((10, 10), (width - 10, height - 10))
        size, angle = THINGS[name].size * rng.uniform(0.85, 1.2), rng.uniform(0, 2 * math.pi)
        turn = size * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        shapes.append(Shape(name, [part @ turn + where for part in OUTLINES[name]]))
        for polygon in shapes[-1].polygons:
            draw.polygon([*map(tuple, FINE * polygon)], _rgb(paint), _rgb(0.7 * paint))
    if rng.random() < 0.15:  # glare
        left, top = rng.uniform((0, 0), (width - 20, height - 16))
        shapes.append(Shape(UNCLEAR, [_box(left, top, left + 18, top + 14)]))
        draw.polygon([*map(tuple, FINE * shapes[-1].polygons[0])], (250, 250, 245))
    small = canvas.resize((width, height), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.4))
    pixels = np.asarray(small) * light.uniform(0.9, 1.1) + light.normal(0, 5, (height, width, 3))  # (H, W, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), shapes


def write_export(folder: Path, tables: int, *, seed: int = 0, twice: int = 4) -> None:
    """Write `images/*.jpg` and `annotations.json`, as CVAT, Label Studio, Roboflow and others export for COCO.

    Args:
        folder: new.
        tables: number of tables.
        seed: of all tables.
        twice: every `twice`-th table is photographed twice and has two images, NUMBER_0 and NUMBER_1.
    """
    (folder / "images").mkdir(parents=True)
    shots = [(number, shot) for number in range(tables) for shot in range(1 + (number % twice == 0))]
    images, annotations = list[dict[str, object]](), list[dict[str, object]]()
    for identity, (number, shot) in enumerate(shots, 1):
        image, shapes = table((seed, number), shot=shot)
        name = f"table_{number:03}_{shot}.jpg"
        image.save(folder / "images" / name, quality=92)
        images.append({"id": identity, "file_name": name, "width": image.width, "height": image.height})
        for shape in shapes:
            polygons = [polygon.clip(0, image.size).round(2).ravel().tolist() for polygon in shape.polygons]
            annotations.append({
                "id": len(annotations) + 1, "image_id": identity, "category_id": CATEGORIES[shape.name],
                "segmentation": polygons, "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    export = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(export), encoding="utf-8")


def _rgb(colour: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = colour.clip(0, 255).astype(int).tolist()
    return red, green, blue


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _arc(radius: float, start: float, end: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Points on a circle about (x, y), between two angles in whole turns."""
    angles = 2 * math.pi * np.linspace(start, end, 24)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1) + (x, y)


# Seen from above, within about 1 of the centre.
OUTLINES: dict[str, list[Points]] = {
    "mug": [_arc(0.75, 0, 1), np.concatenate([_arc(0.42, 0.72, 1.28, 0.72), _arc(0.2, 1.22, 0.78, 0.76)])],
    "pencil": [np.array([(-1, -0.1), (0.75, -0.1), (1, 0), (0.75, 0.1), (-1, 0.1)])],
    "leaf": [np.concatenate([_arc(1.12, 0.6, 0.9, 0, 0.66), _arc(1.12, 0.1, 0.4, 0, -0.66)])],
    "coin": [_arc(0.9, 0, 1)],
    "key": [_arc(0.4, 0, 1, -0.6), _box(-0.25, -0.14, 1, 0.14), _box(0.5, 0.1, 0.7, 0.4), _box(0.8, 0.1, 1, 0.4)],
}
