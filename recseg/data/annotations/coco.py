"""COCO's JSON, as CVAT, Label Studio and Roboflow export it, too: polygons and RLE, packed or not.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the format at cocodataset.org.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from recseg.classes import Colour
from recseg.data.annotations.export import BOXES, Annotated, Export, Shape, entry, legend_of, load_json, split_of, walk
from recseg.errors import RecsegError

UNKNOWN = "box without a mask: void inside it"


def read_coco(source: Path) -> Export:
    """Read a file, or all files of a folder; a category is the class of its name, whatever its id.

    Of a folder that has `instances_*.json`, these are read. A region of a crowd belongs to its class. Inside a box
    without a mask nobody knows where the object is: it is void. An id is the same as a number and as text.

    Raises:
        RecsegError: no such file, a category or an id of an image given twice, an image annotated twice, boxes alone.
    """
    files = _files(source)
    root = source if source.is_dir() else source.parent
    if root.name == "annotations" and source.is_file():
        root = root.parent  # the images stand beside that folder
    notes, classes = Counter[str](), dict[str, Colour | None]()
    images, origins = list[Annotated](), dict[str, Path]()
    parents = set[str]()
    for file in files:
        data = load_json(file)
        categories = _categories(data, file, parents)
        classes |= dict.fromkeys(categories.values())
        shapes = _shapes(data, categories, file, notes)
        split = split_of(file.stem, *(part for part in reversed(file.relative_to(root).parts[:-1])))
        ids: dict[str, str] = {}
        for image in entry(data, "images", list, str(file)):
            name = entry(image, "file_name", str, f"{file}: an image")
            if origins.setdefault(name, file) != file:
                raise RecsegError(f"{origins[name]}: and {file.name} both annotate {name!r}; name the one to import")
            size = (entry(image, "height", int, f"{file}: {name}"), entry(image, "width", int, f"{file}: {name}"))
            number = _id(image, "id", f"{file}: {name}")
            if number in ids:
                raise RecsegError(f"{file}: gives {ids[number]!r} and {name!r} the same id {number}; give each its own")
            ids[number] = name
            images.append(Annotated(name, file, split, size, tuple(shapes.pop(number, ()))))
        if lost := sum(map(len, shapes.values())):
            notes["annotation of an image that is not listed: left out"] += lost
    used = {shape.name for image in images for shape in image.shapes}
    if used <= {"void"} and notes[UNKNOWN]:
        raise RecsegError(f"{files[0]}: {BOXES}")
    classes = {name: None for name in classes if name in used or name not in parents}
    return Export(root, legend_of(classes, files[0]), images, notes)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    # Without decoding: keys of a COCO file may come in any order, and other tools' JSON may lie beside it.
    found = [file for file in walk(source) if file.suffix.lower() == ".json" and is_coco(file)]
    found = [file for file in found if file.name.startswith("instances_")] or found
    if not found:
        raise RecsegError(f"{source}: holds no JSON of COCO (with images, annotations and categories)")
    return found


def is_coco(file: Path) -> bool:
    """Whether a JSON file has the keys of COCO's."""
    text = file.read_bytes()
    return all(f'"{key}"'.encode() in text for key in ("images", "annotations", "categories"))


def _id(table: Any, key: str, where: str) -> str:
    """An id as text: some tools write 1 in one place and "1" in another."""
    return str(entry(table, key, (int, str), where))


def _categories(data: Any, file: Path, parents: set[str]) -> dict[str, str]:
    """Names by id. Roboflow adds a category for all of them, which nothing belongs to: it is their supercategory."""
    found: dict[str, str] = {}
    for category in entry(data, "categories", list, str(file)):
        name = entry(category, "name", str, f"{file}: a category").strip()
        number = _id(category, "id", f"{file}: category {name!r}")
        if number in found or name in found.values():
            raise RecsegError(f"{file}: has the category {name!r} or its id {number} twice; give each its own")
        found[number] = name
        parents.add(str(category.get("supercategory")))
    return found


def _shapes(data: Any, names: dict[str, str], file: Path, notes: Counter[str]) -> dict[str, list[Shape]]:
    """The shapes of each image, by its id."""
    found: dict[str, list[Shape]] = {}
    for number, annotation in enumerate(entry(data, "annotations", list, str(file))):
        where = f"{file}: annotation {annotation.get('id', number) if isinstance(annotation, dict) else number}"
        image, category = _id(annotation, "image_id", where), _id(annotation, "category_id", where)
        if category not in names:
            raise RecsegError(f"{where}: is of category {category}, which the file does not list")
        outline, box = annotation.get("segmentation"), annotation.get("bbox")
        notes["group (iscrowd): labelled as its class"] += annotation.get("iscrowd") == 1 and bool(outline)
        notes["keypoints: left out"] += bool(annotation.get("keypoints"))
        shape: Shape | None = None
        if outline:
            if not isinstance(outline, list | dict) or _is_pairs(outline):
                expected = "expected polygons [[x, y, x, y …]] or an RLE"
                raise RecsegError(f"{where}: has the segmentation {str(outline)[:60]!r}, {expected}")
            shape = Shape(names[category], outline)
        elif isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
            left, top, width, height = box
            corners = [left, top, left + width, top, left + width, top + height, left, top + height]
            shape = Shape("void", [corners], z=-1)  # behind the masks
            notes[UNKNOWN] += 1
        else:
            notes["annotation without a mask: left out"] += 1
        if shape:
            found.setdefault(image, []).append(shape)
    return found


def _is_pairs(outline: Any) -> bool:
    """Whether an outline is one polygon of points [x, y]: read as polygons of one point each it would have no area."""
    points = isinstance(outline, list) and all(isinstance(point, list) and len(point) == 2 for point in outline)
    return points and len(outline) > 2
