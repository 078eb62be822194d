"""A contact sheet of a data set: images next to their masks, and a legend of the colours."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError
from recseg.viz.plotting import INK, overlay, text

GAP, LINE = 8, 24  # pixels: between images, and per line of text
COLUMNS, NAMES = 3, 4  # per row: images, and class names


def contact_sheet(dataset: SegmentationFolder, *, most: int = 12, side: int = 180) -> Image.Image:
    """Images, each next to its overlay, and a legend with values, names and colours.

    For each class, rarest first, the image with most of its pixels is chosen; the first images fill the rest.

    Args:
        dataset: a split, without a transform.
        most: maximum number of images.
        side: longer side of each image on the sheet, in pixels.

    Raises:
        RecsegError: an image cannot be read.
    """
    found = dataset.survey(skip=True)
    chosen = _largest(found.areas[:, 1 : dataset.num_classes])
    chosen = list(dict.fromkeys([*chosen, *range(len(found.ids))]))[:most]
    colours = list(map(tuple, dataset.palette.tolist()))
    labels = [label for label, value in enumerate(dataset.legend.values) if value is not None]
    pairs = [_pair(dataset, dataset.ids.index(found.ids[index]), side) for index in chosen]
    rows = [max(image.height for image, _ in pairs[k : k + COLUMNS]) + LINE for k in range(0, len(pairs), COLUMNS)]
    width, lines = 2 * side + GAP, -(-len(labels) // NAMES)
    sheet = Image.new("RGB", (COLUMNS * (width + GAP), sum(rows) + (lines + 1) * LINE), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (index, (image, masked)) in enumerate(zip(chosen, pairs, strict=True)):
        left, top = number % COLUMNS * (width + GAP), sum(rows[: number // COLUMNS])
        sheet.paste(image, (left, top))
        sheet.paste(masked, (left + image.width, top))
        text(draw, (left + 4, top + image.height + LINE / 2), found.ids[index], size=12)
    for number, label in enumerate(labels):
        x, y = number % NAMES * sheet.width // NAMES + GAP, sum(rows) + number // NAMES * LINE + LINE
        draw.rounded_rectangle((x, y - 7, x + 14, y + 7), radius=3, fill=colours[label], outline=INK)
        text(draw, (x + 22, y), f"{dataset.legend.values[label]} {dataset.classes[label]}")
    return sheet


def _largest(areas: NDArray[np.int32]) -> list[int]:
    """For each label of areas (N, C), rarest first, the image with most of its pixels."""
    present = np.flatnonzero(areas.any(axis=0))
    return [int(areas[:, label].argmax()) for label in sorted(present, key=lambda label: int(areas[:, label].sum()))]


def _pair(dataset: SegmentationFolder, index: int, side: int) -> tuple[Image.Image, Image.Image]:
    """An image and its overlay, each within side × side."""
    image, labels = Image.fromarray(dataset.pixels(index)), Image.fromarray(dataset.labels(index))
    if image.size != labels.size:
        raise RecsegError(f"{dataset.ids[index]}: its image is {image.size} pixels but its mask is {labels.size}")
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    image = image.resize(size)
    shown = np.asarray(labels.resize(size, Image.Resampling.NEAREST))
    return image, overlay(image, shown, dataset.legend.palette)
