"""Folders of images and masks, and the file that says what the values or colours of masks mean.

CVAT's "Segmentation mask 1.1" (labelmap.txt), Roboflow's PNG masks (_classes.csv), the output of labelme2voc
(class_names.txt), colours in class_dict.csv, or recseg's own `classes.txt`. Without such a file, each folder below
`masks` has the name of a class and contains its black-and-white masks.

An image and its mask have the same name, apart from the folder for images or masks and a suffix `_mask`.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recseg.classes import Legend, check_names
from recseg.data.annotations.export import Annotated, Export, Shape, legend_of, split_of, walk
from recseg.data.description import HOW, csv_lines, read_table
from recseg.data.images import SUFFIXES
from recseg.errors import RecsegError
from recseg.files import read_lines

MASKS = ("segmentationclass", "segmentationclasspng", "masks", "mask")
IMAGES = ("jpegimages", "images", "image", "imgs")
OTHERS = ("segmentationobject", "segmentationclassvisualization", "segmentationclassnpy")  # not read
MAPS = ("classes.txt", "labelmap.txt", "_classes.csv", "class_names.txt", "class_dict.csv")
Key = tuple[str, ...]  # folders and stem


def read_masks(source: Path) -> Export:
    """Pair the images and the masks of a folder, and read the meaning of the masks' values.

    Raises:
        RecsegError: no file says what values mean, or two files disagree; a mask without an image; two images or masks
            with the same name.
    """
    if not source.is_dir():
        raise RecsegError(f"{source}: expected a folder with images and masks")
    files = list(walk(source))
    legends = {file: _legend(file) for file in files if file.name.lower() in MAPS}
    images, masks = dict[Key, Path](), dict[Key, dict[str, Path]]()
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            continue
        folders = file.relative_to(source).parts[:-1]
        level = next((number for number, part in enumerate(folders) if part.lower() in MASKS), None)
        if any(part.lower() in OTHERS for part in folders):
            continue
        if level is None and not file.stem.endswith("_mask"):
            key = (*(part for part in folders if part.lower() not in IMAGES), file.stem)
            if images.setdefault(key, file) != file:
                raise RecsegError(f"{images[key]}: and {file.name} have one name; give each image its own")
            continue
        after = () if level is None else folders[level + 1 :]
        name = after[0] if after and not legends else ""
        before = folders if level is None else folders[:level]
        key = (*before, *(after[1:] if name else after), file.stem.removesuffix("_mask"))
        if masks.setdefault(key, {}).setdefault(name, file) != file:
            raise RecsegError(f"{masks[key][name]}: and {file} are masks of one name; give each its own")
    if not masks:
        raise RecsegError(f"{source}: holds no masks: none in a folder {', '.join(MASKS)}, none that ends in _mask.png")
    names = sorted({name for named in masks.values() for name in named})
    if not legends and "" in names:
        raise RecsegError(
            f"{source}: nothing says what the values of its masks mean; add {HOW}; or, for masks in black and white, a "
            "folder masks/NAME for each class"
        )
    legend = next(iter(legends.values())) if legends else legend_of(dict.fromkeys(names), source)
    if other := next((file for file, one in legends.items() if one != legend), None):
        raise RecsegError(f"{next(iter(legends))}: and {other} disagree about the classes")
    splits = _splits(files)
    annotated = list[Annotated]()
    for key, named in masks.items():
        if key not in images:
            raise RecsegError(f"{next(iter(named.values()))}: has no image {'/'.join(key)}; export the images as well")
        split = splits.get("/".join(key)) or split_of(*reversed(key[:-1]))
        shapes = tuple(Shape(name, file) for name, file in named.items() if name)
        image = str(images[key].relative_to(source))
        annotated.append(Annotated(image, source / image, split, None, shapes, named.get("")))
    notes = Counter({"image without a mask: left out": len(images.keys() - masks.keys())})
    return Export(source, legend, annotated, notes)


def _legend(path: Path) -> Legend:
    """The content of one of the files in `MAPS`."""
    lines, kind = read_lines(path), path.name.lower()
    if kind == "labelmap.txt":  # name:red,green,blue:parts:actions
        cells = [line.rsplit(":", 3) for line in lines if not line.startswith("#")]
        rows = [[cell[0], _css(path, cell[1].split(","))] for cell in cells if len(cell) == 4]
        lines = csv_lines([["name", "colour"], *rows])
    elif kind == "class_dict.csv":
        rows = [[row[0], _css(path, row[1:4])] for row in csv.reader(lines[1:]) if row]
        lines = csv_lines([["name", "colour"], *rows])
    elif kind == "_classes.csv":
        lines[:1] = ["value,name"]
    elif kind == "class_names.txt":
        lines = csv_lines([["value", "name"], *enumerate(lines)])
    lines = [line.replace("_background_", "background").replace("__ignore__", "void") for line in lines]
    return read_table(path, lines) or Legend.plain(check_names(lines, str(path)))


def _css(path: Path, colour: Sequence[str]) -> str:
    if len(colour) != 3 or not all(part.strip().isdecimal() for part in colour):
        raise RecsegError(f"{path}: has the colour {','.join(colour)!r}, expected three numbers from 0 to 255")
    return f"rgb({','.join(part.strip() for part in colour)})"


def _splits(files: list[Path]) -> dict[str, str]:
    """The split of each id, from lists in VOC's layout that are called train, val or test."""
    found: dict[str, str] = {}
    for file in files:
        if file.parts[-3:-1] == ("ImageSets", "Segmentation") and (split := split_of(file.stem)):
            text = file.read_text(encoding="utf-8-sig", errors="replace")
            found |= dict.fromkeys(map(str.strip, text.splitlines()), split)
    return found
