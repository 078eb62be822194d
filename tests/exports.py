"""Exports as annotation tools write them, made from label maps: each shaped like the files of the tool that it names.

What a file must be read as is known before a reader of the project has seen it.
"""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Labels = NDArray[np.uint8]
NAMES = ("background", "road, wet", "Fußgänger", "pole")
COLOURS = ((0, 0, 0), (128, 64, 128), (220, 20, 60), (153, 153, 153))


def picture(path: Path, height: int, width: int, seed: int = 0) -> None:
    """An image of noise, unlike those of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)


def picture_of(labels: Labels, path: Path, seed: int) -> None:
    """An image of the size of a label map."""
    height, width = labels.shape
    picture(path, height, width, seed)


def runs(mask: NDArray[Any]) -> list[int]:
    """Lengths of runs of 0 and 1 in turn, 0 first, of a flat mask."""
    flat = np.concatenate([[0], mask.ravel() != 0, [0]]).astype(int)
    edges = np.flatnonzero(np.diff(flat))
    lengths: list[int] = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def packed(mask: NDArray[Any]) -> str:
    """COCO's compressed counts, by COCO's own code."""
    from pycocotools import mask as coco

    return str(coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"], "ascii")


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


# COCO


def coco(images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], names: dict[int, str]) -> Any:
    """A file as CVAT and COCO write it: ids of categories as given."""
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "description": "", "version": "", "year": ""},
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in names.items()],
        "images": [
            {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0, "id": number, **image}
            for number, image in enumerate(images, start=1)
        ],
        "annotations": [
            {"id": number, "iscrowd": 0, "attributes": {"occluded": False}, **annotation}
            for number, annotation in enumerate(annotations, start=1)
        ],
    }


def coco_of_maps(root: Path, maps: Sequence[Labels], *, compressed: bool) -> None:
    """`annotations/instances_default.json` and `images/`, with ids 7, 38, 90."""
    ids, annotations = {1: 7, 2: 38, 3: 90}, []
    images = [{"file_name": f"{i}.png", "height": m.shape[0], "width": m.shape[1]} for i, m in enumerate(maps)]
    for index, labels in enumerate(maps):
        picture_of(labels, root / "images" / f"{index}.png", index)
        for label in np.unique(labels[labels > 0]).tolist():
            mask = labels == label
            counts = packed(mask) if compressed else runs(mask.T)
            outline = {"size": list(labels.shape), "counts": counts}
            annotations.append({"image_id": index + 1, "category_id": ids[label], "segmentation": outline})
    content = coco(images, annotations, {ids[label]: NAMES[label] for label in ids})
    write_json(root / "annotations" / "instances_default.json", content)


# labelme


def labelme(name: str, size: tuple[int, int], shapes: Sequence[dict[str, Any]], **more: object) -> Any:
    """A file of one image, as labelme 5 writes it."""
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}, "mask": None, **shape}
            for shape in shapes
        ],
        "imagePath": name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        **more,
    }


def labelme_mask(name: str, mask: NDArray[Any]) -> dict[str, Any]:
    """A shape as labelme's "AI mask" makes it: a PNG of the part of the image that it covers."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    stream = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1]).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return {"label": name, "shape_type": "mask", "points": [[left, top], [right, bottom]], "mask": data}


def labelme_of_maps(root: Path, maps: Sequence[Labels]) -> None:
    for index, labels in enumerate(maps):
        picture_of(labels, root / f"{index}.png", index)
        shapes = [labelme_mask(NAMES[v], labels == v) for v in np.unique(labels[labels > 0]).tolist()]
        height, width = labels.shape
        write_json(root / f"{index}.json", labelme(f"{index}.png", (height, width), shapes))
    (root / "labels.txt").write_text("\n".join(("__ignore__", "_background_", *NAMES[1:])), encoding="utf-8")


# CVAT


def cvat(images: Sequence[tuple[dict[str, object], Sequence[str]]], names: Sequence[str] = NAMES[1:]) -> str:
    """A file as "CVAT for images 1.1": attributes of each image, and the elements in it."""
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in COLOURS[1:]]
    labels = "".join(
        f"<label><name>{name}</name><color>{colour}</color><type>any</type><attributes></attributes></label>"
        for name, colour in zip(names, colours, strict=False)
    )
    body = "".join(
        f"<image id={quoteattr(str(number))} "
        + " ".join(f"{key}={quoteattr(str(value))}" for key, value in facts.items())
        + f">{''.join(elements)}</image>"
        for number, (facts, elements) in enumerate(images)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><id>1</id><labels>{labels}</labels></task></meta>{body}</annotations>"
    )


def element(tag: str, label: str, **facts: object) -> str:
    """A shape of CVAT's XML."""
    words = {"label": label, "source": "manual", "occluded": 0, "z_order": 0} | facts
    return f"<{tag} {' '.join(f'{key}={quoteattr(str(value))}' for key, value in words.items())}></{tag}>"


def cvat_of_maps(root: Path, maps: Sequence[Labels]) -> None:
    images = []
    for index, labels in enumerate(maps):
        picture_of(labels, root / "images" / f"{index}.png", index)
        height, width = labels.shape
        whole = {"left": 0, "top": 0, "width": width, "height": height}
        shapes = [
            element("mask", NAMES[v], rle=", ".join(map(str, runs(labels == v))), **whole)
            for v in np.unique(labels[labels > 0]).tolist()
        ]
        images.append(({"name": f"{index}.png", "width": width, "height": height}, shapes))
    (root / "annotations.xml").write_text(cvat(images), encoding="utf-8")


# Masks


def save(array: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def cvat_masks_of_maps(root: Path, maps: Sequence[Labels]) -> None:
    """ "Segmentation mask 1.1" with its images."""
    for index, labels in enumerate(maps):
        picture_of(labels, root / "JPEGImages" / f"{index}.png", index)
        save(np.array(COLOURS, np.uint8)[labels], root / "SegmentationClass" / f"{index}.png")
        save(np.array(COLOURS, np.uint8)[labels], root / "SegmentationObject" / f"{index}.png")
    lines = [f"{n}:{','.join(map(str, c))}::" for n, c in zip(NAMES, COLOURS, strict=True)]
    (root / "labelmap.txt").write_text("\n".join(("# label:color_rgb:parts:actions", *lines, "")), encoding="utf-8")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("".join(f"{index}\n" for index in range(len(maps))))


def roboflow_masks_of_maps(root: Path, maps: Sequence[Labels]) -> None:
    for index, labels in enumerate(maps):
        picture_of(labels, root / "train" / f"{index}_png.rf.ab12.jpg", index)
        save(labels, root / "train" / f"{index}_png.rf.ab12_mask.png")
    rows = [f'{value}, "{name}"' for value, name in enumerate(NAMES)]
    (root / "train" / "_classes.csv").write_text("\n".join(("Pixel Value, Class", *rows)), encoding="utf-8")
    (root / "README.roboflow.txt").write_text("streets - v1")


def binary_masks_of_maps(root: Path, maps: Sequence[Labels]) -> None:
    for index, labels in enumerate(maps):
        picture_of(labels, root / "images" / f"{index}.png", index)
        for label in range(1, len(NAMES)):
            save((labels == label).astype(np.uint8) * 255, root / "masks" / NAMES[label] / f"{index}.png")


FORMATS: dict[str, tuple[str, Callable[[Path, Sequence[Labels]], None]]] = {
    "coco, packed RLE": ("coco", lambda root, maps: coco_of_maps(root, maps, compressed=True)),
    "coco, plain RLE": ("coco", lambda root, maps: coco_of_maps(root, maps, compressed=False)),
    "labelme, masks": ("labelme", labelme_of_maps),
    "cvat, masks": ("cvat", cvat_of_maps),
    "masks of CVAT": ("masks", cvat_masks_of_maps),
    "masks of Roboflow": ("masks", roboflow_masks_of_maps),
    "masks, one folder a class": ("masks", binary_masks_of_maps),
}
