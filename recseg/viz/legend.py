"""Draw a legend, the classes with their colours, into an overlay."""

from PIL import Image, ImageDraw

from recseg.inference.prediction import Prediction
from recseg.viz.plotting import INK, text, text_width

LEAST = 11  # smallest readable text size, in pixels
MOST = 1 / 3  # largest share of the image that the legend may cover


def draw_legend(overlay: Image.Image, found: Prediction) -> None:
    """Draw each class of the label map, with its colour, into its overlay.

    The legend is a band along the lower or upper edge, whichever has fewer foreground pixels. Images that are too small
    for it are left unchanged.
    """
    size = max(LEAST, min(overlay.size) // 24)
    line = round(1.6 * size)
    shown = {step.class_id: step.name for step in found.steps if (found.labels == step.class_id).any()}
    rows: list[list[tuple[float, int, str]]] = []
    x = float(overlay.width)  # left edge of the next entry
    for label, name in shown.items():
        width = 2.2 * size + text_width(name, size)
        if x + width > overlay.width:
            rows.append([])
            x = size / 2
        if x + width > overlay.width:  # does not fit even on its own line
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
