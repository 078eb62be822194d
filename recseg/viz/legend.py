"""The names of the classes, written into an overlay beside their colours."""

from PIL import Image, ImageDraw

from recseg.inference.prediction import Prediction
from recseg.viz.plotting import INK, text, text_width

LEAST = 11  # height of letters, in pixels; smaller ones cannot be read
MOST = 1 / 3  # share of the image that a legend may cover


def draw_legend(overlay: Image.Image, found: Prediction) -> None:
    """Write each class that the label map shows, with its colour, into its overlay.

    The band lies along the edge, lower or upper, at which it covers less of the classes. An image that is too small for
    it is left as it is.
    """
    size = max(LEAST, min(overlay.size) // 24)
    line = round(1.6 * size)
    shown = {step.class_id: step.name for step in found.steps if (found.labels == step.class_id).any()}
    rows: list[list[tuple[float, int, str]]] = []
    x = float(overlay.width)  # where the next entry begins
    for label, name in shown.items():
        width = 2.2 * size + text_width(name, size)
        if x + width > overlay.width:
            rows.append([])
            x = size / 2
        if x + width > overlay.width:  # also alone
            return
        rows[-1].append((x, label, name))
        x += width
    height = line * len(rows)
    if not rows or height > MOST * overlay.height:
        return
    top = overlay.height - height
    if (found.labels[top:] > 0).sum() > (found.labels[:height] > 0).sum():
        top = 0
    box = (0, top, overlay.width, top + height)
    band = overlay.crop(box)
    overlay.paste(Image.blend(band, Image.new("RGB", band.size, "white"), 0.8), box)
    draw = ImageDraw.Draw(overlay)
    for number, row in enumerate(rows):
        middle = top + line * (number + 0.5)
        for x, label, name in row:
            square = (x, middle - size / 2, x + size, middle + size / 2)
            draw.rectangle(square, fill=tuple(found.palette[label].tolist()), outline=INK)
            text(draw, (x + 1.4 * size, middle), name, size)
