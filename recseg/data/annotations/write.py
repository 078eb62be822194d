"""Writes an export as a folder in VOC's layout, completely or not at all."""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from recseg.classes import BACKGROUND, VOID, Legend, has_background
from recseg.data.annotations.export import Annotated, Export, ImageFinder
from recseg.data.annotations.shapes import paint
from recseg.data.description import COLUMNS, FILE, csv_lines
from recseg.data.images import is_turned, read_image, read_labels
from recseg.errors import RecsegError, counted, one_line
from recseg.files import atomic_folder, one_spelling

EMPTY = "image without a shape"
VAL_FRACTION = 0.2


@dataclass
class Report:
    """What was written, and what was not.

    Attributes:
        legend: of the folder that was written.
        lists: ids of each list.
        images: how many show each label.
        pixels: of each label.
        shared: pixels that belong to shapes of two classes.
        overlapping: images that have such pixels.
        notes: what was dropped or changed, and how often.
        skipped: the reason, by image.
    """

    legend: Legend
    lists: dict[str, list[str]] = field(default_factory=dict)
    images: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    shared: int = 0
    overlapping: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A summary to print."""
        whole = max(1, sum(self.pixels.values()))
        lines = [", ".join(f"{name}: {counted(len(ids), 'image')}" for name, ids in self.lists.items())]
        for label, name in [*enumerate(self.legend.names), (VOID, "void")]:
            if label in self.images or label not in (BACKGROUND, VOID):
                share = self.pixels[label] / whole
                lines.append(f"  {f'{label} {name}':<32}{self.images[label]:7} images {share:7.2%}")
        if self.overlapping:
            where = f"in {counted(self.overlapping, 'image')} ({self.shared / whole:.2%} of all pixels)"
            lines.append(f"overlap: shapes of several classes {where}; in front: the larger z, then the smaller shape")
        lines += [f"note: {note}" for note in self.counted_notes()]
        lines += [f"skipped: {name}: {one_line(why)}" for name, why in self.skipped.items()]
        return lines

    def counted_notes(self) -> list[str]:
        """The notes, each with its count."""
        return [f"{count} × {what}" for what, count in sorted(self.notes.items()) if count]


def write_folder(
    export: Export,
    out: Path,
    *,
    val_fraction: float | None = None,
    seed: int = 0,
    drop_empty: bool = False,
    skip: bool = False,
    progress: bool = True,
) -> Report:
    """Write images, masks, lists and classes; images are copied as they are.

    Images in no list go to `train`. If the export has no list `val`, a random part of `train` becomes `val`.

    Args:
        export: what a reader returned.
        out: folder, new or empty.
        val_fraction: share of the images drawn for `val`, 0.2 by default.
        seed: of that choice.
        drop_empty: leave out images without a shape, which are otherwise all background.
        skip: leave out missing or invalid images instead of raising.
        progress: show a bar.

    Raises:
        RecsegError: an image is missing, differs in size from its annotation, or shares its name with another; no pixel
            has a class; `val_fraction` is out of range, or given although the export has a list `val`. Nothing is
            written then.
    """
    if val_fraction is not None and not 0 <= val_fraction < 1:
        raise RecsegError(f"val_fraction {val_fraction}: expected a share, from 0 to below 1")
    if val_fraction is not None and any(image.split == "val" for image in export.images):
        raise RecsegError(f"--val-fraction: {export.root} has a list of its own for val")
    report = Report(_plain(export.legend), notes=Counter(export.notes))
    ids, finder, seen = _ids(export.images), ImageFinder(export.root), dict[Path, str]()
    with atomic_folder(out) as folder:
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        bar = tqdm(export.images, "import", unit="img", disable=not progress)
        for name, image in zip(ids, bar, strict=True):
            try:
                path = finder.find(image.name, image.origin)
                labels = _labels(image, path, export.legend, report, drop_empty)
            except RecsegError as error:
                if not skip:
                    raise
                report.skipped[image.name] = str(error)
                continue
            if seen.setdefault(path, image.name) != image.name:
                raise RecsegError(f"{image.origin}: {image.name!r} and {seen[path]!r} are one image, {path}")
            if labels is None:
                continue
            shutil.copyfile(path, folder / "JPEGImages" / (name + path.suffix))
            _save(labels, report.legend, folder / "SegmentationClass" / f"{name}.png")
            report.lists.setdefault(image.split or "train", []).append(name)
        if not any(report.pixels[label] for label in range(1, VOID)):
            why = f" ({'; '.join(notes)})" if (notes := report.counted_notes()) else ""
            raise RecsegError(f"{export.root}: holds no pixel of a class{why}")
        _split(report.lists, VAL_FRACTION if val_fraction is None else val_fraction, seed)
        for split, members in report.lists.items():
            _write(folder / "ImageSets" / "Segmentation" / f"{split}.txt", members)
        _write(folder / FILE, _classes(report.legend))
    return report


def _plain(legend: Legend) -> Legend:
    """The same classes, each with its label as value; 255 is void."""
    values = (BACKGROUND if has_background(legend.names) else None, *range(1, len(legend.names)))
    return Legend(legend.names, values, legend.colours, coloured=legend.coloured)


def _ids(images: list[Annotated]) -> list[str]:
    """The id of each image: the stem of its name."""
    ids, seen = list[str](), dict[str, str]()
    for image in images:
        name = PurePosixPath(image.name.replace("\\", "/")).stem
        if not name.isprintable() or name != name.strip() or not name:
            raise RecsegError(f"{image.origin}: names the image {image.name!r}, expected plain letters")
        if (key := one_spelling(name).casefold()) in seen:  # the same on file systems that ignore case
            both = f"{seen[key]!r} and {image.name!r} would both be {name!r}"
            raise RecsegError(f"{image.origin}: {both}; give each image a name of its own")
        seen[key] = image.name
        ids.append(name)
    return ids


def _labels(image: Annotated, path: Path, legend: Legend, report: Report, drop_empty: bool) -> NDArray[np.uint8] | None:
    """The label map of an image, upright; None to leave the image out."""
    width, height = read_image(path).size
    if image.size not in (None, (height, width)):
        with Image.open(path) as opened:
            turned = is_turned(opened) and image.size == (width, height)
        why = "; its EXIF orientation turns it: annotate it upright, or remove the orientation" if turned else ""
        said = f"{image.size[1]}×{image.size[0]}"
        raise RecsegError(f"{path}: is {width}×{height} pixels, annotated in {image.origin.name} as {said}{why}")
    shared = 0
    if image.mask is None:
        try:
            labels, areas, shared = paint(image.shapes, height, width, legend)
        except RecsegError as error:
            raise RecsegError(f"{image.origin}: {image.name}: {error}") from error
        report.notes["shape without a pixel: left out"] += areas.count(0)
    else:
        labels = read_labels(image.mask, legend)
        if labels.shape != (height, width):
            size = f"{labels.shape[1]}×{labels.shape[0]}"
            raise RecsegError(f"{image.mask}: is {size} pixels, its image {path.name} {width}×{height}")
    if image.mask is None and not image.shapes:
        if drop_empty:
            report.notes[f"{EMPTY}: left out"] += 1
            return None
        report.notes[f"{EMPTY}: background everywhere (--drop-empty leaves it out)"] += 1
    counts = np.bincount(labels.ravel(), minlength=256)
    report.pixels.update({label: int(count) for label, count in enumerate(counts) if count})
    report.images.update(np.flatnonzero(counts).tolist())
    report.shared += shared
    report.overlapping += shared > 0
    return labels


def _save(labels: NDArray[np.uint8], legend: Legend, path: Path) -> None:
    indexed = Image.fromarray(labels)
    indexed.putpalette(legend.palette.tobytes())
    indexed.save(path)


def _split(lists: dict[str, list[str]], fraction: float, seed: int) -> None:
    """Move a random part of `train` to `val`, if there is none; both keep the order of the export."""
    train = lists.get("train", [])
    if "val" in lists or not fraction or len(train) < 2:
        return
    count = min(max(round(len(train) * fraction), 1), len(train) - 1)
    drawn = set(random.Random(seed).sample(train, count))
    lists["train"] = [name for name in train if name not in drawn]
    lists["val"] = [name for name in train if name in drawn]


def _classes(legend: Legend) -> list[str]:
    """The lines of `classes.txt`: names alone if they suffice, else a table."""
    if has_background(legend.names) and not legend.coloured:
        return list(legend.names)
    rows: list[Sequence[object]] = [COLUMNS if legend.coloured else COLUMNS[:2]]
    for name, value, colour in zip(legend.names, legend.values, legend.colours, strict=True):
        if value is not None:
            row = (value, "background" if value == BACKGROUND else name, "#{:02x}{:02x}{:02x}".format(*colour))
            rows.append(row[: len(rows[0])])
    return csv_lines(rows)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
