"""Pictograms: a synthetic segmentation data set, drawn from a seed, with VOC's labels, layout and statistics.

It needs no download. Every image is drawn: silhouettes of VOC's twenty classes with ink outlines, textured and
shaded, over paler textured backgrounds, with distractor shapes, occlusion and void outlines. Class frequencies, classes
per image and sizes follow VOC 2012; colour and texture have the same distribution for all classes and distractors, so
that only the shape identifies a class. `generate` draws one image, `recseg.data.pictograms` makes folders of them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from recseg.classes import BACKGROUND, VOC_CLASSES, VOID
from recseg.data.pictograms.drawing import (
    Layer,
    Raster,
    Silhouette,
    bend,
    rasterize,
    shade,
    silhouette,
    texture,
)
from recseg.data.pictograms.shapes_living import DISTRACTORS, SHAPES
from recseg.errors import RecsegError

VERSION = 3  # part of every seed: bump it whenever the same seed would give a different image

CLASSES_AN_IMAGE = (933, 383, 124, 21, 3)  # VOC 2012 train: images with 1, 2, … 5 classes
PERSON_SHARE = 3  # person is VOC's most frequent class, by about this factor
MINIMUM_PIXELS = 30  # of a class, at 128×128: fewer cannot be recognised
SUPERSAMPLING = 2
TURN = 15.0  # degrees

# Share of the image that a class covers: (cumulative probability, share). Chosen so that the quantiles of the label
# maps, after occlusion, cropping and void outlines, are close to VOC's, except the smallest: no shape fits in 0.4 %.
_AREA_QUANTILES = np.array(
    [(0, 0.012), (0.05, 0.02), (0.25, 0.066), (0.5, 0.17), (0.75, 0.37), (0.95, 0.64), (1, 0.72)]
)


class Placed(NamedTuple):
    """An object of the scene; `label` is BACKGROUND for a distractor."""

    label: int
    layer: Layer


def plan_classes(rng: np.random.Generator) -> list[int]:
    """The classes of one image, in random order."""
    counts = np.array(CLASSES_AN_IMAGE)
    count = 1 + int(np.searchsorted(np.cumsum(counts), rng.integers(counts.sum()), side="right"))
    person = VOC_CLASSES.index("person")
    urn = list(range(1, len(VOC_CLASSES))) + [person] * (PERSON_SHARE - 1)
    chosen: list[int] = []
    while len(chosen) < count:
        label = urn[int(rng.integers(len(urn)))]
        if label not in chosen:
            chosen.append(label)
    return chosen


def _fit(points: NDArray[np.float64], shape: Silhouette, area: float, limit: float) -> NDArray[np.float64]:
    """Scale to an area (share of the image), at most `limit` image sides long: (N, 2) in units of the image side."""
    extent = points.max(axis=0) - points.min(axis=0)
    scale = min(np.sqrt(area / shape.area), limit / extent.max())
    points = (points - (points.max(axis=0) + points.min(axis=0)) / 2) * scale
    return np.asarray(points)


def _place(
    rng: np.random.Generator, extent: NDArray[np.float64], taken: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Centre of a new object: the least covered of a few random places, or sometimes any, so that objects overlap."""
    free = 1 - extent
    overhang = np.where(rng.random(2) < 0.15, 0.2 * extent, 0.0)  # a few objects are cut off by the image border
    candidates = extent / 2 - overhang + rng.random((8, 2)) * (free + 2 * overhang)
    if rng.random() < 0.2 or not taken:
        return np.asarray(candidates[0])
    boxes = np.stack(taken)  # (n, 2, 2): low and high corner
    low = np.maximum(candidates[:, None] - extent / 2, boxes[None, :, 0])  # (8, n, 2)
    high = np.minimum(candidates[:, None] + extent / 2, boxes[None, :, 1])
    covered = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return np.asarray(candidates[int(np.argmin(covered))])


def _layout(rng: np.random.Generator, classes: list[int], canvas: int) -> list[Placed]:
    """Objects in painting order: distractors, large objects, small ones, then perhaps a distractor in front."""
    wanted: list[tuple[float, int]] = []
    for label in classes:
        share = float(np.interp(rng.random(), _AREA_QUANTILES[:, 0], _AREA_QUANTILES[:, 1]))
        instances = 1 + int(rng.random() < 0.25) + int(rng.random() < 0.08)
        instances = min(instances, 1 + int(share / 0.04))  # no crowds of tiny specks
        wanted += [(share / instances, label)] * instances
    total = sum(area for area, _ in wanted)
    crowding = min(1.0, 0.72 / total)
    wanted = sorted(((area * crowding, label) for area, label in wanted), reverse=True)
    clutter = [(float(rng.uniform(0.004, 0.05)), BACKGROUND) for _ in range(int(rng.integers(0, 4)))]
    in_front = int(len(clutter) > 0 and rng.random() < 0.15)
    placed: list[Placed] = []
    taken: list[NDArray[np.float64]] = []
    for area, label in clutter[in_front:] + wanted + clutter[:in_front]:
        variants = SHAPES[VOC_CLASSES[label]] if label else DISTRACTORS
        shape = silhouette(variants[int(rng.integers(len(variants)))])
        points = _fit(bend(shape.points, rng, TURN if label else 180.0), shape, area, 1.02)
        extent = points.max(axis=0) - points.min(axis=0)
        centre = _place(rng, extent, taken)
        if label:
            taken.append(np.stack([centre - extent / 2, centre + extent / 2]))
        placed.append(Placed(label, rasterize(shape, (points + centre) * canvas, canvas)))
    return placed


def grid_layout(rng: np.random.Generator, classes: list[int], canvas: int) -> list[Placed]:
    """One object of each class in its own grid cell: nothing is hidden, so this layout is always acceptable."""
    columns = 1 if len(classes) == 1 else 2 if len(classes) <= 4 else 3
    placed: list[Placed] = []
    for cell, label in enumerate(classes):
        variants = SHAPES[VOC_CLASSES[label]]
        shape = silhouette(variants[int(rng.integers(len(variants)))])
        points = _fit(bend(shape.points, rng, TURN), shape, 1.0, 0.94 / columns)
        centre = (np.array([cell % columns, cell // columns]) + 0.5) / columns
        placed.append(Placed(label, rasterize(shape, (points + centre) * canvas, canvas)))
    return placed


def label_map(placed: list[Placed], canvas: int) -> tuple[Raster, list[int]]:
    """Label map with void outlines at the image's size, and the number of visible pixels of each object."""
    objects = np.zeros((canvas, canvas), dtype=np.uint8)
    for number, item in enumerate(placed, start=1):
        layer, (height, width) = item.layer, item.layer.tones.shape
        window = objects[layer.top : layer.top + height, layer.left : layer.left + width]
        window[layer.tones > 0] = number if item.label else 0
    # A pixel is void where it and a ring of half a pixel around it (at 128×128) show more than one object.
    ring = round(canvas / 256)
    low = high = np.pad(objects, ring, mode="edge")
    for axis in (0, 1):  # erosion and dilation by a square, one axis after the other
        windows = [np.s_[k : k + canvas : SUPERSAMPLING] for k in range(SUPERSAMPLING + 2 * ring)]
        cuts = windows if axis == 0 else [(np.s_[:], window) for window in windows]
        low = np.minimum.reduce([low[cut] for cut in cuts])
        high = np.maximum.reduce([high[cut] for cut in cuts])
    names = np.array([BACKGROUND] + [item.label for item in placed], dtype=np.uint8)
    labels = np.where(low == high, names[low], np.uint8(VOID))
    visible = np.bincount(objects.ravel(), minlength=len(placed) + 1)[1:]
    return labels, [int(v) for v in visible]


def acceptable(classes: list[int], placed: list[Placed], labels: Raster, visible: list[int]) -> bool:
    """Whether every planned class is visible, with enough pixels and not mostly hidden."""
    pixels = np.bincount(labels.ravel(), minlength=256)
    for label in classes:
        if pixels[label] < MINIMUM_PIXELS * labels.size / 128**2:
            return False
    for item, count in zip(placed, visible, strict=True):
        if item.label and count < 0.45 * np.count_nonzero(item.layer.tones):
            return False
    return True


def _colours(rng: np.random.Generator, others: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Two colours of a texture, (2, 3) RGB, that stand out from those already used."""
    first = rng.integers(38, 222, size=(12, 3))
    second = np.clip(first + rng.integers(-48, 49, size=(12, 3)), 30, 230)
    if not others:
        return np.stack([first[0], second[0]])
    middle = (first + second) // 2
    distance = ((middle[:, None] - np.stack(others)) ** 2).sum(axis=2).min(axis=1)  # (12, others, 3) -> (12,)
    choice = int(np.argmax(np.minimum(distance, 100**2)))  # the first far enough, else the farthest
    return np.stack([first[choice], second[choice]])


def _pale_colours(rng: np.random.Generator) -> NDArray[np.int64]:
    """Two colours of a background, (2, 3) RGB: pale and close to each other, like distant objects."""
    first = rng.integers(95, 215) + rng.integers(-18, 19, size=3)
    return np.stack([first, first + rng.integers(-16, 17, size=3)])


def _paint(rng: np.random.Generator, placed: list[Placed], size: int) -> Raster:
    """Render textures, light and sensor noise: -> (size, size, 3) uint8."""
    unit = size / 128
    seen: list[NDArray[np.int64]] = []

    def fill(width: int, height: int, pale: bool = False) -> Raster:
        colours = _pale_colours(rng) if pale else _colours(rng, seen)
        seen.append(colours.sum(axis=0) // 2)
        return texture(rng, width, height, unit, colours)

    background = fill(size, size, pale=True)
    if rng.random() < 0.3:  # a horizon: the ground has a different texture from the sky or wall
        start = int(rng.uniform(0.4, 0.85) * size)
        background[start:] = fill(size, size - start, pale=True)
    image = Image.fromarray(background)
    for item in placed:
        layer, (height, width) = item.layer, item.layer.tones.shape
        pixels, cover = shade(fill(width // 2, height // 2), layer.tones, ink=round(4 * unit))
        image.paste(Image.fromarray(pixels), (layer.left // 2, layer.top // 2), Image.fromarray(cover))
    image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.05, 0.35)) * unit))
    strength = int(rng.integers(2, 8))
    noise = rng.integers(-strength, strength + 1, size=(size, size, 1), dtype=np.int16)
    noisy = np.clip(np.asarray(image).astype(np.int16) + noise, 0, 255)
    return np.asarray(noisy, dtype=np.uint8)


def generate(index: int, seed: int, size: int = 128) -> tuple[Raster, Raster]:
    """Image `index` of the endless stream of a seed; it does not depend on any other image.

    Args:
        index: number of the image, from 0.
        seed: number of the stream, from 0.
        size: height and width in pixels, at least 32. The scene looks the same at any size.

    Returns:
        The image, (size, size, 3) uint8 RGB, and its label map, (size, size) uint8: VOC's 21 labels and 255 (void).

    Raises:
        RecsegError: a negative index or seed, or a size below 32.
    """
    if index < 0 or seed < 0:
        raise RecsegError(f"pictogram {index} of seed {seed}: index and seed must be 0 or more")
    if size < 32:
        raise RecsegError(f"pictogram size {size}: must be 32 pixels or more")
    rng = np.random.default_rng([seed, index, VERSION])
    classes = plan_classes(rng)
    canvas = SUPERSAMPLING * size
    for attempt in range(9):
        placed = _layout(rng, classes, canvas) if attempt < 8 else grid_layout(rng, classes, canvas)
        labels, visible = label_map(placed, canvas)
        if acceptable(classes, placed, labels, visible):
            break
    return _paint(rng, placed, size), labels


def draw_object(rng: np.random.Generator, label: int, variant: int, size: int) -> Raster:
    """A single object of class `label`, for display: (size, size, 3) uint8; `variant` wraps around."""
    variants = SHAPES[VOC_CLASSES[label]]
    shape = silhouette(variants[variant % len(variants)])
    canvas = SUPERSAMPLING * size
    points = _fit(bend(shape.points, rng, TURN), shape, 0.45, 0.94)
    return _paint(rng, [Placed(label, rasterize(shape, (points + 0.5) * canvas, canvas))], size)
