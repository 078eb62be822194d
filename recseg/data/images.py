"""Reads images and masks exactly: an ambiguous file is an error, never a wrong label."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from recseg.classes import VOID, Colour, Legend, palette
from recseg.errors import RecsegError

MEAN_COLOUR = (124, 116, 104)  # of ImageNet: for padding
LONGEST = 8  # largest aspect ratio kept when resizing; beyond it, a resized image could exhaust memory
VOID_16BIT = 65535  # "no label" in 16-bit masks
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that swap height and width
# Pillow reads many more, some of which start other programs (EPS) or have no pixels of their own.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")  # of these formats
MOST_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB; Pillow's own warning threshold
MOST_PIXELS_TILED = 4 * MOST_PIXELS  # for tiled prediction
_LOCK = threading.RLock()  # for the global settings of Pillow and `warnings`


def _new_lock() -> None:
    """Reset the lock in a process forked while another thread held it."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _decoded(path: Path, most_pixels: int = MOST_PIXELS) -> tuple[Image.Image, str]:
    """The first frame of a file, in memory, and how its pixels were stored (Pillow's "raw mode", such as `"L;4"`).

    Any error is raised as a `RecsegError` that names the file.
    """
    if path.is_dir():
        raise RecsegError(f"{path}: is a folder, expected an image")
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise RecsegError(f"{path}: is no regular file, expected an image")
    try:
        with _strict(most_pixels):
            image = Image.open(path, formats=FORMATS)
            if image.format == "PNG":
                with image:
                    image.verify()  # checksums, which decoding ignores
                image = Image.open(path, formats=FORMATS)
            with image:
                how = image.tile[0].args if image.tile else ""
                image.load()
                return image, str(how[0] if isinstance(how, tuple) else how)
    except FileNotFoundError as error:
        raise RecsegError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise RecsegError(f"{path}: not an image that can be read (JPEG and PNG can)") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RecsegError(
            f"{path}: has too many pixels to be loaded safely, more than {most_pixels // 10**6} million; make it "
            f"smaller first (recseg predict --tile takes {MOST_PIXELS_TILED // 10**6} million)"
        ) from error
    except Exception as error:  # on damaged files, decoders raise errors of any kind
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RecsegError(f"{path}: cannot be read as an image ({' '.join(str(reason).split())})") from error


@contextmanager
def _strict(most_pixels: int = MOST_PIXELS) -> Iterator[None]:
    """Make Pillow refuse truncated or too large images, and ignore odd metadata without a warning.

    One thread at a time: these settings are process-wide, and other libraries change them.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        tolerant, limit = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, most_pixels
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = tolerant, limit


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; the same object if there is nothing to turn."""
    with _strict(), suppress(Exception):  # broken EXIF does not invalidate the image
        if image.getexif().get(ORIENTATION, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def is_turned(image: Image.Image) -> bool:
    """Whether an image's EXIF orientation swaps its height and width."""
    with _strict(), suppress(Exception):
        return image.getexif().get(ORIENTATION) in QUARTER_TURNS
    return False


def read_image(path: "str | os.PathLike[str]", *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Read an image as 8-bit RGB, rotated upright by its EXIF orientation; of an animation, the first frame.

    Grey becomes three equal channels, 16 bits become 8, transparency is composited over white.

    Raises:
        RecsegError: missing, not an image, truncated, too large, floating-point (whose range is unknown), or a TIFF
            with a fourth band that may be transparency or near infrared.
    """
    return as_rgb(_decoded(Path(path), most_pixels)[0], str(path))


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened image as `read_image` returns it; `name` is for error messages."""
    # Programs for satellite images mark any fourth band as alpha.
    doubtful = image.format == "TIFF" and image.mode in {"RGBA", "RGBa"}
    if doubtful and image.getchannel(3).getextrema() != (255, 255):
        raise RecsegError(f"{name}: has a fourth band, which may be transparency or near infrared; save it as RGB")
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy() if image.readonly else image
    if image.mode.startswith("I"):  # 16 bits (Pillow opens some of these in mode "I")
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise RecsegError(f"{name}: has grey values outside 0 to 65535; save it with 8 or 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")  # 65535 = 255 · 257
    if image.mode == "F":
        raise RecsegError(f"{name}: has floating-point values, whose range is unknown; save it with 8 or 16 bits")
    try:
        if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
            seen = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise RecsegError(f"{name}: has colours of mode {image.mode}; save it as RGB") from error


def read_labels(path: Path | str, legend: Legend | int) -> NDArray[np.uint8]:
    """Read a mask as a label map `(H, W)`: labels of the legend, and 255 (`VOID`) where unlabelled.

    A pixel's value is the index in a palette PNG, the grey value in an 8- or 16-bit one (where 65535 is void as well),
    or an RGB colour of the legend. The mask's EXIF orientation is applied.

    Args:
        path: the mask.
        legend: what its values mean; a number N stands for N classes whose values are their labels, as in VOC.

    Raises:
        RecsegError: unreadable; not PNG; a value out of range or a colour of no class (named); or ambiguous:
            transparency, 2- or 4-bit grey, VOC's colours under other indices, several frames.
    """
    path = Path(path)
    if isinstance(legend, int):
        legend = _plain(legend)
    image, how = _decoded(path)
    if image.format != "PNG":
        harm = ", which changes labels" if image.format in {"JPEG", "MPO", "WEBP"} else ""
        raise RecsegError(f"{path}: is a {image.format}{harm}; masks must be PNG")
    if getattr(image, "n_frames", 1) > 1:
        raise RecsegError(f"{path}: is animated; a mask has one frame")
    if how in {"L;2", "L;4"}:
        raise RecsegError(f"{path}: is grey of {how[-1]} bits, which some read as class ids, others as shades; use 8")
    if how in {"RGB;16B", "RGBA;16B", "LA;16B"}:  # Pillow would drop the low byte
        raise RecsegError(f"{path}: has 16 bits a colour, expected 8 (16 bits only of grey)")
    image = _upright(image)
    if image.mode in {"RGBA", "LA"}:
        if image.getchannel("A").getextrema() != (255, 255):
            raise RecsegError(f"{path}: is transparent in parts, which is no label; save it without transparency")
        image = image.convert("RGB") if image.mode == "RGBA" else image.getchannel("L")
    if image.mode == "RGB":
        return _labels_of_colours(np.asarray(image), legend, path)
    if image.mode not in {"P", "L", "1"} and not image.mode.startswith("I"):
        raise RecsegError(f"{path}: is a mask of mode {image.mode}; expected a palette, grey or RGB PNG")
    values = np.asarray(image)  # (H, W)
    if image.mode == "P":
        _check_palette(image, values, legend, path)
    return _labels_of_values(values, legend, path)


@cache
def _plain(num_classes: int) -> Legend:
    return Legend.plain([f"class {label}" for label in range(num_classes)])


def _labels_of_values(values: NDArray[Any], legend: Legend, path: Path) -> NDArray[np.uint8]:
    """Labels `(H, W)` from the values of a mask, integers or booleans."""
    table = legend.label_of_value
    if values.dtype in (np.uint8, np.bool_):
        small = values.astype(np.uint8)  # a copy, which may be written to
        wrong = (np.bincount(small.ravel(), minlength=256) > 0) & (table < 0)  # (256,)
    else:
        deep = values == VOID_16BIT
        outside = (values < 0) | (values > VOID)
        small = np.where(outside, 0, values).astype(np.uint8)
        wrong = np.where(outside, ~deep, table[small] < 0)  # (H, W)
    if wrong.any():
        found = np.unique(values)
        first = next(value for value in found.tolist() if not (0 <= value <= VOID and table[value] >= 0))
        smooth = f"; its {len(found)} values look like those of a smoothed mask or a JPEG" if len(found) > 64 else ""
        raise RecsegError(
            f"{path}: has class index {first}, expected {_known(legend)}{smooth}; classes.txt says what values mean"
        )
    labels = table.astype(np.uint8)[small] if legend.moved else small
    return labels if values.dtype in (np.uint8, np.bool_) else np.where(deep, np.uint8(VOID), labels)


def _known(legend: Legend) -> str:
    """The values that a mask may have, as text."""
    values = sorted(value for value in legend.values if value is not None)
    gaps = values != list(range(values[0], values[-1] + 1))
    known = ", ".join(map(str, values)) if gaps else f"{values[0]} to {values[-1]}"
    return known + (f", or {', '.join(map(str, legend.void))} for unlabelled pixels" if legend.void else "")


def _colours(legend: Legend) -> dict[Colour, int]:
    """The value of each colour that a mask may have."""
    colours = dict(zip([legend.void_colour], legend.void, strict=False))
    if legend.coloured:
        pairs = zip(legend.colours, legend.values, strict=True)
        colours |= {colour: value for colour, value in pairs if value is not None}
    return colours


def _check_palette(image: Image.Image, values: NDArray[np.uint8], legend: Legend, path: Path) -> None:
    """Refuse a mask whose colours are all those of classes but under other indices: it is ambiguous."""
    if not legend.coloured:
        return
    given = np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)  # (N, 3)
    if not legend.moved and np.array_equal(given[: len(legend.names)], legend.palette[: len(legend.names)]):
        return  # the usual case
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    named = _colours(legend)
    meant = [named.get(tuple(given[index].tolist())) if index < len(given) else None for index in used]
    if None not in meant and meant != used:
        index, value = next((i, m) for i, m in zip(used, meant, strict=True) if i != m)
        raise RecsegError(
            f"{path}: has class index {index} in the colour of class {value}; "
            "save it with class ids as indices, or as RGB"
        )


def _labels_of_colours(pixels: NDArray[np.uint8], legend: Legend, path: Path) -> NDArray[np.uint8]:
    """Labels `(H, W)` from colours `(H, W, 3)`; only exact matches count."""
    weights = np.array([65536, 256, 1])  # one number for each colour
    named = _colours(legend)
    colours = np.array(list(named)) @ weights
    labels = legend.label_of_value[list(named.values())].astype(np.uint8)
    order = np.argsort(colours)
    codes = pixels @ weights  # (H, W)
    nearest = order[np.searchsorted(colours, codes, sorter=order).clip(max=len(order) - 1)]
    unknown = colours[nearest] != codes
    if unknown.any():
        red, green, blue = (int(value) for value in pixels[unknown][0])
        known = np.flatnonzero((palette() == (red, green, blue)).all(axis=1))
        if legend != Legend.plain(legend.names):
            of = "which is no class's"
        elif known.size:
            of = f"VOC's colour of class {known[0]}, expected those of 0 to {len(legend.names) - 1} and of {VOID}"
        else:
            of = "which is no class of VOC's palette"
        raise RecsegError(
            f"{path}: has the colour ({red}, {green}, {blue}), {of}; give the classes their colours in classes.txt "
            "(columns value,name,colour), or save masks as palette or grey PNG with class ids"
        )
    found: NDArray[np.uint8] = labels[nearest]
    return found


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image resized to a short side of `size`; a long side is limited to 8 × `size`."""
    factor = size / min(height, width)
    rows, columns = (min(max(size, round(side * factor)), LONGEST * size) for side in (height, width))
    return rows, columns
