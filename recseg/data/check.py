"""What a folder holds, and what in it would be misunderstood: `recseg data check`, and the start of each training.

No reader can know what a mask's values mean. It can count them, and say in words what they are taken for.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from recseg.classes import BACKGROUND, VOC_CLASSES, VOID, Legend, has_background
from recseg.data.description import FILE
from recseg.errors import RecsegError

if TYPE_CHECKING:
    from recseg.data.folder import SegmentationFolder

FEW = 20  # images of a class below which hardly anything is learned about it
SHOWN = 12  # classes that a summary of one line names
TABLE = f"a table in {FILE} (value,name)"
_VOID_NAMES = re.compile(
    r"_*(void|ignored?|un-?known|undefined|(un|not?)[ _-]?(label+ed|annotated|label)|don.?t.?care)_*"
)
_BACKGROUND_NAMES = re.compile(r"_*(back[ _-]?ground|bg|other|others|none|nothing|rest|clutter)_*")


@dataclass
class Survey:
    """What all masks of a split hold.

    Attributes:
        areas: (N, 256) pixels of each label in each mask that could be read.
        ids: of these masks.
        sizes: (N, 2) their height and width.
        solid: (256,) squares of 2×2 pixels of one label, over all masks.
        unreadable: why other masks could not be read, by id.
        colours: of each value of indexed masks, where it is first met: value, colour, whether the palette holds nothing
            but the colours of its file, and id.
    """

    areas: NDArray[np.int32]
    ids: list[str]
    sizes: NDArray[np.int32]
    solid: NDArray[np.int64]
    unreadable: dict[str, RecsegError]
    colours: list[tuple[int, tuple[int, ...], bool, str]] = field(default_factory=list)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """(256,) pixels of each label."""
        return np.asarray(self.areas.sum(axis=0, dtype=np.int64))

    @property
    def images(self) -> NDArray[np.int64]:
        """(256,) images that hold each label."""
        return np.asarray((self.areas > 0).sum(axis=0))

    @property
    def shares(self) -> NDArray[np.float64]:
        """(255,) share of each label in all pixels that are not void."""
        labelled = self.pixels[:VOID]
        return labelled / max(1, int(labelled.sum()))

    @property
    def most_classes(self) -> int:
        """The most classes, background not counted, of one image."""
        return int((self.areas[:, BACKGROUND + 1 : VOID] > 0).sum(axis=1).max(initial=0))


def survey(dataset: "SegmentationFolder", *, skip: bool = False) -> Survey:
    """Read all masks of a split once.

    Raises:
        RecsegError: a mask that cannot be read; with `skip`, it is listed instead.
    """
    areas, ids, sizes, solid = [], [], [], np.zeros(256, np.int64)
    unreadable: dict[str, RecsegError] = {}
    colours: dict[tuple[int, tuple[int, ...], bool], str] = {}
    for index in tqdm(range(len(dataset)), desc="read masks", disable=None if len(dataset) > 500 else True):
        try:
            labels = dataset.labels(index)  # (H, W)
        except RecsegError as error:
            if not skip:
                raise
            unreadable[dataset.ids[index]] = error
            continue
        areas.append(np.bincount(labels.ravel(), minlength=256).astype(np.int32))
        ids.append(dataset.ids[index])
        sizes.append(labels.shape)
        corner = labels[:-1, :-1]
        same = (corner == labels[1:, :-1]) & (corner == labels[:-1, 1:]) & (corner == labels[1:, 1:])
        solid += np.bincount(corner[same], minlength=256)
        for key in _colours(dataset, index, np.flatnonzero(areas[-1]).tolist()):
            colours.setdefault(key, dataset.ids[index])
    return Survey(
        np.array(areas, np.int32).reshape(-1, 256), ids, np.array(sizes, np.int32).reshape(-1, 2), solid, unreadable,
        [(*key, name) for key, name in colours.items()],
    )  # fmt: skip


def _colours(
    dataset: "SegmentationFolder", index: int, present: list[int]
) -> Iterator[tuple[int, tuple[int, ...], bool]]:
    """Values of an indexed mask, their colours there, and whether its palette holds no others."""
    if not hasattr(dataset, "mask_paths"):  # a pack has labels alone
        return
    with suppress(OSError), Image.open(dataset.mask_paths[index]) as mask:  # its palette, no pixels
        if mask.mode != "P":
            return
        palette = mask.getpalette() or []
        for label in present:
            value = dataset.legend.values[label] if label != VOID else None
            if value is not None and 3 * value < len(palette):
                yield value, tuple(palette[3 * value : 3 * value + 3]), len(palette) <= 3 * len(present)


def summary(dataset: "SegmentationFolder", found: Survey) -> list[str]:
    """Two lines: how many images of which size; which value is which class, and how much there is of each."""
    count, void = len(found.ids), int(found.pixels[VOID]) / max(1, int(found.pixels.sum()))
    low, high = ("×".join(map(str, f(found.sizes, axis=0)[::-1])) if count else "–" for f in (np.min, np.max))
    size = f"{low}" if low == high else f"from {low} to {high}"
    head = f"{dataset.split}: {count} images, {size}; void {void:.1%} of all pixels"
    labels = [label for label in range(dataset.num_classes) if found.pixels[label]]
    kept = sorted(sorted(labels, key=lambda label: -found.shares[label])[:SHOWN])
    words = ", ".join(f"{_named(dataset.legend, label)} {found.shares[label]:.1%}" for label in kept)
    rest = f", and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    kind = "" if has_background(dataset.classes) else ", and no background"
    return [head, f"classes{kind}: {words}{rest}"]


def _named(legend: Legend, label: int) -> str:
    name = legend.names[label]
    taken = " = background" if label == BACKGROUND and not _BACKGROUND_NAMES.fullmatch(name.lower()) else ""
    return f"{legend.values[label]} {name}{taken}"


def faults(dataset: "SegmentationFolder", found: Survey) -> Iterator[str]:
    """What makes a split worthless for training and scoring, in a line each that says what to do."""
    where = f"{dataset.root}: the masks of {dataset.split}"
    if not found.ids:
        return
    if not found.pixels[:VOID].any():
        yield f"{where} hold nothing but void ({_values(dataset.legend.void)}); {TABLE} says what the values mean"
    elif not found.pixels[BACKGROUND + 1 : VOID].any():
        void = f" and void ({_values(dataset.legend.void)})" if found.pixels[VOID] else ""
        yield f"{where} hold no class, only background{void}; if a value means one of yours, {TABLE} says so"
    if words := _two_colours(found, own=True):
        yield (
            f"{where} have palettes of their own: {words}; save them as grey with class ids, or as RGB "
            f"with the colours in {FILE} (value,name,colour)"
        )


def _two_colours(found: Survey, *, own: bool) -> str:
    """Words for an index that stands for two colours, among the masks with palettes of their own or among all."""
    seen: dict[int, tuple[tuple[int, ...], str]] = {}
    for value, colour, alone, name in found.colours:
        if alone or not own:
            other, first = seen.setdefault(value, (colour, name))
            if other != colour:
                return f"index {value} is {other} in {first}.png and {colour} in {name}.png"
    return ""


def _values(values: tuple[int, ...]) -> str:
    return f"value {', '.join(map(str, values))}"


def hints(dataset: "SegmentationFolder", found: Survey) -> Iterator[str]:
    """What may not be meant, in a line each that says what to do."""
    legend, shares, images = dataset.legend, found.shares, found.images
    plain, own = legend.to_dict() is None and legend.void == (VOID,), legend.names != VOC_CLASSES
    first = legend.names[BACKGROUND]
    if (
        not own
        and hasattr(dataset, "mask_paths")
        and not (dataset.root / FILE).exists()
        and dataset.root.name != "VOC2012"
    ):
        yield f"no {FILE} in {dataset.root}: the names are VOC's (1 aeroplane, 2 bicycle, …); write your own there"
    void_names = [label for label, name in enumerate(legend.names) if _VOID_NAMES.fullmatch(name.lower())]
    for label in void_names:
        yield (
            f"{_named(legend, label)!r} is scored like any class; if it says that nothing is labelled, "
            f"call it void in {TABLE}"
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
    absent = [legend.names[label] for label in range(1, len(legend.names)) if not images[label]]
    if absent and own:
        yield f"in no mask of {dataset.split}: {_some(absent)}"
    rare = [
        f"{legend.names[label]} ({images[label]})" for label in range(1, len(legend.names)) if 0 < images[label] < FEW
    ]
    if rare:
        yield f"in fewer than {FEW} images of {dataset.split}: {_some(rare)}"
    rims = [
        legend.names[label] for label in range(1, len(legend.names))
        if found.pixels[label] >= 4 * FEW and found.solid[label] < 0.02 * found.pixels[label]
    ]  # fmt: skip
    if rims:
        yield f"nowhere two pixels wide: {_some(rims)}; are the masks smoothed? resize them by the nearest pixel"
    if words := _two_colours(found, own=False):
        yield f"{words}; is it the same class in both?"


def _some(words: list[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def compared(train: "SegmentationFolder", first: Survey, val: "SegmentationFolder", second: Survey) -> Iterator[str]:
    """What two splits do not have in common, though they should."""
    for one, other, here, there in ((train, val, first, second), (val, train, second, first)):
        only = [name for name, a, b in zip(one.classes, here.images, there.images, strict=False) if a and not b]
        if only:
            yield f"in masks of {one.split} and none of {other.split}: {_some(only)}"


def between(root: Path, datasets: "list[SegmentationFolder]") -> tuple[list[str], list[str]]:
    """Faults and hints about several splits of a folder: what they share, and files that are in none of them."""
    from recseg.data.duplicates import near_duplicates

    wrong, doubtful = list[str](), list[str]()
    for one, other in itertools.combinations(datasets, 2):
        shared = set(one.ids) & set(other.ids)
        if shared:
            wrong.append(f"{min(shared)!r} is both in {one.split} and in {other.split} ({len(shared)} such ids)")
            continue
        doubtful += compared(one, one.survey(skip=True), other, other.survey(skip=True))
        with suppress(RecsegError):  # an image that cannot be read is told of elsewhere
            if pairs := near_duplicates(one, other):
                first, second, _ = pairs[0]
                words = f"{len(pairs)} images of {one.split} look like one of {other.split}: {first!r} like {second!r}"
                doubtful.append(f"{words}; keep what was taken together in one list")
    images = {path for dataset in datasets for path in dataset.image_paths}
    others = [path.stem for path in (root / "JPEGImages").iterdir() if path.is_file() and path not in images]
    if others:
        doubtful.append(f"in none of these lists, {len(others)} images: {_some(sorted(others))}")
    return wrong, doubtful


def examine(train: "SegmentationFolder", val: "SegmentationFolder | None", *, skip: bool = False) -> list[str]:
    """The lines that a training begins with: what there is, and hints.

    Args:
        train: what it learns from.
        val: what it is scored on meanwhile, if anything.
        skip: whether masks that cannot be read are to be passed over.

    Raises:
        RecsegError: a fault of the data, or a mask that cannot be read.
    """
    first, second = train.survey(skip=skip), None if val is None else val.survey(skip=skip)
    for fault in faults(train, first):
        raise RecsegError(fault)
    lines, warnings = summary(train, first), list(hints(train, first))
    if val is not None and second is not None:
        for fault in faults(val, second):
            raise RecsegError(fault)
        lines.append(summary(val, second)[0])
        warnings += compared(train, first, val, second)
    return [*lines, *(f"check: {warning}" for warning in warnings)]
