"""All classes of the embedded data set in one image: a row for each class, one object in each cell."""

import numpy as np
from PIL import Image, ImageDraw

from recseg.classes import VOC_CLASSES
from recseg.data.pictograms.scene import draw_object


def contact_sheet(columns: int = 6, size: int = 96, seed: int = 0) -> Image.Image:
    """Draw `columns` objects of each of the twenty classes with their names beneath, two classes side by side.

    Args:
        columns: objects per class.
        size: side of a cell in pixels.
        seed: random seed of the objects.
    """
    caption, gap, names = 14, 10, VOC_CLASSES[1:]
    rows = (len(names) + 1) // 2
    half = columns * size + gap
    sheet = Image.new("RGB", (2 * half - gap, rows * (size + caption)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(names):
        left, top = (number // rows) * half, (number % rows) * (size + caption)
        for column in range(columns):
            rng = np.random.default_rng([seed, number, column])
            cell = draw_object(rng, number + 1, variant=column, size=size)
            sheet.paste(Image.fromarray(cell), (left + column * size, top))
            draw.text((left + column * size + size // 2, top + size + 1), name, fill="black", anchor="ma")
    return sheet
