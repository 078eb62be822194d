"""Converts exports of annotation tools to folders in VOC's layout: `recseg data import`.

A reader for each format lists images and outlines (`export`), `shapes` fills the outlines, `write` writes the folder.
Polygons are filled by pycocotools: it depends only on NumPy and gives the same pixels as COCO's own tools.
(datumaro reads more formats but has a dozen dependencies; supervision does not report what it drops.)
"""

from pathlib import Path
from typing import TYPE_CHECKING

from recseg.errors import RecsegError

if TYPE_CHECKING:
    from recseg.data.annotations.export import Export

FORMATS = ("coco", "labelme", "cvat", "masks")


def read_export(source: Path | str, format: str) -> "Export":
    """The images and outlines of an export; no pixel is read yet.

    Args:
        source: file or folder.
        format: one of `FORMATS`.

    Raises:
        RecsegError: no such file, or not of this format: names the file.
    """
    from recseg.data.annotations.coco import read_coco
    from recseg.data.annotations.cvat import read_cvat
    from recseg.data.annotations.labelme import read_labelme
    from recseg.data.annotations.masks import read_masks

    if not Path(source).exists():
        raise RecsegError(f"{source}: no such file or folder")
    if format not in FORMATS:
        raise RecsegError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    readers = {"coco": read_coco, "labelme": read_labelme, "cvat": read_cvat, "masks": read_masks}
    return readers[format](Path(source))
