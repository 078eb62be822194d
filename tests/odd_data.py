"""Folders in VOC's layout as people make them, each with a clean twin that must give the same scores, or with faults.

Masks, lists and names vary; which file is at fault, if any, is known before a reader of the project has seen it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from conftest import save_indexed
from numpy.typing import NDArray
from odd_pictures import BAD, GOOD, bomb, exif, png, scene, stored
from PIL import Image

from recseg.classes import VOID, palette

Labels = NDArray[np.uint8]
Mask = Callable[[np.random.Generator, Labels, Path], object]
SUFFIXES = {"jpeg": ".jpg", "progressive jpeg": ".JPG", "grey jpeg": ".jpeg", "cmyk jpeg": ".jpg"}
NAMES = ["plain", "with space", "два", "图像", "e\u0301te\u0301", "a..b", "100%", "#1;'\"$(x)&", "😀", "-x", "x.jpg"]


def label_map(rng: np.random.Generator, height: int, width: int) -> Labels:
    """Void and one or two classes, which come last: a map of nothing but void is no ground truth."""
    labels = np.zeros((height, width), np.uint8)
    for label in (VOID, *rng.integers(1, 21, 2)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        labels[top : top + 1 + height // 2, left : left + 1 + width // 2] = label
    return labels


# Masks that say what they mean


def _pillow(make: Callable[[Labels], Image.Image], **options: Any) -> Mask:
    return lambda rng, labels, path: make(labels).save(path, format="PNG", **options)


def _other_palette(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    image = Image.fromarray(labels)
    image.putpalette((palette() ^ 5).tobytes())  # colours of nobody
    image.save(path, format="PNG")


def _turned(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    orientation = int(rng.integers(1, 9))
    image = Image.fromarray(stored(labels, orientation))
    image.putpalette(palette().tobytes())
    image.save(path, format="PNG", exif=exif(orientation))


def _opaque(labels: Labels) -> NDArray[np.uint8]:
    return np.full((*labels.shape, 1), 255, np.uint8)


GOOD_MASKS: dict[str, Mask] = {
    "indexed": lambda rng, labels, path: save_indexed(labels, path),
    "grey": _pillow(Image.fromarray),
    "grey alpha": _pillow(lambda labels: Image.fromarray(np.dstack([labels[..., None], _opaque(labels)]))),
    "16 bits": _pillow(lambda labels: Image.fromarray(np.where(labels == VOID, 65535, labels).astype(np.uint16))),
    "colours": _pillow(lambda labels: Image.fromarray(palette()[labels])),
    "colours alpha": _pillow(lambda labels: Image.fromarray(np.dstack([palette()[labels], _opaque(labels)]))),
    "other palette": _other_palette, "turned": _turned,
}  # fmt: skip


# Masks that do not


def _foreign(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    labels[-1, -1] = rng.integers(21, VOID)
    GOOD_MASKS[str(rng.choice(["indexed", "grey", "16 bits"]))](rng, labels, path)


def _deep_foreign(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    deep = labels.astype(np.uint16)
    deep[0, 0] = 256 + rng.integers(0, 21)  # must not wrap around into a class
    Image.fromarray(deep).save(path, format="PNG")


def _near_colour(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    colours = palette()[labels]
    colours[0, 0] ^= np.array([0, 1, 0], np.uint8)
    Image.fromarray(colours).save(path, format="PNG")


def _smoothed(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    """Resized by blending, which mixes two classes' colours."""
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:, 6:] = palette()[15]
    Image.fromarray(colours).resize(labels.shape[::-1], Image.Resampling.BILINEAR).save(path, format="PNG")


def _permuted(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    """Class 15 in VOC's colour, but with index 1: what a program makes of colours when it saves a palette anew."""
    image = Image.fromarray((labels > 0).astype(np.uint8))
    image.putpalette(palette()[[0, 15]].tobytes())
    image.save(path, format="PNG")


def _half_clear(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    alpha = _opaque(labels)
    alpha[0, 0] = rng.integers(0, 255)
    colours = [palette()[labels], labels[..., None]][int(rng.integers(2))]
    Image.fromarray(np.dstack([colours, alpha])).save(path, format="PNG")


def _few_bits(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    """Two or four bits of grey: one program reads 1, another 17 (or 85)."""
    path.write_bytes(png((labels > 0).astype(np.uint8), int(rng.choice([2, 4])), 0))


def _deep_colours(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    """Colours in a file of 16 bits, whose lower half readers drop: of some, all is black."""
    path.write_bytes(png(palette()[labels].astype(np.uint16) * int(rng.choice([1, 257])), 16, 2))


def _other_size(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    save_indexed(np.pad(labels, ((0, 1), (0, 0))), path)


def _lossy(format: str) -> Mask:
    return lambda rng, labels, path: Image.fromarray(labels).save(path, format=format)


def _flipped(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    content = bytearray(png(labels, 8, 0))
    content[int(rng.integers(content.index(b"IDAT") + 4, len(content) - 16))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _half(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    content = png(labels, 8, 0)
    path.write_bytes(content[: int(rng.integers(1, len(content) - 13))])  # into the pixels at least


def _animated(rng: np.random.Generator, labels: Labels, path: Path) -> None:
    image = Image.fromarray(labels)
    image.save(path, format="PNG", save_all=True, append_images=[Image.fromarray(labels[::-1].copy() ^ 1)])


BAD_MASKS: dict[str, Mask] = {
    "foreign index": _foreign, "deep foreign index": _deep_foreign, "near colour": _near_colour, "smoothed": _smoothed,
    "permuted palette": _permuted, "half clear": _half_clear, "few bits": _few_bits, "deep colours": _deep_colours,
    "other size": _other_size, "jpeg": _lossy("JPEG"), "webp": _lossy("WEBP"), "tiff": _lossy("TIFF"),
    "flipped bit": _flipped, "cut short": _half, "animated": _animated,
    "bomb": lambda rng, labels, path: path.write_bytes(bomb()),
    "text": lambda rng, labels, path: path.write_text("0 0 0 1 1"),
    "empty": lambda rng, labels, path: path.write_bytes(b""),
    "folder": lambda rng, labels, path: path.mkdir(),
    "missing": lambda rng, labels, path: None,
}  # fmt: skip
# Small and flat maps hold too little for some faults to show.
LARGER = {"smoothed", "permuted palette", "few bits", "deep colours", "animated", "flipped bit", "cut short"}

# Lists of ids: what each fault writes, and a word that the complaint must have beside the list's name
GOOD_LISTS: dict[str, Callable[[list[str]], bytes]] = {
    "plain": lambda ids: ("\n".join(ids) + "\n").encode(),
    "windows": lambda ids: ("\r\n".join(ids) + "\r\n").encode(),
    "byte order mark": lambda ids: ("\ufeff" + "\r\n".join(ids)).encode(),
    "old mac": lambda ids: "\r".join(ids).encode(),
    "blank lines": lambda ids: ("\n\n" + " \n\t".join(ids) + " \n \n").encode(),
}
BAD_LISTS: dict[str, Callable[[list[str]], bytes]] = {
    "empty": lambda ids: b"",
    "blank": lambda ids: b"\r\n \n\t\n",
    "twice": lambda ids: "\n".join([*ids, ids[0]]).encode(),
    "twice in other words": lambda ids: "\n".join([*ids, "\u00e9", "e\u0301"]).encode(),
    "leads out": lambda ids: "\n".join([*ids, "../" + ids[0]]).encode(),
    "absolute": lambda ids: "\n".join(["/etc/passwd", *ids]).encode(),
    "windows path": lambda ids: "\n".join([*ids, "..\\" + ids[0]]).encode(),
    "zero byte": lambda ids: "\n".join([*ids, "a\0b"]).encode(),
    "utf-16": lambda ids: "\n".join(ids).encode("utf-16"),
    "latin-1": lambda ids: "\n".join([*ids, ""]).encode() + "\xe9".encode("latin-1"),
}


@dataclass
class Made:
    """A folder and what is wrong with it.

    Attributes:
        root: the folder; `twin` is a clean one with the same pixels and labels, for folders without faults.
        faults: names of the files at fault, one of which a complaint must name.
        what: the kinds of everything in it, to find a failing case again.
    """

    root: Path
    twin: Path
    faults: list[str] = field(default_factory=list)
    what: list[str] = field(default_factory=list)


def make_folder(rng: np.random.Generator, root: Path, *, images: int, faults: int, split: str) -> Made:
    """A folder of a few images; `faults` of them, or of the masks, or the list, are bad."""
    made = Made(root / "odd", root / "twin")
    for folder in (made.root, made.twin):
        for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (folder / part).mkdir(parents=True)
    ids = [str(name) for name in rng.permutation(NAMES)[:images]]
    wrong = [str(rng.choice(["image", "mask", "mask", "list"])) for _ in range(faults)]
    for number, name in enumerate(ids):
        fault = wrong[number] if number < len(wrong) else ""
        _add(rng, made, name, fault, labelled=split == "train")  # a list that labels nothing is refused
    bad_list = "list" in wrong
    lists = BAD_LISTS if bad_list else GOOD_LISTS
    kind = str(rng.choice(list(lists)))
    path = made.root / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.write_bytes(lists[kind](ids))
    if bad_list:
        made.faults = [path.name]  # lists are read before any image is
        for extra in ("\u00e9", "a"):  # what some faults name
            _add(rng, made, extra, "")
    made.what.append(f"list {kind}")
    (made.twin / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(ids), encoding="utf-8")
    return made


def _add(rng: np.random.Generator, made: Made, name: str, fault: str, *, labelled: bool = False) -> None:
    picture, mask = str(rng.choice(list(GOOD))), str(rng.choice(list(GOOD_MASKS)))
    height, width = [(1, 1), (1, 60), (24, 1), (9, 31), (32, 48), (40, 24)][int(rng.integers(6))]
    if fault == "mask":
        mask = str(rng.choice(list(BAD_MASKS)))
        if mask in LARGER:
            height, width = 24, 40
    pixels, labels = scene(rng, height, width), label_map(rng, height, width)
    if labelled:
        labels.flat[0] = 7
    if mask in LARGER:
        labels[: height // 2, : width // 2] = 7
    suffix = SUFFIXES.get(picture, ".png")
    image_path = made.root / "JPEGImages" / (name + suffix)
    mask_path = made.root / "SegmentationClass" / f"{name}.png"
    if fault == "image":
        picture = str(rng.choice(list(BAD)))
        BAD[picture](rng, image_path)
        made.faults.append(image_path.name)
    else:
        seen = GOOD[picture](rng, pixels, image_path)
        Image.fromarray(seen).save(made.twin / "JPEGImages" / f"{name}.png")
    if mask in BAD_MASKS:
        BAD_MASKS[mask](rng, labels, mask_path)
        made.faults.append(mask_path.name)
    else:
        GOOD_MASKS[mask](rng, labels, mask_path)
        save_indexed(labels, made.twin / "SegmentationClass" / f"{name}.png")
    made.what.append(f"{name!r}: {picture}, {mask}, {height}×{width}")
