"""Exports of annotation tools become folders in VOC's layout: `recseg data import`.

A reader for each format says what stands in its files (`export`), `shapes` fills outlines, `write` writes the folder.
JSON, XML and CSV are read by the standard library, and polygons are filled by pycocotools: it needs nothing but NumPy,
and gives the pixels that COCO's own tools give. (datumaro reads more formats, and brings a dozen packages along;
supervision has boxes and masks in its own classes, without the reports of what was dropped.)
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recseg.errors import RecsegError

if TYPE_CHECKING:
    from recseg.data.annotations.export import Export

FORMATS = ("coco", "labelme", "cvat", "masks")


def read_export(source: Path | str, format: str) -> "Export":
    """What stands in an export; no pixel is read yet.

    Args:
        source: file or folder.
        format: one of `FORMATS`.

    Raises:
        RecsegError: not there, not of this format, or at fault: names the file.
    """
    from recseg.data.annotations.coco import read_coco
    from recseg.data.annotations.cvat import read_cvat
    from recseg.data.annotations.labelme import read_labelme
    from recseg.data.annotations.masks import read_masks

    readers: tuple[Callable[[Path], Export], ...] = (read_coco, read_labelme, read_cvat, read_masks)
    source = Path(source)
    if not source.exists():
        raise RecsegError(f"{source}: no such file or folder")
    if format not in FORMATS:
        raise RecsegError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    return dict(zip(FORMATS, readers, strict=True))[format](source)
