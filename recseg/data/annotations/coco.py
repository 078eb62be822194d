"""COCO's JSON, which CVAT, Label Studio and Roboflow export too: polygons and RLE, compressed or not.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the format at cocodataset.org.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from recseg.classes import Colour
from recseg.data.annotations.export import BOXES, Annotated, Export, Shape, entry, legend_of, load_json, split_of, walk
from recseg.data.annotations.shapes import box
from recseg.errors import RecsegError

UNKNOWN = "box without a mask: void inside it"


def read_coco(source: Path) -> Export:
    """Read a file, or all files of a folder; categories are identified by name, not by id.

    If a folder has `instances_*.json`, only these are read. A crowd is labelled as its class. A box without a mask is
    void, since the object's pixels in it are unknown. The ids 1 and "1" are the same.

    Raises:
        RecsegError: no such file; a category, the id of an image or an image given twice; nothing but boxes.
    """
    files = _files(source)
    root = source if source.is_dir() else source.parent
    if root.name == "annotations" and source.is_file():
        root = root.parent  # the images are next to that folder
    notes, classes = Counter[str](), dict[str, Colour | None]()
    images, origins = list[Annotated](), dict[str, Path]()
    parents = set[str]()
    for file in files:
        data = load_json(file)
        categories = _categories(data, file, parents)
        classes |= dict.fromkeys(categories.values())
        shapes = _shapes(data, categories, file, notes)
        split = split_of(file.stem, *reversed(file.relative_to(root).parts[:-1]))
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
    found = [file for file in walk(source) if file.suffix.lower() == ".json" and _is_coco(file)]
    found = [file for file in found if file.name.startswith("instances_")] or found
    if not found:
        raise RecsegError(f"{source}: holds no JSON of COCO (with images, annotations and categories)")
    return found


def _is_coco(file: Path) -> bool:
    """Whether a JSON file has COCO's keys, in any order; it is not parsed."""
    text = file.read_bytes()
    return all(f'"{key}"'.encode() in text for key in ("images", "annotations", "categories"))


def _id(table: Any, key: str, where: str) -> str:
    """An id as text: some tools write 1 in one place and "1" in another."""
    return str(entry(table, key, (int, str), where))


def _categories(data: Any, file: Path, parents: set[str]) -> dict[str, str]:
    """Names by id. Supercategories are added to `parents`: Roboflow lists one as a category without annotations."""
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
    found = defaultdict[str, list[Shape]](list)
    for number, annotation in enumerate(entry(data, "annotations", list, str(file))):
        where = f"{file}: annotation {annotation.get('id', number) if isinstance(annotation, dict) else number}"
        image, category = _id(annotation, "image_id", where), _id(annotation, "category_id", where)
        if category not in names:
            raise RecsegError(f"{where}: is of category {category}, which the file does not list")
        outline, corners = annotation.get("segmentation"), annotation.get("bbox")
        notes["group (iscrowd): labelled as its class"] += annotation.get("iscrowd") == 1 and bool(outline)
        notes["keypoints: left out"] += bool(annotation.get("keypoints"))
        if outline:
            if not isinstance(outline, list | dict) or _is_pairs(outline):
                expected = "expected polygons [[x, y, x, y …]] or an RLE"
                raise RecsegError(f"{where}: has the segmentation {str(outline)[:60]!r}, {expected}")
            found[image].append(Shape(names[category], outline))
        elif isinstance(corners, list) and len(corners) == 4 and all(isinstance(x, int | float) for x in corners):
            left, top, width, height = corners
            found[image].append(Shape("void", [box(left, top, left + width, top + height)], z=-1))  # behind the masks
            notes[UNKNOWN] += 1
        else:
            notes["annotation without a mask: left out"] += 1
    return found


def _is_pairs(outline: Any) -> bool:
    """Whether an outline is one polygon of points [x, y], which would read as one-point polygons without area."""
    return len(outline) > 2 and all(isinstance(point, list) and len(point) == 2 for point in outline)
