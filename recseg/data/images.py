"""Reads pictures and masks from disk, exactly or not at all: a doubtful file is a clear error, never a wrong label."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from recseg.classes import VOID, palette
from recseg.errors import RecsegError

MEAN_COLOUR = (124, 116, 104)  # of ImageNet: padding that no filter takes for an edge of an object's colour
LONGEST = 8  # aspect ratios are kept up to this; a line of pixels would fill the memory
VOID_16BIT = 65535  # what tools that write 16-bit masks use for "no label"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The decoded file; everything a bad file can cause becomes one `RecsegError` that names it."""
    tolerant = ImageFile.LOAD_TRUNCATED_IMAGES
    # Some libraries switch this on for the whole process, and half a picture would load as if it were whole.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except FileNotFoundError as error:
        raise RecsegError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise RecsegError(f"{path}: is a folder, expected an image") from error
    except UnidentifiedImageError as error:
        raise RecsegError(f"{path}: not an image that can be read (JPEG and PNG can)") from error
    except Image.DecompressionBombError as error:
        raise RecsegError(f"{path}: has too many pixels to be loaded safely; make it smaller first") from error
    except RecsegError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RecsegError(f"{path}: cannot be read as an image ({' '.join(str(reason).split())})") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def read_image(path: Path | str) -> Image.Image:
    """Read a picture as 8-bit RGB, upright as its EXIF orientation says.

    Grey becomes three equal channels, 16 bits become 8, transparency is laid over white as a viewer shows it.

    Raises:
        RecsegError: missing, not an image, truncated, too large, or of a kind with no agreed range (float).
    """
    path = Path(path)
    with _opened(path) as image:
        with suppress(
            SyntaxError, ValueError, TypeError, KeyError, struct.error
        ):  # broken EXIF: a picture all the same
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "RGB" and "transparency" not in image.info:
            return image.copy() if image.readonly else image
        if image.mode.startswith("I"):  # 16 bits (mode "I" too: Pillow has no other home for some 16-bit files)
            values = np.asarray(image).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise RecsegError(f"{path}: has grey values outside 0 to 65535; save it with 8 or 16 bits")
            return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")  # 65535 = 255 · 257
        if image.mode == "F":
            raise RecsegError(f"{path}: has floating-point values, whose range is unknown; save it with 8 or 16 bits")
        if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
            seen = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
        return image.convert("RGB")


def read_labels(path: Path | str, num_classes: int) -> NDArray[np.uint8]:
    """Read a mask as a label map `(H, W)`: class ids below `num_classes`, and 255 (`VOID`) where nothing is labelled.

    The value of a pixel is its class id: the index in a palette PNG, the grey value in an 8- or 16-bit one (there 65535
    is void as well). A mask stored as RGB colours is converted where every colour is one of VOC's palette.

    Raises:
        RecsegError: unreadable; a value out of range (names it and the range); a colour of no class (names it).
    """
    path = Path(path)
    with _opened(path) as image:
        if image.format == "JPEG":
            raise RecsegError(f"{path}: is a JPEG, which changes labels; masks must be PNG")
        if image.mode in {"RGB", "RGBA"}:
            return _labels_of_colours(np.asarray(image.convert("RGB")), num_classes, path)
        if image.mode == "LA":
            image = image.getchannel("L")
        if image.mode not in {"P", "L", "1"} and not image.mode.startswith("I"):
            raise RecsegError(f"{path}: is a mask of mode {image.mode}; expected a palette, grey or RGB PNG")
        values = np.asarray(image)  # (H, W)
    if values.dtype not in (np.uint8, np.bool_):
        values = np.where(values == VOID_16BIT, VOID, values)
    if values.dtype != np.uint8 or num_classes < VOID:
        wrong = (values >= num_classes) & (values != VOID)
        if values.dtype.kind == "i":  # only signed kinds can be below zero
            wrong |= values < 0
        if wrong.any():
            raise RecsegError(
                f"{path}: has class index {int(values[wrong][0])}, "
                f"expected 0 to {num_classes - 1}, or {VOID} for unlabelled pixels"
            )
    return values.astype(np.uint8)


def _labels_of_colours(pixels: NDArray[np.uint8], num_classes: int, path: Path) -> NDArray[np.uint8]:
    """Labels `(H, W)` of palette colours `(H, W, 3)`, exact matches only: the nearest colour may be another class."""
    weights = np.array([65536, 256, 1])  # one number for each colour
    labels = np.array([*range(num_classes), VOID], dtype=np.uint8)
    colours = palette()[labels] @ weights
    order = np.argsort(colours)
    codes = pixels @ weights  # (H, W)
    nearest = order[np.searchsorted(colours, codes, sorter=order).clip(max=len(order) - 1)]
    unknown = colours[nearest] != codes
    if unknown.any():
        red, green, blue = (int(value) for value in pixels[unknown][0])
        raise RecsegError(
            f"{path}: has the colour ({red}, {green}, {blue}), which is no class of VOC's palette; "
            "save masks as palette or grey PNG with class ids"
        )
    found: NDArray[np.uint8] = labels[nearest]
    return found


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of a picture whose short side becomes `size`; a long side beyond 8 × that is squeezed."""
    factor = size / min(height, width)
    rows, columns = (min(max(size, round(side * factor)), LONGEST * size) for side in (height, width))
    return rows, columns
