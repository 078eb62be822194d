"""What the readers of annotation tools' files give to `write_folder`: facts about images and shapes, no pixels."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias

from recseg.classes import BACKGROUND, VOID, Colour, Legend, check_names, default_colours
from recseg.data.images import SUFFIXES
from recseg.errors import RecsegError
from recseg.files import one_spelling

# Polygons as flat lists x, y, x, y …; COCO's RLE {"size": [H, W], "counts": …}; or a file whose non-zero pixels count.
Outline: TypeAlias = list[list[float]] | dict[str, Any] | Path
BOXES = "holds boxes, not masks: nothing says which pixels belong to a class; draw polygons or masks"


@dataclass(frozen=True)
class Shape:
    """The pixels of one object.

    Attributes:
        name: of its class; `background` and `void` have these meanings.
        outline: which pixels.
        z: shapes with a larger one are in front.
    """

    name: str
    outline: Outline
    z: int = 0


@dataclass(frozen=True)
class Annotated:
    """An image and what is drawn on it: shapes, or a mask that the legend explains.

    Attributes:
        name: path as the export writes it; its stem becomes the id.
        origin: file that says so.
        split: `train`, `val`, `test` …, or `""`.
        size: (H, W) as the export says, if it does.
    """

    name: str
    origin: Path
    split: str = ""
    size: tuple[int, int] | None = None
    shapes: tuple[Shape, ...] = ()
    mask: Path | None = None


@dataclass(frozen=True)
class Export:
    """All that was read.

    Attributes:
        root: folder that images are looked for in.
        legend: names and colours of the labels, and the values of masks.
        images: each once.
        notes: what was not taken as it is, and how often.
    """

    root: Path
    legend: Legend
    images: list[Annotated]
    notes: Counter[str] = field(default_factory=Counter)


def legend_of(classes: Mapping[str, Colour | None], origin: Path) -> Legend:
    """The legend of classes with their colours (None where there is none), the background before them."""
    named = {name: colour for name, colour in classes.items() if label_word(name) not in ("background", "void")}
    names = check_names(("background", *named), str(origin))
    colours = ((0, 0, 0), *(colour for colour in named.values() if colour))
    if len({*colours, Legend.void_colour}) != len(names) + 1:  # some without, or two alike
        return Legend(names, tuple(range(len(names))), default_colours(len(names)), coloured=False)
    return Legend(names, tuple(range(len(names))), colours)


def label_word(name: str) -> str:
    """`background` or `void` where a name says that, labelme's spelling included."""
    word = name.lower()
    return {"_background_": "background", "__ignore__": "void"}.get(word, word)


def label_of(name: str, legend: Legend) -> int:
    """The label of a class by its name."""
    special = {"background": BACKGROUND, "void": VOID}.get(label_word(name))
    return legend.names.index(name) if special is None else special


def split_of(*words: str) -> str:
    """The list that a file or folder belongs to by the first of its names that tells; `""` where none does."""
    for word in words:
        if found := re.search(r"(?<![a-z])(train|val|test)(ing|id|idation)?(?![a-z])", word.lower()):
            return found[1]
    return ""


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder, sorted; links to folders are followed, each folder is entered once."""
    seen = set[str]()
    for folder, below, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


class ImageFinder:
    """The images below a folder, by what an export calls them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name: dict[str, list[Path]] = {}
        for path in walk(root):
            if path.suffix.lower() in SUFFIXES:
                self.by_name.setdefault(one_spelling(path.name), []).append(path)

    def find(self, name: str, origin: Path) -> Path:
        """The file that is called `name`: as seen from `origin`, else the one below the folder whose path ends so.

        A name that leads out of the folder is that of the tool's own storage: it stands for the file inside that is
        called as its last part.

        Raises:
            RecsegError: none, or several.
        """
        plain = name.replace("\\", "/")
        parts = PurePosixPath(plain).parts
        beside = Path(os.path.normpath(origin.parent / plain))
        absolute = plain.startswith("/") or bool(PureWindowsPath(name).drive) or "\0" in name
        outside = absolute or not parts or not beside.is_relative_to(os.path.normpath(self.root))
        if not outside and os.path.isfile(beside):  # to which no name is too long
            return beside
        found = self.by_name.get(one_spelling(parts[-1]), []) if parts else []
        if not outside:
            ends = tuple(map(one_spelling, parts))
            found = [path for path in found if tuple(map(one_spelling, path.parts[-len(parts) :])) == ends]
        if len(found) != 1:
            none = f"which leads out of {self.root}" if outside else f"no such file below {self.root}"
            why = f"{found[0]} and {found[1]} both may be meant" if found else none
            raise RecsegError(f"{origin}: names the image {name!r}: {why}")
        return found[0]


def load_json(path: Path) -> Any:
    """What a JSON file holds; a fault is a line that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecsegError(f"{path}: cannot be read as JSON ({reason})") from error


def entry(table: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """One value of a table, of the kind that it must have."""
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RecsegError(f"{where}: has no {key!r} as expected, but {str(value)[:60]!r}")
    return value
