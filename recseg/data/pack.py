"""A pack: the images of a split, decoded and resized once, in one memory-mapped file for training.

Decoding a photograph costs more than all later processing in training. With a pack it is done once. Its layout:

    magic | for each sample: image (h, w, 3) and labels (h, w), uint8 | header, JSON | its length, 8 bytes | SHA-256

The digest covers everything before it. The header holds the split's class names and ids, the shapes, and a fingerprint
of the source files. Workers share the file without a lock. A new pack replaces the old one only when it is complete;
processes that have the old one open keep reading it.
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

from recseg.classes import VOID, Legend, check_names
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
    """A split read from a pack; a drop-in replacement for the folder in training, at the pack's size.

    Args:
        path: the pack.
        split: the split expected in it; None accepts any.
        transform: applied to each `Sample` as it is read.

    Raises:
        RecsegError: not a pack, cut short, changed since it was written, or of another split.
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
        sizes = [4 * height * width for height, width in self.shapes]  # per pixel, 3 bytes of colour and 1 of label
        self._starts = len(MAGIC) + np.cumsum([0, *sizes[:-1]])
        self._bytes: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """Maximum length of the short side, in pixels."""
        return int(self.header["size"])

    @property
    def files(self) -> list[Path]:
        """The pack."""
        return [self.root]

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes map the file themselves: the map is not pickled."""
        return self.__dict__ | {"_bytes": None}

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """The image `(h, w, 3)`: a view of the file, copied on write."""
        height, width = self.shapes[index]
        return self._view(int(self._starts[index]), (height, width, 3))

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The label map `(h, w)`, a view of the file."""
        height, width = self.shapes[index]
        labels = self._view(int(self._starts[index]) + 3 * height * width, (height, width))
        if ((labels >= self.num_classes) & (labels != VOID)).any():
            raise RecsegError(f"{self.root}: {self.ids[index]!r} has a class index of {self.num_classes} or more")
        return labels

    def _view(self, start: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        if self._bytes is None:
            with open(self.root, "rb") as stream:
                # Copy on write: torch wants writable memory, and no change reaches the file.
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.frombuffer(self._bytes, dtype=np.uint8, count=int(np.prod(shape)), offset=start).reshape(shape)


def open_pack(
    path: Path | str, split: str | None = None, *, transform: Callable[[Sample], Sample] | None = None
) -> PackedFolder:
    """Open a pack; if its source files are available and have changed, it is rebuilt first."""
    packed = PackedFolder(path, split, transform=transform)
    root = Path(packed.header["source"])
    if not root.is_dir():  # made elsewhere, or the source is gone: used as it is
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
        RecsegError: an image that cannot be read, or not enough disk space (checked before anything is written).
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
    """The header of a pack, after its digest has been verified.

    Raises:
        RecsegError: no such file, not a pack, or damaged.
    """
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[: len(MAGIC)] != MAGIC:
                raise RecsegError(f"{path}: not a pack (recseg data pack makes them)")
            with memoryview(content) as view:
                end = len(view) - DIGEST
                if end < len(MAGIC) + LENGTH or hashlib.sha256(view[:end]).digest() != view[end:]:
                    raise RecsegError(f"{path}: is cut short or damaged; delete it and run recseg data pack again")
                length = int.from_bytes(view[end - LENGTH : end], "little")
                samples = end - LENGTH - length  # start of the header
                header: dict[str, Any] = json.loads(bytes(view[max(0, samples) : end - LENGTH]))
                if not _fits(header, samples - len(MAGIC)):
                    raise RecsegError(f"{path}: has an invalid header; delete it and run recseg data pack again")
    except RecsegError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # ValueError: an empty file cannot be mapped
        reason = getattr(error, "strerror", None) or "not a pack (recseg data pack makes them)"
        raise RecsegError(f"{path}: {reason}") from error
    return header


def _fits(header: Any, room: int) -> bool:
    """Whether a header has all its fields and describes as many bytes as there are; the digest does not ensure this."""
    kinds = {"size": int, "split": str, "classes": list, "ids": list, "shapes": list, "source": str, "fingerprint": str}
    if not isinstance(header, dict) or not all(isinstance(header.get(key), kind) for key, kind in kinds.items()):
        return False
    shapes = header["shapes"]
    sides = [side for shape in shapes if isinstance(shape, list) and len(shape) == 2 for side in shape]
    return (
        len(header["ids"]) == len(shapes) > 0
        and len(sides) == 2 * len(shapes)
        and all(type(side) is int and side > 0 for side in sides)
        and pack_bytes(shapes) == room
        and all(isinstance(name, str) for name in header["ids"])
    )


def packed_shapes(source: SegmentationFolder, size: int) -> list[tuple[int, int]]:
    """(h, w) of each sample in a pack: short sides of at most `size`; no image is decoded."""
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
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
