"""What the readers return for `write_folder`: images and their outlines, no pixels."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias

from recseg.classes import BACKGROUND, VOID, Colour, Legend, check_names, default_colours
from recseg.data.images import SUFFIXES
from recseg.errors import RecsegError
from recseg.files import one_spelling

# Polygons as flat lists x, y, x, y …; COCO's RLE {"size": [H, W], "counts": …}; or a mask file (non-zero pixels).
Outline: TypeAlias = list[list[float]] | dict[str, Any] | Path
BOXES = "holds boxes, not masks: they do not say which pixels belong to a class; draw polygons or masks"


@dataclass(frozen=True)
class Shape:
    """The pixels of one object.

    Attributes:
        name: of its class; `background` and `void` are reserved.
        outline: its pixels.
        z: shapes with a larger z are in front.
    """

    name: str
    outline: Outline
    z: int = 0


@dataclass(frozen=True)
class Annotated:
    """An image and its annotation: shapes, or a mask with the legend's values.

    Attributes:
        name: path as written in the export; its stem becomes the id.
        origin: file that lists it.
        split: `train`, `val`, `test` …, or `""`.
        size: (H, W) according to the export, if given.
    """

    name: str
    origin: Path
    split: str = ""
    size: tuple[int, int] | None = None
    shapes: tuple[Shape, ...] = ()
    mask: Path | None = None


@dataclass(frozen=True)
class Export:
    """A whole export.

    Attributes:
        root: folder to search for images.
        legend: names and colours of the labels, and the values of masks.
        images: without duplicates.
        notes: what was dropped or changed, and how often.
    """

    root: Path
    legend: Legend
    images: list[Annotated]
    notes: Counter[str] = field(default_factory=Counter)


def legend_of(classes: Mapping[str, Colour | None], origin: Path) -> Legend:
    """The legend of classes and their colours (or None), background first."""
    named = {name: colour for name, colour in classes.items() if label_word(name) not in ("background", "void")}
    names = check_names(("background", *named), str(origin))
    colours = ((0, 0, 0), *(colour for colour in named.values() if colour))
    coloured = len({*colours, Legend.void_colour}) == len(names) + 1  # every class has one, all different
    colours = colours if coloured else default_colours(len(names))
    return Legend(names, tuple(range(len(names))), colours, coloured=coloured)


def label_word(name: str) -> str:
    """A name in lower case; labelme's spellings of background and void become `background` and `void`."""
    word = name.lower()
    return {"_background_": "background", "__ignore__": "void"}.get(word, word)


def label_of(name: str, legend: Legend) -> int:
    """The label of a class by its name."""
    special = {"background": BACKGROUND, "void": VOID}.get(label_word(name))
    return legend.names.index(name) if special is None else special


def split_of(*words: str) -> str:
    """The split named by the first of these file or folder names that names one; `""` if none does."""
    found = re.search(r"(?<![a-z])(train|val|test)(ing|id|idation)?(?![a-z])", "\n".join(words).lower())
    return found[1] if found else ""


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder, sorted; links to folders are followed, and each folder is visited once."""
    seen = set[str]()
    for folder, below, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


class ImageFinder:
    """Finds the images below a folder by their names in an export."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name = defaultdict[str, list[Path]](list)
        for path in walk(root):
            if path.suffix.lower() in SUFFIXES:
                self.by_name[one_spelling(path.name)].append(path)

    def find(self, name: str, origin: Path) -> Path:
        """The file called `name`: relative to `origin`, else the one below the folder whose path ends with it.

        A name that leads out of the folder is a path in the tool's own storage; only its last part is searched for.

        Raises:
            RecsegError: no such file, or several.
        """
        plain = name.replace("\\", "/")
        parts = tuple(map(one_spelling, PurePosixPath(plain).parts))
        beside = Path(os.path.normpath(origin.parent / plain))
        absolute = plain.startswith("/") or bool(PureWindowsPath(name).drive) or "\0" in name
        outside = absolute or not parts or not beside.is_relative_to(os.path.normpath(self.root))
        if not outside and os.path.isfile(beside):  # unlike Path.is_file, False for names that are too long
            return beside
        found = self.by_name[parts[-1]] if parts else []
        if not outside:
            found = [path for path in found if tuple(map(one_spelling, path.parts[-len(parts) :])) == parts]
        if len(found) == 1:
            return found[0]
        none = f"which leads out of {self.root}" if outside else f"no such file below {self.root}"
        why = f"it may be {found[0]} or {found[1]}" if found else none
        raise RecsegError(f"{origin}: names the image {name!r}: {why}")


def load_json(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecsegError(f"{path}: cannot be read as JSON ({reason})") from error


def entry(table: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`table[key]`, which must be of type `kind`."""
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RecsegError(f"{where}: has no {key!r} as expected, but {str(value)[:60]!r}")
    return value
