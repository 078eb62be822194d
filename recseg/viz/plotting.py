"""Images of predictions: overlays, the strip of steps, the animated recurrence. (Results: `recseg.viz.figures`.)

Classes have VOC's colours by default; figures have dark text on white, so that they are readable on dark pages too.
matplotlib is imported inside the functions that need it: overlays, GIFs and the command line need only Pillow.
"""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from recseg.classes import palette as voc_palette
from recseg.errors import RecsegError, counted
from recseg.files import atomic_write
from recseg.inference.prediction import ImageLike, Prediction, as_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1f24"
FAINT = "#8a939e"
SMALLEST = 10  # points: 11 pixels, since pages show 80 pixels per inch
PADDING = 6  # pixels around an image
STRIP = 256  # rows blended at once, to limit the memory for large images
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same on every machine
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "legend.frameon": False,
}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of `width` × `height` inches in the style of the book, not registered with pyplot.

    Raises:
        RecsegError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RecsegError("figures need matplotlib: pip install 'recseg[notebook]'") from error
    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def to_html(figure: "Figure | Image.Image | Path | str", alt: str) -> str:
    """An `<img>` with the embedded image and an alt text; small labels of a figure are enlarged to `SMALLEST`.

    Args:
        figure: a figure, a Pillow image, or the path of a GIF or PNG.
        alt: alt text.
    """
    if not alt.strip():
        raise RecsegError("an image needs an alt text: describe what it shows")
    width = ""
    if isinstance(figure, Image.Image):
        stream = io.BytesIO()
        figure.save(stream, format="PNG", optimize=True)
        kind, content = "png", stream.getvalue()
    elif isinstance(figure, (str, Path)):
        try:
            kind, content = Path(figure).suffix.lstrip(".").lower().replace("jpg", "jpeg"), Path(figure).read_bytes()
        except OSError as error:
            raise RecsegError(f"{figure}: cannot be read ({error.strerror or error})") from error
    else:
        kind, content = _drawn(figure)
        width = f' width="{round(figure.get_figwidth() * 80) + 2 * PADDING}"'
    data = base64.b64encode(content).decode()
    style = f"max-width:100%;height:auto;background:#fff;border-radius:10px;padding:{PADDING}px;box-sizing:border-box"
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(alt)}"{width} style="{style}">'


def _drawn(figure: "Figure") -> tuple[str, bytes]:
    """A figure as SVG, or as PNG at 160 dpi for sharp screens, whichever is smaller: MIME subtype and content."""
    import matplotlib
    from matplotlib.text import Text

    for words in figure.findobj(Text):
        words.set_fontsize(max(SMALLEST, words.get_fontsize()))
    svg, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "recseg"}):  # the same ids at every build
        figure.savefig(svg, format="svg", dpi=160, metadata={"Date": None})
    figure.savefig(png, format="png", dpi=160)
    return ("svg+xml", svg.getvalue()) if svg.tell() < png.tell() else ("png", png.getvalue())


def show(figure: "Figure | Image.Image | Path | str", alt: str) -> None:
    """Show a figure, an image or a GIF file in a notebook, with its alt text; a pyplot figure is closed."""
    markup = to_html(figure, alt)
    try:
        from IPython.display import HTML, display
    except ImportError as error:
        raise RecsegError("show() is for notebooks and needs IPython: pip install 'recseg[notebook]'") from error
    display(HTML(markup))
    if not isinstance(figure, (Image.Image, Path, str)):
        import matplotlib.pyplot

        matplotlib.pyplot.close(figure)  # or the notebook would draw it again below the cell


def overlay(
    image: ImageLike, labels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None, alpha: float = 0.55
) -> Image.Image:
    """The image overlaid with the colour of each label, except for the background.

    Args:
        image: image of the labels' size.
        labels: (H, W) label map.
        palette: (256, 3) colours; VOC's by default.
        alpha: opacity of the colours, 0 … 1.
    """
    rgb = as_image(image)
    labels = np.asarray(labels)
    if labels.shape != (rgb.height, rgb.width):
        raise RecsegError(
            f"labels of {labels.shape[0]}×{labels.shape[1]} over an image of {rgb.height}×{rgb.width}: "
            "expected the same size"
        )
    palette = voc_palette() if palette is None else palette
    blended = np.array(rgb)  # (H, W, 3)
    for top in range(0, len(labels), STRIP):
        rows, first = slice(top, top + STRIP), max(0, top - 1)  # the outline needs one row above and below
        colours = palette[labels[rows]]  # (h, W, 3)
        opacity = np.where(labels[rows] > 0, alpha, 0.0).astype(np.float32)[..., None]  # (h, W, 1)
        part = np.round(blended[rows] * (1 - opacity) + colours * opacity).astype(np.uint8)
        edges = outline(labels[first : top + STRIP + 1])[top - first :][: len(part)]
        part[edges] = colours[edges]  # an opaque outline keeps thin objects visible on a similar colour
        blended[rows] = part
    return Image.fromarray(blended)


def outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W) bool: foreground pixels next to a pixel of another label."""
    labels = np.asarray(labels).astype(np.int16)
    edge = np.zeros(labels.shape, dtype=bool)
    vertical, horizontal = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge & (labels > 0)


def describe(prediction: Prediction) -> str:
    """The steps in one line of text, for an alt text or for printing."""
    parts = [f"{step.name} ({step.probability:.0%}, {step.area:.0%} of the image)" for step in prediction.steps]
    return f"{counted(len(parts), 'step')}: {', '.join(parts)}" if parts else "no step: only background"


def step_strip(image: ImageLike, prediction: Prediction) -> "Figure":
    """The sequence as a strip: the image, one panel per step with its mask, and the fused label map."""
    rgb = as_image(image)
    panels = [("image", rgb)]
    grey = Image.blend(rgb.convert("L").convert("RGB"), Image.new("RGB", rgb.size, "white"), 0.45)
    for number, step in enumerate(prediction.steps, 1):
        labels = np.where(step.mask, step.class_id, 0).astype(np.uint8)
        title = f"{number}  {step.name} {step.probability:.0%}"
        panels.append((title, overlay(grey, labels, prediction.palette, alpha=0.7)))
    end = "" if prediction.stop_probability is None else f" (stop {prediction.stop_probability:.0%})"
    panels.append((f"fused{end}", overlay(grey, prediction.labels, prediction.palette, alpha=0.7)))
    width = min(2.3, 9.3 / len(panels))  # inches: all panels fit the width of a page
    height = width * rgb.height / rgb.width + 0.25
    figure = new_figure(width * len(panels), min(height, 4.5))
    for axes, (title, panel) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(np.asarray(panel))
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    words: str,
    size: float = 15,
    fill: str = INK,
    anchor: str = "lm",
) -> None:
    """Draw text in Pillow's built-in font, which is the same on every machine."""
    draw.text(at, words, fill=fill, font=ImageFont.load_default(size), anchor=anchor)


def text_width(words: str, size: float = 15) -> float:
    """Width of `words` in pixels, as drawn by `text`."""
    return ImageDraw.Draw(Image.new("L", (1, 1))).textlength(words, font=ImageFont.load_default(size))


def gif_frames(image: ImageLike, prediction: Prediction, *, side: int = 400) -> Iterator[Image.Image]:
    """The recurrence as frames: the image, then one more mask per frame with its class and probability, then the stop.

    Args:
        image: the predicted image.
        prediction: prediction for the image.
        side: approximate longer side of the image in the frames; small images are enlarged by an integer factor.
    """
    rgb = as_image(image)
    longest = max(rgb.size)
    scale = side / longest if longest > side else max(1, side // longest)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    base = rgb.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)
    yield _captioned(base, "the image", None)
    covered = np.zeros((size[1], size[0]), dtype=np.uint8)
    for number, step in enumerate(prediction.steps, 1):
        mask = np.asarray(Image.fromarray(step.mask).resize(size, Image.Resampling.NEAREST))
        before = overlay(base, covered, prediction.palette, alpha=0.4)  # earlier masks are fainter
        new = np.where(mask, step.class_id, 0).astype(np.uint8)
        words = f"step {number}: {step.name} {step.probability:.0%}"
        yield _captioned(
            overlay(before, new, prediction.palette, alpha=0.65), words, tuple(prediction.palette[step.class_id])
        )
        covered[mask] = step.class_id
    end = prediction.stop_probability
    words = f"all {len(prediction.steps)} steps run" if end is None else f"stop {end:.0%}"
    labels = np.asarray(Image.fromarray(prediction.labels).resize(size, Image.Resampling.NEAREST))
    yield _captioned(overlay(base, labels, prediction.palette), f"{words}: the label map", None)


def _captioned(rgb: Image.Image, words: str, colour: tuple[int, ...] | None) -> Image.Image:
    """The image with a line of text below, on white, after a swatch of `colour`."""
    size = max(15, rgb.width / 32)  # wide frames are shrunk on a phone
    height = round(2 * size)
    frame = Image.new("RGB", (max(rgb.width, 230), rgb.height + height), "white")
    frame.paste(rgb, ((frame.width - rgb.width) // 2, 0))
    draw = ImageDraw.Draw(frame)
    middle, half = rgb.height + height / 2, size / 2
    if colour is not None:
        draw.rounded_rectangle((8, middle - half, 8 + size, middle + half), radius=3, fill=colour, outline=INK)
    text(draw, (8 if colour is None else 15 + size, middle), words, size)
    return frame


def write_gif(
    frames: Sequence[Image.Image], path: Path | str, durations: Sequence[int], keep: Sequence[Sequence[int]] = ()
) -> None:
    """Write a looping GIF.

    All frames share one palette, without dithering: flat colours stay flat, and unchanged pixels compress well.

    Args:
        frames: RGB images of one size.
        path: the file.
        durations: milliseconds of each frame.
        keep: RGB colours that the palette must include exactly, since those of small masks may be averaged away.
    """
    # The palette is computed from frames of the whole clip, so that it has the colours of late masks.
    chosen = frames[:: -(-len(frames) // 16)]
    sheet = Image.new("RGB", (frames[0].width, frames[0].height * len(chosen)))
    for number, frame in enumerate(chosen):
        sheet.paste(frame, (0, number * frame.height))
    exact = [channel for colour in keep for channel in colour]
    found = sheet.quantize(256 - len(keep), method=Image.Quantize.MEDIANCUT).getpalette() or []
    shared = Image.new("P", (1, 1))
    shared.putpalette(exact + found[: 3 * (256 - len(keep))])
    indexed = [frame.quantize(palette=shared, dither=Image.Dither.NONE) for frame in frames]
    with atomic_write(path) as temporary:
        indexed[0].save(
            temporary, format="GIF", save_all=True, append_images=indexed[1:], duration=list(durations), loop=0
        )


def save_gif(prediction: Prediction, image: ImageLike, path: Path | str) -> None:
    """Animated GIF of the recurrence: each frame adds a mask, with its class and probability; the last is the stop."""
    frames = list(gif_frames(image, prediction))
    keep = {step.class_id: tuple(map(int, prediction.palette[step.class_id])) for step in prediction.steps}
    write_gif(frames, path, [900, *[1300] * (len(frames) - 2), 2500], [(255, 255, 255), *keep.values()])
