"""Images as the world has them, made from known pixels: each is to be read exactly as these, or to be refused.

What an image must be read as is known before a reader of the project has seen it.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Writer = Callable[[np.random.Generator, Pixels, Path], Pixels]
SHAPES = [(1, 1), (1, 2), (2, 1), (1, 5000), (5000, 1), (3, 900), (17, 33), (64, 64), (31, 57), (80, 48)]


def scene(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """(height, width, 3): a slope of colours with a few rectangles, different in every corner."""
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    a, b, c = rng.integers(0, 256, (3, 3))
    slope = a + (b - a) * down[..., None] + (c - a) * (down * across)[..., None]
    pixels: Pixels = slope.clip(0, 255).astype(np.uint8)
    for _ in range(3):
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top : top + 1 + height // 3, left : left + 1 + width // 3] = rng.integers(0, 256, 3)
    return pixels


def png(samples: NDArray[Any], depth: int, colour: int, size: tuple[int, int] | None = None) -> bytes:
    """A PNG file of any bit depth and colour type, which Pillow does not write: samples (H, W) or (H, W, C)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = size or samples.shape[:2]
    flat = samples.reshape(samples.shape[0], -1)  # (H, W·C)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    elif depth == 8:
        rows = flat.astype(np.uint8)
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]  # (H, W·C, depth)
        rows = np.packbits(bits.reshape(len(flat), -1), axis=-1)
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes(), 1)  # filter type 0 before each row
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels as EXIF's orientation says that they are to be seen (EXIF 2.32, tag 0x0112)."""
    across = pixels.swapaxes(0, 1)
    return {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: across, 6: across[:, ::-1], 7: across[::-1, ::-1], 8: across[::-1],
    }[orientation]  # fmt: skip


def stored(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """How a camera stores what is to be seen as `pixels`."""
    return np.ascontiguousarray(turned(pixels, {6: 8, 8: 6}.get(orientation, orientation)))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def _decoded(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _saved(format: str, **options: Any) -> Writer:
    """Without loss, in one file format."""

    def write(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
        Image.fromarray(pixels).save(path, format=format, **options)
        return pixels

    return write


def _jpeg(mode: str, **options: Any) -> Writer:
    def write(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
        Image.fromarray(pixels).convert(mode).save(path, format="JPEG", quality=90, **options)
        return _decoded(path)

    return write


def _rotated(format: str) -> Writer:
    def write(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
        orientation = int(rng.integers(1, 9))
        Image.fromarray(stored(pixels, orientation)).save(path, format=format, exif=exif(orientation), lossless=True)
        return turned(_decoded(path), orientation)

    return write


def _grey(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
    Image.fromarray(pixels[..., 0]).save(path, format="PNG")
    return pixels[..., :1].repeat(3, axis=2)


def _transparent(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
    alpha = 255 * rng.integers(0, 2, pixels.shape[:2], dtype=np.uint8)  # (H, W)
    grey = bool(rng.integers(2))
    seen = pixels[..., :1].repeat(3, axis=2) if grey else pixels
    Image.fromarray(np.dstack([pixels[..., :1] if grey else pixels, alpha])).save(path, format="PNG")
    return np.where(alpha[..., None] > 0, seen, 255).astype(np.uint8)


def _palette(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
    colours = rng.integers(0, 256, (16, 3), dtype=np.uint8)
    indices = pixels[..., 0] // 16  # (H, W)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    if rng.integers(2):  # one of them is transparent
        image.save(path, format="PNG", transparency=3)
        colours[3] = 255
    else:
        image.save(path, format="PNG", bits=int(rng.choice([4, 8])))
    return colours[indices]


def _two_colours(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
    white = pixels[..., 0] > 127
    Image.fromarray(white).save(path, format="PNG")
    return (255 * white[..., None]).astype(np.uint8).repeat(3, axis=2)


def _deep(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
    """16 bits a channel."""
    if rng.integers(2):
        path.write_bytes(png(pixels[..., 0].astype(np.uint16) * 257, 16, 0))
        return pixels[..., :1].repeat(3, axis=2)
    path.write_bytes(png(pixels.astype(np.uint16) * 257, 16, 2))
    return pixels


def _animated(format: str) -> Writer:
    """The first frame counts, as for a viewer that cannot animate."""

    def write(rng: np.random.Generator, pixels: Pixels, path: Path) -> Pixels:
        first = Image.fromarray(pixels)
        others = [Image.fromarray(255 - pixels), Image.fromarray(pixels[::-1].copy())]
        first.save(path, format=format, save_all=True, append_images=others, lossless=True, duration=90)
        return _decoded(path)

    return write


GOOD: dict[str, Writer] = {
    "png": _saved("PNG"), "bmp": _saved("BMP"), "ppm": _saved("PPM"), "tiff": _saved("TIFF"),
    "webp": _saved("WEBP", lossless=True),
    "jpeg": _jpeg("RGB"), "progressive jpeg": _jpeg("RGB", progressive=True), "grey jpeg": _jpeg("L"),
    "cmyk jpeg": _jpeg("CMYK"),
    "rotated jpeg": _rotated("JPEG"), "rotated png": _rotated("PNG"), "rotated webp": _rotated("WEBP"),
    "grey": _grey, "transparent": _transparent, "palette": _palette, "two colours": _two_colours, "16 bits": _deep,
    "animated gif": _animated("GIF"), "animated png": _animated("PNG"), "many-paged tiff": _animated("TIFF"),
}  # fmt: skip


# What is no image, or none that can be read safely


def _cut(rng: np.random.Generator, path: Path) -> None:
    format = str(rng.choice(["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"]))
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path, format=format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * rng.uniform(0.02, 0.9))])


def _flipped(rng: np.random.Generator, path: Path) -> None:
    """One bit of a PNG's pixels changed: its checksum says so."""
    content = bytearray(png(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), 8, 2))
    place = int(rng.integers(content.index(b"IDAT") + 4, len(content) - 16))
    content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def bomb() -> bytes:
    """20,000 × 20,000 pixels of one bit in 200 kilobytes, a whole and valid file."""
    content = bytearray(png(np.zeros((20_000, 2_500), np.uint8), 8, 0, size=(20_000, 20_000)))
    content[24] = 1  # the header's bit depth; its checksum follows
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


def _archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    return stream.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/etc/hostname) run showpage\n%%EOF\n"
CONTENTS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"", "text": lambda: b"keine Bilder hier\n" * 9, "html": lambda: b"<html>404</html>",
    "pickle": lambda: pickle.dumps({"pixels": [1, 2, 3]}), "zip": _archive, "program": lambda: EPS,
    "bomb": bomb, "gif bomb": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
    "bmp bomb": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 20_000, 20_000, 1, 24, *[0] * 6),
}  # fmt: skip


def _content(kind: str) -> Callable[[np.random.Generator, Path], None]:
    made = cache(CONTENTS[kind])

    def write(rng: np.random.Generator, path: Path) -> None:
        path.write_bytes(made())

    return write


def _floats(rng: np.random.Generator, path: Path) -> None:
    Image.fromarray(rng.random((5, 5), dtype=np.float32)).save(path, format="TIFF")


def _noise(rng: np.random.Generator, path: Path) -> None:
    head = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP", b"P6 "]
    path.write_bytes(head[int(rng.integers(len(head)))] + rng.bytes(int(rng.integers(1, 900))))


BAD: dict[str, Callable[[np.random.Generator, Path], None]] = {
    "cut short": _cut, "flipped bit": _flipped, "floats": _floats, "noise": _noise,
    "folder": lambda rng, path: path.mkdir(), "dangling link": lambda rng, path: path.symlink_to("nowhere"),
    "pipe": lambda rng, path: os.mkfifo(path), **{kind: _content(kind) for kind in CONTENTS},
}  # fmt: skip
