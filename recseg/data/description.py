"""A folder's description of its classes: `classes.txt`, in one of two forms.

Names alone, one per line: the first is the background, and line k (from 0) names pixel value k. 255 is void.

    background
    leaf
    stone

Or a CSV table with a header, for everything else: values with gaps, another void value, no background, colours. The
names `background` and `void` are reserved. Without a row `background`, every pixel belongs to some class.

    value,name,colour
    0,sky,#80b0e0
    7,road,#604060
    11,void,

Colours are written as in CSS.
"""

import csv
import io
import itertools
import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from PIL import ImageColor

from recseg.classes import NO_BACKGROUND, VOC_CLASSES, VOID, Colour, Legend, default_colours
from recseg.errors import RecsegError

FILE = "classes.txt"
COLUMNS = ("value", "name", "colour")
LONGEST_ROW = 1000  # characters
SEEN = 20  # files and folders that are inspected to guess the format
HOW = f"{FILE}: one name a line, background first, or a table with the columns {','.join(COLUMNS)}"
# Class files of other tools: labelmap.txt (CVAT), class_names.txt (labelme), _classes.csv (Roboflow), notes.json …
_OTHERS = re.compile(
    r"_?(class|label|categor|obj|notes)[a-z]*([._ -]?(name|map|dict|list|colou?r)s?)?\.(txt|csv|json|names|ya?ml)"
    r"|data(set)?\.ya?ml"
)


def undescribed(root: Path) -> Legend:
    """The legend of a folder without `classes.txt`: VOC's.

    Raises:
        RecsegError: another file, such as an annotation tool's, seems to name the classes.
    """
    if others := sorted(file.name for file in root.iterdir() if _OTHERS.fullmatch(file.name.lower())):
        tool = export_hint(root)
        complaint = f"{root / others[0]}: is not read; write the classes into {HOW}"
        raise RecsegError(f"{complaint}; or, since {tool}" if tool else complaint)
    return Legend.plain(VOC_CLASSES)


def export_hint(root: Path) -> str:
    """How to import a folder written by an annotation tool; `""` if it does not look like one."""
    command = f"recseg data import {shlex.quote(str(root))} --format"
    tool = export_format(root)
    return f"it looks like an export: {command} {tool} --out DIR" if tool else ""


def export_format(root: Path) -> str:
    """The `recseg data import` format that a folder seems to have, judging by names and the start of a few files."""
    for folder in (root, root / "JPEGImages", *sorted(path for path in root.glob("*") if path.is_dir())[:SEEN]):
        if any((folder / name).is_file() for name in ("labelmap.txt", "_classes.csv", "class_names.txt")):
            return "masks"
        files = (path for path in folder.glob("*") if path.suffix.lower() in (".json", ".xml") and path.is_file())
        for path in itertools.islice(files, SEEN):
            with suppress(OSError), open(path, "rb") as stream:
                head = stream.read(100_000)
                keys = {key for key in ("images", "annotations", "shapes", "flags") if f'"{key}"'.encode() in head}
                if b"<annotations>" in head:
                    return "cvat"
                if "shapes" in keys:
                    return "labelme"
                if keys & {"images", "annotations"} and b'"info"' in head or keys >= {"images", "annotations"}:
                    return "coco"
    return ""


def read_table(path: Path, rows: list[str]) -> Legend | None:
    """The legend of a table, given the lines of its file; None if they are names alone.

    Raises:
        RecsegError: an invalid row, or a header without commas.
    """
    longest = max(map(len, rows), default=0)
    if longest > LONGEST_ROW:
        raise RecsegError(f"{path}: has a line of {longest:,} characters, expected {LONGEST_ROW:,} at most")
    head = next(csv.reader(rows[:1], skipinitialspace=True), [])
    columns = [re.sub("^color$", "colour", cell.strip().lower()) for cell in head]
    if "name" in columns and len(columns) > 1:
        return _table(path, columns, rows[1:])
    if rows and {"value", "name"} <= set(re.findall(r"\w+", rows[0].lower())):
        raise RecsegError(f"{path}: begins with {rows[0]!r}, expected {','.join(COLUMNS)}, separated by commas")
    return None


def csv_lines(rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a table, names with commas in quotes."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().splitlines()


def _table(path: Path, columns: list[str], rows: list[str]) -> Legend:
    unknown = [column for column in columns if column not in COLUMNS or columns.count(column) > 1]
    if unknown:
        raise RecsegError(f"{path}: has a column {unknown[0]!r}, expected {','.join(COLUMNS)}, each once")
    entries, void, seen = list[tuple[str, int, Colour | None]](), list[tuple[int, Colour | None]](), dict[object, str]()
    for number, text in enumerate(rows):
        try:  # row by row: an unclosed quote would swallow the rows after it
            cells = next(csv.reader([text], skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise RecsegError(f"{path}: has the row {text!r}, which is no CSV ({error})") from error
        row = dict(zip(columns, map(str.strip, cells), strict=False))
        name, value = row.get("name", ""), _value(path, row.get("value", str(number)), cells)
        colour = _colour(path, row.get("colour", ""), cells)
        if not name or len(cells) > len(columns):
            raise RecsegError(f"{path}: has the row {','.join(cells)!r}, expected {','.join(columns)}")
        is_void = name.lower() == "void"
        for what, key in (("value", value), ("colour", colour), ("name", None if is_void else name)):
            if key is not None and (what, key) in seen:
                raise RecsegError(f"{path}: gives the {what} {key!r} twice, to {seen[what, key]!r} and to {name!r}")
            seen[what, key] = name
        if is_void:
            void.append((value, colour))
        else:
            entries.append((name, value, colour))
    classes = [entry for entry in entries if entry[0].lower() != "background"]
    background = next((entry for entry in entries if entry[0].lower() == "background"), None)
    labels: list[tuple[str, int | None, Colour | None]] = [background or (NO_BACKGROUND, None, (0, 0, 0)), *classes]
    names = tuple(name for name, _, _ in labels)
    if not 2 + (background is None) <= len(names) <= VOID:
        least = "a class beside the background" if background else "two classes, or a row named background"
        raise RecsegError(f"{path}: names {len(classes)} classes, expected {least}, and at most {VOID - 1}")
    given = [colour for _, _, colour in labels if colour is not None]
    coloured = len(given) == len(labels)
    if len(given) > (background is None) and not coloured:
        missing = next(name for name, _, colour in labels if colour is None)
        raise RecsegError(f"{path}: gives {missing!r} no colour, expected one for each class or for none")
    values = tuple(value for _, value, _ in labels)
    return Legend(
        names,
        values,
        tuple(given) if coloured else default_colours(len(labels)),
        # 255 is void unless the table says otherwise.
        void=tuple(value for value, _ in void) or (() if VOID in values else (VOID,)),
        void_colour=next((colour for _, colour in void if colour), Legend.void_colour),
        coloured=coloured,
    )


def _value(path: Path, text: str, cells: list[str]) -> int:
    if not (text.isdecimal() and int(text) <= VOID):
        raise RecsegError(f"{path}: has the value {text!r} in the row {','.join(cells)!r}, expected 0 to {VOID}")
    return int(text)


def _colour(path: Path, text: str, cells: list[str]) -> Colour | None:
    if not text:
        return None
    try:
        red, green, blue, *_ = ImageColor.getrgb(text)
        if max(red, green, blue) > 255:
            raise ValueError
    except ValueError as error:
        raise RecsegError(
            f"{path}: has the colour {text!r} in the row {','.join(cells)!r}, expected one such as #8040c0"
        ) from error
    return red, green, blue
