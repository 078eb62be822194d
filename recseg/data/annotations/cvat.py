"""CVAT's XML "for images 1.1", read with the standard library: polygons, masks, ellipses, boxes, rotated or not.

A file with a document type declaration is refused before its entities are expanded: CVAT writes none, and a few lines
of entities could expand to gigabytes or read other files.
"""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import ImageColor

from recseg.classes import Colour
from recseg.data.annotations.export import BOXES, Annotated, Export, Outline, Shape, legend_of, split_of, walk
from recseg.data.annotations.shapes import box, ellipse, placed, turned
from recseg.errors import RecsegError

FILLED = "box: filled as drawn"


class _NoEntities(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        raise RecsegError("declares a document type, which CVAT does not")


def read_cvat(source: Path) -> Export:
    """Read a file, or all XML files of a folder.

    Raises:
        RecsegError: no such file, tracks of a video, an invalid shape, nothing but boxes.
    """
    files = [source] if source.is_file() else [file for file in walk(source) if file.suffix.lower() == ".xml"]
    if not files:
        raise RecsegError(f"{source}: holds no XML of CVAT")
    notes, classes, images = Counter[str](), dict[str, Colour | None](), list[Annotated]()
    for file in files:
        tree = _parsed(file)
        if tree.find("track") is not None:
            raise RecsegError(f"{file}: holds tracks of a video; export it from CVAT as 'CVAT for images 1.1'")
        for label in tree.iterfind(".//labels/label"):
            if label.findtext("type") != "skeleton" and label.find("parent") is None:
                classes.setdefault((label.findtext("name") or "").strip(), _colour(label.findtext("color")))
        for image in tree.iterfind("image"):
            name = image.get("name", "")
            size = (int(_number(image, "height", file)), int(_number(image, "width", file)))
            shapes = list[Shape]()
            for element in image:
                where = f"{file}: {name}: {element.tag} {element.get('label')!r}"
                outline = _outline(element, size, where)
                if outline is None:
                    notes[f"{element.tag}: left out"] += 1
                    continue
                notes[FILLED] += element.tag == "box"
                class_name = element.get("label", "").strip()
                classes.setdefault(class_name, None)
                shapes.append(Shape(class_name, outline, int(_number(element, "z_order", where, "0"))))
            images.append(Annotated(name, file, split_of(image.get("subset", "")), size, tuple(shapes)))
    if 0 < notes[FILLED] == sum(len(image.shapes) for image in images):
        raise RecsegError(f"{files[0]}: {BOXES}")
    root = source if source.is_dir() else source.parent
    return Export(root, legend_of(classes, files[0]), images, notes)


def _parsed(file: Path) -> ElementTree.Element:
    try:
        tree = ElementTree.parse(file, ElementTree.XMLParser(target=_NoEntities())).getroot()
    except RecsegError as error:
        raise RecsegError(f"{file}: {error}") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise RecsegError(f"{file}: cannot be read as XML ({getattr(error, 'strerror', None) or error})") from error
    if tree.tag != "annotations":
        raise RecsegError(f"{file}: begins with <{tree.tag}>, expected CVAT's <annotations>")
    return tree


def _colour(text: str | None) -> Colour | None:
    try:
        red, green, blue, *_ = ImageColor.getrgb((text or "").strip())
    except ValueError:
        return None
    return red, green, blue


def _number(element: ElementTree.Element, key: str, where: object, default: str = "") -> float:
    try:
        value = float(element.get(key, default))
        if not abs(value) < 1e9:  # nor a NaN
            raise ValueError
    except ValueError as error:
        raise RecsegError(f"{where}: has {key}={element.get(key)!r}, expected a number") from error
    return value


def _outline(element: ElementTree.Element, size: tuple[int, int], where: str) -> Outline | None:
    """Polygons or an RLE; None for shapes without area."""

    def numbers(*keys: str) -> list[float]:
        return [_number(element, key, where) for key in keys]

    turn = _number(element, "rotation", where, "0")
    if element.tag == "polygon":
        text = element.get("points", "").replace(";", ",").split(",")
        try:
            return [[float(value) for value in text]]
        except ValueError as error:
            raise RecsegError(f"{where}: has the points {element.get('points', '')[:60]!r}") from error
    if element.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        return [turned(box(left, top, right, bottom), (left + right) / 2, (top + bottom) / 2, turn)]
    if element.tag == "ellipse":
        x, y, across, down = numbers("cx", "cy", "rx", "ry")
        return [turned(ellipse(x, y, across, down), x, y, turn)]
    if element.tag == "mask":  # lengths of alternating runs of 0 and 1, row by row, in a part of the image
        left, top, width, height = map(int, numbers("left", "top", "width", "height"))
        try:
            runs = [int(run) for run in element.get("rle", "").split(",")]
        except ValueError:
            runs = []
        fits = 0 < width <= size[1] and 0 < height <= size[0]
        if not fits or min(runs, default=-1) < 0 or sum(runs) != width * height:
            raise RecsegError(f"{where}: has an rle that does not fill its {width}×{height} pixels")
        part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)  # (h·w,) -> (h, w)
        return placed(part, left, top, size, where)
    return None
