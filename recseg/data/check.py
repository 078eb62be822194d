"""Reports what a folder contains and what may be wrong with it: `recseg data check`, and the start of each training.

A program cannot know what a mask's values mean, but it can count them and report how it reads them.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recseg.classes import BACKGROUND, VOC_CLASSES, VOID, Legend, has_background
from recseg.data.description import FILE
from recseg.data.images import SUFFIXES
from recseg.data.survey import Survey
from recseg.errors import RecsegError, counted, some

if TYPE_CHECKING:
    from recseg.data.folder import SegmentationFolder

FEW = 20  # with fewer images than this, a class is hardly learned
SHOWN = 12  # classes named in one line
TABLE = f"a table in {FILE} (value,name)"
_VOID_NAMES = re.compile(
    r"_*(void|ignored?|un-?known|undefined|(un|not?)[ _-]?(label+ed|annotated|label)|don.?t.?care)_*"
)
_BACKGROUND_NAMES = re.compile(r"_*(back[ _-]?ground|bg|other|others|none|nothing|rest|clutter)_*")


def summary(dataset: "SegmentationFolder", found: Survey) -> list[str]:
    """Two lines: number and sizes of the images; value and share of pixels of each class."""
    count, void = len(found.ids), int(found.pixels[VOID]) / max(1, int(found.pixels.sum()))
    low, high = ("×".join(map(str, f(found.sizes, axis=0)[::-1])) if count else "–" for f in (np.min, np.max))
    size = low if low == high else f"from {low} to {high}"
    head = f"{dataset.split}: {counted(count, 'image')}, {size}; void {void:.1%} of all pixels"
    labels = [label for label in range(dataset.num_classes) if found.pixels[label]]
    kept = sorted(sorted(labels, key=lambda label: -found.shares[label])[:SHOWN])
    words = ", ".join(f"{named(dataset.legend, label)} {found.shares[label]:.1%}" for label in kept)
    rest = f", and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    kind = "" if has_background(dataset.classes) else ", and no background"
    return [head, f"classes{kind}: {words}{rest}"]


def named(legend: Legend, label: int) -> str:
    """A label's value and name; "= background" follows if its name does not say so."""
    name = legend.names[label]
    taken = " = background" if label == BACKGROUND and not _BACKGROUND_NAMES.fullmatch(name.lower()) else ""
    return f"{legend.values[label]} {name}{taken}"


def faults(dataset: "SegmentationFolder", found: Survey) -> Iterator[str]:
    """What makes a split unusable for training and scoring: one line per fault, with what to do."""
    if not found.ids:
        return
    none = f"{dataset.root}: no mask of the split {dataset.split!r} holds"
    void = f"value {', '.join(map(str, dataset.legend.void))}"
    if not found.pixels[:VOID].any():
        yield f"{none} a class or background, only void ({void}); {TABLE} says what the values mean"
    elif not found.pixels[BACKGROUND + 1 : VOID].any():
        held = f"only background and void ({void})" if found.pixels[VOID] else "only background"
        yield f"{none} a class, {held}; if a value means one of yours, {TABLE} says so"
    if words := _two_colours(found, own=True):
        yield (
            f"{dataset.root}: the masks of {dataset.split} have palettes of their own: {words}; save them as grey with "
            f"class ids, or as RGB with the colours in {FILE} (value,name,colour)"
        )


def _two_colours(found: Survey, *, own: bool) -> str:
    """Names an index with two colours, among all masks or (`own`) those whose palettes have no unused colours."""
    seen: dict[int, tuple[tuple[int, ...], str]] = {}
    for value, colour, alone, name in found.colours:
        if alone or not own:
            other, first = seen.setdefault(value, (colour, name))
            if other != colour:
                return f"index {value} is {other} in {first}.png and {colour} in {name}.png"
    return ""


def hints(dataset: "SegmentationFolder", found: Survey) -> Iterator[str]:
    """Possible mistakes: one line each, with what to do."""
    legend, shares, images = dataset.legend, found.shares, found.images
    plain, own = legend.to_dict() is None and legend.void == (VOID,), legend.names != VOC_CLASSES
    first = legend.names[BACKGROUND]
    folder = hasattr(dataset, "mask_paths") and dataset.root.name != "VOC2012"  # neither a pack nor VOC itself
    if folder and not own and not (dataset.root / FILE).exists():
        yield f"no {FILE} in {dataset.root}: the names are VOC's (1 aeroplane, 2 bicycle, …); write your own there"
    void_names = [label for label, name in enumerate(legend.names) if _VOID_NAMES.fullmatch(name.lower())]
    for label in void_names:
        yield (
            f"{named(legend, label)!r} is scored like any class; if it marks unlabelled pixels, call it void in {TABLE}"
        )
    if plain and BACKGROUND not in void_names and not _BACKGROUND_NAMES.fullmatch(first.lower()):
        yield (
            f"{first!r}, the first of {FILE}, is taken for the background, which no step names; "
            f"put background before it, or, if there is none, use {TABLE}"
        )
    if has_background(legend.names) and found.ids:
        share, value = shares[BACKGROUND], legend.values[BACKGROUND]
        if not share:
            yield f"no pixel is background (value {value}); without a row background, {TABLE} says that there is none"
        elif share > 0.99:
            yield f"{share:.1%} of the pixels are background (value {value})"
        elif plain and not found.pixels[VOID] and share < 0.5 and (found.areas[:, :VOID] > 0).sum(axis=1).mean() >= 3:
            yield (
                f"every pixel is labelled, and value {value} is taken for the background, which no step names; "
                f"if it is a class, or another value means void, say so in {TABLE}"
            )
    classes = list(enumerate(legend.names))[1:]
    if own and (absent := [name for label, name in classes if not images[label]]):
        yield f"in no mask of {dataset.split}: {some(absent, SHOWN)}"
    if rare := [f"{name} ({images[label]})" for label, name in classes if 0 < images[label] < FEW]:
        yield f"in fewer than {FEW} images of {dataset.split}: {some(rare, SHOWN)}"
    pixels, solid = found.pixels, found.solid
    if rims := [name for label, name in classes if pixels[label] >= 4 * FEW and solid[label] < 0.02 * pixels[label]]:
        yield f"nowhere two pixels wide: {some(rims, SHOWN)}; are the masks smoothed? resize them by the nearest pixel"
    if words := _two_colours(found, own=False):
        yield f"{words}; is it the same class in both?"


def compared(train: "SegmentationFolder", first: Survey, val: "SegmentationFolder", second: Survey) -> Iterator[str]:
    """Classes that occur in only one of two splits."""
    for one, other, here, there in ((train, val, first, second), (val, train, second, first)):
        if only := [name for name, a, b in zip(one.classes, here.images, there.images, strict=False) if a and not b]:
            yield f"in masks of {one.split} and none of {other.split}: {some(only, SHOWN)}"


def image_faults(dataset: "SegmentationFolder", found: Survey) -> Iterator[str]:
    """Images that cannot be opened or differ in size from their masks; no pixels are decoded."""
    from recseg.data.pack import header_size

    sizes = dict(zip(found.ids, found.sizes.tolist(), strict=True))
    for name, path in zip(dataset.ids, dataset.image_paths, strict=True):
        try:
            height, width = header_size(path)
        except RecsegError as error:
            yield str(error)
            continue
        if name in sizes and [height, width] != sizes[name]:
            yield f"{path}: is {width}×{height} pixels, its mask {sizes[name][1]}×{sizes[name][0]}"


def between(root: Path, datasets: "list[SegmentationFolder]") -> tuple[list[str], list[str]]:
    """Faults and hints about the splits of a folder: images in several of them, or in none."""
    from recseg.data.duplicates import near_duplicates
    from recseg.data.folder import shared_ids

    wrong, doubtful = list[str](), list[str]()
    for one, other in itertools.combinations(datasets, 2):
        if shared := shared_ids(one.ids, other.ids):
            wrong.append(f"{min(shared)!r} is both in {one.split} and in {other.split} ({len(shared)} such ids)")
            continue
        doubtful += compared(one, one.survey(skip=True), other, other.survey(skip=True))
        with suppress(RecsegError):  # an image that cannot be read is reported elsewhere
            if pairs := near_duplicates(one, other):
                first, second, _ = pairs[0]
                words = f"near-duplicates in {one.split} and {other.split}: {len(pairs)}, such as"
                doubtful.append(f"{words} {first!r} and {second!r}; keep images taken together in one list")
    images = {path for dataset in datasets for path in dataset.image_paths}
    there = [path for path in (root / "JPEGImages").iterdir() if path.suffix.lower() in SUFFIXES]
    if others := [path.stem for path in there if path not in images]:
        doubtful.append(f"in none of these lists, {len(others)} images: {some(sorted(others), SHOWN)}")
    return wrong, doubtful


def examine(train: "SegmentationFolder", val: "SegmentationFolder | None", *, skip: bool = False) -> list[str]:
    """The lines printed at the start of a training: summaries and hints.

    Args:
        train: the split to train on.
        val: the validation split, if any.
        skip: skip masks that cannot be read.

    Raises:
        RecsegError: a fault of the data, or a mask that cannot be read.
    """
    found = train.survey(skip=skip)
    for fault in faults(train, found):
        raise RecsegError(fault)
    lines, warnings = summary(train, found), list(hints(train, found))
    if val is not None:
        other = val.survey(skip=skip)
        for fault in faults(val, other):
            raise RecsegError(fault)
        lines.append(summary(val, other)[0])
        warnings += compared(train, found, val, other)
    return [*lines, *(f"check: {warning}" for warning in warnings)]
