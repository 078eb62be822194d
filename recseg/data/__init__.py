"""Data sets by name: `pictograms` (embedded), `voc`, any folder in VOC's layout, a pack of one of these.

All give the same samples. Importing this package does not import torch, so that reading an image stays fast.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recseg.errors import RecsegError
from recseg.resources import cache_dir, small_mode

if TYPE_CHECKING:
    from recseg.data.folder import Sample, SegmentationFolder

NAMED = ("pictograms", "voc")

__all__ = ["NAMED", "Sample", "SegmentationFolder", "check_no_leak", "open_dataset", "open_train", "voc_root"]


def open_dataset(
    data: str, split: str, *, transform: "Callable[[Sample], Sample] | None" = None
) -> "SegmentationFolder":
    """Open one split of `"pictograms"`, `"voc"`, a folder, or a pack (`*.pack`, see `recseg.data.pack`).

    The committed pictograms are the validation images; training images are drawn once, into the cache (small mode uses
    the committed `train` images). VOC is looked for in `$RECSEG_VOC_ROOT`, then in the cache.

    Raises:
        RecsegError: no such folder or split, not in VOC's layout, or a VOC training list that shares images with val.
    """
    from recseg.data.folder import SegmentationFolder, read_split
    from recseg.data.pack import SUFFIX, open_pack

    if data == "pictograms":
        from recseg.data.pictograms import embedded_root, ensure_train

        root = ensure_train() if split == "train" and not small_mode() else embedded_root()
        return SegmentationFolder(root, split, transform=transform)
    if data == "voc":
        dataset = SegmentationFolder(voc_root(), split, transform=transform)
        # SBD's own training list contains images of VOC's val, which would invalidate the score.
        has_val = (dataset.root / "ImageSets" / "Segmentation" / "val.txt").is_file()
        if has_val and split.startswith("train") and split != "trainval":
            check_no_leak(dataset, read_split(dataset.root, "val"))
        return dataset
    if data.endswith(SUFFIX):
        return open_pack(Path(data).expanduser(), split, transform=transform)
    return SegmentationFolder(Path(data).expanduser(), split, transform=transform)


def open_train(
    data: str, split: str | None = None, *, transform: "Callable[[Sample], Sample] | None" = None
) -> "SegmentationFolder":
    """Open a split to train on: by default `train`; for VOC `train_aug` if it exists; for a pack the one it holds."""
    from recseg.data.pack import SUFFIX, open_pack

    if split is None and data.endswith(SUFFIX):
        return open_pack(Path(data).expanduser(), transform=transform)
    if split is None and data == "voc":
        with suppress(RecsegError):
            return open_dataset(data, "train_aug", transform=transform)
    return open_dataset(data, split or "train", transform=transform)


def voc_root() -> Path:
    """The folder of VOC 2012 (the one with `JPEGImages`): in `$RECSEG_VOC_ROOT`, or where `recseg data voc` puts it."""
    from recseg.data.folder import find_root

    given = os.environ.get("RECSEG_VOC_ROOT")
    root = Path(given) if given else cache_dir() / "voc"
    try:
        return find_root(root)
    except RecsegError as error:
        raise RecsegError(
            f"{error} (VOC 2012: run `recseg data voc --root DIR`, then set RECSEG_VOC_ROOT=DIR)"
        ) from error


def check_no_leak(train: "SegmentationFolder | Sequence[str]", val: "SegmentationFolder | Sequence[str]") -> None:
    """Refuse two splits (or lists of ids) that share an image.

    Raises:
        RecsegError: names the first shared id.
    """
    from recseg.data.folder import SegmentationFolder, shared_ids

    shared = shared_ids(*(split.ids if isinstance(split, SegmentationFolder) else split for split in (train, val)))
    if shared:
        raise RecsegError(f"{shared[0]!r} is both in the training and in the validation list ({len(shared)} such ids)")


def __getattr__(name: str) -> object:
    if name in ("Sample", "SegmentationFolder"):
        from recseg.data import folder

        return getattr(folder, name)
    raise AttributeError(f"module 'recseg.data' has no attribute {name!r}")
