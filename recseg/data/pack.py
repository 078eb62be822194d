"""A pack: the images of a split, decoded and resized once, in one file that trainings map into memory.

Decoding a photograph costs more than all that training does to it afterwards. A pack pays for that once. Its layout:

    magic | for each sample: image (h, w, 3) and labels (h, w), uint8 | header, JSON | its length, 8 bytes | SHA-256

The digest is that of everything before it. The header holds the names, ids and shapes of the split, and a fingerprint
of the files that it was made of. All workers map the same file, without a lock; a new pack replaces the old one only
when it is complete, and whoever has the old one open goes on reading that.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from recseg.classes import Legend, check_names
from recseg.data.description import FILE
from recseg.data.folder import Sample, SegmentationFolder
from recseg.data.images import is_turned, resized_shape
from recseg.data.transforms import nearest, resize_short_side
from recseg.errors import RecsegError
from recseg.files import atomic_write

SUFFIX = ".pack"
MAGIC = b"recseg-pack-1\n"
DIGEST, LENGTH = 32, 8  # bytes at the end of the file


class PackedFolder(SegmentationFolder):
    """A split read from a pack: the same samples as those of the folder, at the pack's size.

    Args:
        path: the pack.
        split: the split that is expected in it; None takes the one it holds.
        transform: applied to each `Sample` as it is read.

    Raises:
        RecsegError: not a pack, truncated, changed since it was written, or of another split.
    """

    def __init__(
        self, path: Path | str, split: str | None = None, *, transform: Callable[[Sample], Sample] | None = None
    ) -> None:
        self.root, self.transform = Path(path), transform
        self.header = read_header(self.root)
        self.split = str(self.header["split"])
        names = check_names(self.header["classes"], str(path))
        self.legend = Legend.from_dict(names, self.header.get("legend"), str(path))
        if split not in (None, self.split):
            raise RecsegError(f"{path}: holds the split {self.split!r}, not {split!r}")
        self.ids = list(self.header["ids"])
        self.shapes: list[tuple[int, int]] = [(height, width) for height, width in self.header["shapes"]]
        sizes = [4 * height * width for height, width in self.shapes]  # three bytes of colour and one of label a pixel
        self._starts = len(MAGIC) + np.cumsum([0, *sizes[:-1]])
        self._bytes: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """The largest short side, in pixels."""
        return int(self.header["size"])

    @property
    def files(self) -> list[Path]:
        """The pack."""
        return [self.root]

    def __getstate__(self) -> dict[str, Any]:
        """A worker process maps the file itself: the content is not sent to it."""
        return self.__dict__ | {"_bytes": None}

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """The image `(h, w, 3)`: a view of the file, copied on write."""
        height, width = self.shapes[index]
        return self._view(int(self._starts[index]), (height, width, 3))

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The label map `(h, w)`, a view of the file."""
        height, width = self.shapes[index]
        return self._view(int(self._starts[index]) + 3 * height * width, (height, width))

    def _view(self, start: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        if self._bytes is None:
            with open(self.root, "rb") as stream:
                # Copy on write: torch wants writable memory, and nothing ever reaches the file.
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.frombuffer(self._bytes, dtype=np.uint8, count=int(np.prod(shape)), offset=start).reshape(shape)


def open_pack(
    path: Path | str, split: str | None = None, *, transform: Callable[[Sample], Sample] | None = None
) -> PackedFolder:
    """Open a pack; if the files that it was made of are there and have changed, it is made anew first."""
    packed = PackedFolder(path, split, transform=transform)
    root = Path(packed.header["source"])
    if not root.is_dir():  # made elsewhere, or its source is gone
        return packed
    source = SegmentationFolder(root, packed.split, classes=None if (root / FILE).exists() else packed.classes)
    if fingerprint(source) == packed.header["fingerprint"]:
        return packed
    write_pack(source, packed.root, packed.size)
    return PackedFolder(path, split, transform=transform)


def write_pack(source: SegmentationFolder, path: Path | str, size: int, *, progress: bool = True) -> Path:
    """Pack a split.

    Args:
        source: the split, without a transform.
        path: file to write; replaced when the new one is complete.
        size: short side in pixels; smaller images keep their size.
        progress: show a bar.

    Raises:
        RecsegError: an image that cannot be read, no room on the disk (said before anything is written).
    """
    path = Path(path)
    shapes = packed_shapes(source, size)
    need, free = pack_bytes(shapes), _free(path)
    if need > free:
        raise RecsegError(f"{path}: needs {need / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB left")
    about = {
        "size": size, "split": source.split, "classes": source.classes, "ids": source.ids, "shapes": shapes,
        "source": str(source.root.resolve()), "fingerprint": fingerprint(source), "legend": source.legend.to_dict(),
    }  # fmt: skip
    digest = hashlib.sha256()
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:

        def put(data: bytes) -> None:
            digest.update(data)
            stream.write(data)

        put(MAGIC)
        for index in tqdm(range(len(source)), desc=f"pack {source.split}", unit="image", disable=not progress):
            image, labels, _ = source[index]  # (3, H, W), (H, W)
            height, width = shapes[index]
            if (height, width) != tuple(labels.shape):
                image, labels = resize_short_side(image, size), nearest(labels, height, width)
            put(image.permute(1, 2, 0).contiguous().numpy().tobytes())  # (3, h, w) -> (h, w, 3)
            put(labels.numpy().astype(np.uint8).tobytes())
        header = json.dumps(about).encode()
        put(header)
        put(len(header).to_bytes(LENGTH, "little"))
        stream.write(digest.digest())
    return path


def read_header(path: Path) -> dict[str, Any]:
    """The header of a pack, whose checksum is verified.

    Raises:
        RecsegError: no such file, not a pack, or not what was written.
    """
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[: len(MAGIC)] != MAGIC:
                raise RecsegError(f"{path}: not a pack (recseg data pack makes them)")
            with memoryview(content) as view:
                end = len(view) - DIGEST
                if end < len(MAGIC) + LENGTH or hashlib.sha256(view[:end]).digest() != view[end:]:
                    raise RecsegError(f"{path}: is cut short or damaged; delete it and run recseg data pack again")
                begin = end - LENGTH - int.from_bytes(view[end - LENGTH : end], "little")
                header: dict[str, Any] = json.loads(bytes(view[begin : end - LENGTH]))
                whole = len(MAGIC) + pack_bytes(header["shapes"]) == begin
                if not whole or len(header["ids"]) != len(header["shapes"]):
                    raise ValueError
    except RecsegError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:  # ValueError: an empty file cannot be mapped
        reason = getattr(error, "strerror", None) or "not a pack (recseg data pack makes them)"
        raise RecsegError(f"{path}: {reason}") from error
    return header


def packed_shapes(source: SegmentationFolder, size: int) -> list[tuple[int, int]]:
    """(h, w) of each sample of a split in a pack: short sides of at most `size`. No image is decoded."""
    shapes = []
    for mask in source.mask_paths:
        height, width = header_size(mask)
        shapes.append((height, width) if min(height, width) <= size else resized_shape(height, width, size))
    return shapes


def pack_bytes(shapes: list[tuple[int, int]]) -> int:
    """Bytes of the samples of a pack."""
    return sum(4 * height * width for height, width in shapes)


def fingerprint(source: SegmentationFolder) -> str:
    """SHA-256 over names, sizes and modification times of all files of a split, and the meaning of its values."""
    facts: list[Any] = [source.classes]
    if source.legend != Legend.plain(source.classes):
        facts.append(astuple(source.legend))
    for name, image, mask in zip(source.ids, source.image_paths, source.mask_paths, strict=True):
        facts.append([name, *((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in (image, mask))])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def header_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image or a mask, upright, without decoding it."""
    try:
        with Image.open(path) as image:
            return (image.width, image.height) if is_turned(image) else (image.height, image.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RecsegError(f"{path}: cannot be read as an image") from error


def _free(path: Path) -> int:
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(folder).free
