"""Whole data folders as people make them, of one kind in each place, with or without one fault.

What each value of a mask means follows here from the kinds alone, without a reader of the project.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from odd_data import BAD_LISTS, BAD_MASKS, GOOD_LISTS, NAMES
from odd_pictures import BAD, GOOD, Pixels, exif, scene, stored
from PIL import Image

from recseg.classes import VOID, palette
from recseg.data.images import SUFFIXES

ODD_CLASSES = {
    "latin-1": b"background\ncaf\xe9\n", "empty": b"", "zero width": "background\na\u200bb\n".encode(),
    "value twice": b"value,name\n0,a\n0,b\n", "long value": b"value,name\n0,a\n" + b"1" * 5000 + b",b\n",
    "large value": b"value,name\n0,a\n256,b\n", "long name": b"value,name\n0,a\n1," + b"b" * 140_000,
    "open quote": b'value,name\n0,a\n1,"b\n2,c\n', "semicolons": b"value;name\n0;a\n1;b\n",
    "row too long": b"value,name\n0,a\n1,b,c\n",
    "bright colour": b'name,colour\na,"rgb(300,0,0)"\nb,red\n',
    "bright share": b'name,colour\na,red\nb,"rgb(0%,101%,0%)"',
}  # fmt: skip
MODES = ["L", "P", "P, VOC's colours", "P, other colours", "1", "I;16", "RGB"]
BAD_PICTURES = sorted(set(BAD) - {"bomb"})  # which takes a second
FAULTS = {
    "list": sorted(BAD_LISTS), "classes": list(ODD_CLASSES), "image": [*BAD_PICTURES, "missing", "two"],
    "mask": ["value", "half clear", "few bits", "other size", "jpeg", "text", "empty", "folder", "missing"],
}  # fmt: skip


@dataclass(frozen=True)
class Classes:
    """What classes.txt is: absent, `number` names, or a table of `values`, the last `void` of which are void."""

    form: str = "none"
    number: int = 3
    values: tuple[int, ...] = (0, 7, 200, 255)
    void: int = 0
    background: bool = False
    coloured: bool = False
    ending: str = "\n"

    def labels(self) -> dict[int, int]:
        """The label of each value."""
        if self.form != "table":
            return {VOID: VOID} | {value: value for value in range(21 if self.form == "none" else self.number)}
        classes = self.values[: len(self.values) - self.void]
        labels = {value: label for label, value in enumerate(classes, start=not self.background)}
        voids = self.values[len(classes) :] or ((VOID,) if VOID not in classes else ())
        return labels | dict.fromkeys(voids, VOID)

    def colours(self) -> dict[int, tuple[int, int, int]]:
        """The colour of each value that a mask of colours can show."""
        table, values = self.form == "table" and self.coloured, list(self.labels())
        if table:
            classes = len(self.values) - self.void
            own = {value: (value, 77, 130) for value in self.values[: classes + min(1, self.void)]}
            return own | dict.fromkeys(values[len(self.values) :], (224, 224, 192))
        return {} if self.form == "table" else {value: tuple(palette()[value].tolist()) for value in values}

    def write(self, path: Path) -> None:
        if self.form == "names":
            lines = ["background", *(f"klass {label} é" for label in range(1, self.number))]
        else:
            names = [f'"rock {value}, wet"' for value in self.values]
            names[0] = "Background" if self.background else names[0]
            names[len(names) - self.void :] = ["void"] * self.void
            rows = [f"{name}, {value}" for name, value in zip(names, self.values, strict=True)]
            if self.coloured:
                rows = [f"{row},#{value:02x}4d82" for row, value in zip(rows, self.values, strict=True)]
            head = '"name",value' + ",Color" * self.coloured
            # The row of the background is the last, though its label is 0.
            lines = [head, *rows[1:], rows[0]] if self.background else []
            lines = lines or [head, *rows]
        if self.form != "none":
            path.write_bytes(("\ufeff" + self.ending.join(lines)).encode())


@dataclass(frozen=True)
class Item:
    """An image and its mask: kinds, size, how each is spelt on disk, the EXIF orientation of the mask."""

    name: str
    picture: str = "png"
    suffix: str = ".png"
    mode: str = "L"
    turn: int = 1
    size: tuple[int, int] = (5, 7)
    form: str = "NFC"

    def path(self, root: Path, folder: str, suffix: str) -> Path:
        return root / folder / (unicodedata.normalize(self.form, self.name) + suffix)  # type: ignore[arg-type]

    def write(self, root: Path, seed: int, classes: Classes) -> tuple[Pixels, Pixels]:
        """Pixels (H, W, 3) and labels (H, W) that must be read."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        meaning, colours = classes.labels(), classes.colours()
        pixels = GOOD[self.picture](rng, scene(rng, *self.size), self.path(root, "JPEGImages", self.suffix))
        fitting = [value for value in meaning if {"1": value < 2, "RGB": value in colours}.get(self.mode, True)]
        values = rng.choice(fitting or list(meaning), self.size).astype(np.uint8)  # (H, W)
        labels = np.vectorize(meaning.get)(values).astype(np.uint8)
        table = palette()
        for value, colour in colours.items():
            table[value] = colour
        mode = self.mode if fitting else "L"
        shown = {
            "1": values > 0, "RGB": table[values],
            "I;16": np.where((labels == VOID) & (rng.random(self.size) < 0.5), 65535, values.astype(np.uint16)),
        }.get(mode, values)  # fmt: skip
        image = Image.fromarray(stored(shown.astype(np.uint16) if mode == "I;16" else shown, self.turn))
        if mode[0] == "P":
            image.putpalette({"P": table, "P, VOC's colours": palette()}.get(mode, palette() ^ 5).tobytes())
        image.save(self.path(root, "SegmentationClass", ".png"), exif=exif(self.turn))
        return pixels, labels


def spoil(root: Path, items: Sequence[Item], classes: Classes, what: str, kind: str) -> str:
    """Put one fault into a folder; the name of the file that a complaint must hold."""
    rng, last = np.random.default_rng(0), items[-1]
    image, mask = last.path(root, "JPEGImages", last.suffix), last.path(root, "SegmentationClass", ".png")
    labels = np.zeros(last.size, np.uint8)
    if what == "list":
        (root / "ImageSets/Segmentation/train.txt").write_bytes(BAD_LISTS[kind]([item.name for item in items]))
        return "train.txt"
    if what == "classes":
        (root / "classes.txt").write_bytes(ODD_CLASSES[kind])
        return "classes.txt"
    if what == "image" and kind == "two":
        image.with_name(mask.stem + (".webp" if last.suffix.lower() != ".webp" else ".bmp")).write_bytes(b"")
        return mask.stem
    (image if what == "image" else mask).unlink()
    if what == "image":
        if kind != "missing":
            BAD[kind](rng, image)
        return mask.stem
    if kind == "value":
        labels[0, 0] = min(set(range(256)) - set(classes.labels()))
        Image.fromarray(labels).save(mask)
    else:
        BAD_MASKS[kind](rng, labels, mask)
    return mask.name


letters = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="/\\\ufeff")
names = (st.sampled_from(NAMES) | st.text(letters, min_size=1, max_size=10).map(str.strip)).filter(
    lambda name: name not in {"", ".", ".."}
)
suffixes = st.sampled_from([*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)])
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
item_of = st.builds(
    Item, names, st.sampled_from(sorted(GOOD)), suffixes, st.sampled_from(MODES), st.integers(1, 8), sizes,
    st.sampled_from(["NFC", "NFD"]),
)  # fmt: skip
many_items = st.lists(item_of, min_size=1, max_size=3, unique_by=lambda item: unicodedata.normalize("NFC", item.name))
values_of = st.lists(st.integers(0, 255), min_size=4, max_size=7, unique=True).map(tuple)
classes_of = st.builds(
    Classes, st.sampled_from(["none", "names", "table", "table"]), st.integers(2, 40), values_of, st.integers(0, 2),
    st.booleans(), st.booleans(), st.sampled_from(["\n", "\r\n", " \r\n\r\n"]),
)  # fmt: skip
fault_of = st.sampled_from([(what, kind) for what, kinds in FAULTS.items() for kind in kinds])


def make(root: Path, items: Sequence[Item], classes: Classes, lists: str) -> list[tuple[Pixels, Pixels]]:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    classes.write(root / "classes.txt")
    (root / "ImageSets/Segmentation/train.txt").write_bytes(GOOD_LISTS[lists]([item.name for item in items]))
    return [item.write(root, seed, classes) for seed, item in enumerate(items)]
