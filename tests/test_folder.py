"""The reader of VOC's layout: what it accepts, what it refuses, and that its one line names the file."""

import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike
from PIL import Image, ImageFile

from recseg.classes import VOC_CLASSES, VOID, palette
from recseg.data import SegmentationFolder, check_no_leak, open_dataset
from recseg.data.images import read_image, read_labels

needs_voc = pytest.mark.skipif("RECSEG_VOC_ROOT" not in os.environ, reason="RECSEG_VOC_ROOT is not set")


def save_mask(path: Path, labels: ArrayLike, mode: str = "P") -> None:
    """Write a label map as people do: palette, grey, 16-bit grey, or colours."""
    labels = np.asarray(labels)
    if mode == "RGB":
        image = Image.fromarray(palette()[labels])
    else:
        image = Image.fromarray(labels.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image.putpalette(palette().tobytes())
    image.save(path)


def make_folder(
    root: Path,
    ids: Sequence[str] = ("one", "two"),
    *,
    size: tuple[int, int] = (7, 5),
    suffix: str = ".png",
    split: str = "train",
    text: str | None = None,
) -> Path:
    """A small folder in VOC's layout; image k is grey 10·(k + 1), its mask holds class k + 1 and void."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    width, height = size
    for number, name in enumerate(ids, start=1):
        Image.new("RGB", size, (10 * number,) * 3).save(
            root / "JPEGImages" / (name + suffix), format={".png": "PNG"}.get(suffix.lower(), "JPEG")
        )
        labels = np.zeros((height, width), dtype=np.uint8)
        labels[0], labels[-1] = number, VOID
        save_mask(root / "SegmentationClass" / f"{name}.png", labels)
    text = "\n".join(ids) + "\n" if text is None else text
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_bytes(text.encode())
    return root


# What it accepts


def test_sample_has_the_promised_types(tmp_path: Path) -> None:
    dataset = SegmentationFolder(make_folder(tmp_path), "train")
    image, labels, name = dataset[1]
    assert (image.dtype, labels.dtype, name) == (torch.uint8, torch.int64, "two")
    assert image.shape == (3, 5, 7) and labels.shape == (5, 7)
    assert (image == 20).all()
    assert labels[0].eq(2).all() and labels[1:-1].eq(0).all() and labels[-1].eq(VOID).all()
    assert len(dataset) == 2 and [sample.id for sample in dataset] == dataset.ids
    assert dataset.classes == VOC_CLASSES and dataset.num_classes == 21
    assert (dataset.palette == palette(21)).all()


def test_workers_can_take_it_along(tmp_path: Path) -> None:
    dataset = pickle.loads(pickle.dumps(SegmentationFolder(make_folder(tmp_path), "train")))
    assert dataset[0].id == "one"


def test_transform_is_applied(tmp_path: Path) -> None:
    dataset = SegmentationFolder(make_folder(tmp_path), "train", transform=lambda s: s._replace(id=s.id.upper()))
    assert dataset[0].id == "ONE"


@pytest.mark.parametrize("below", ["", "VOCdevkit/VOC2012", "VOC2012"])
def test_root_may_be_the_devkits(tmp_path: Path, below: str) -> None:
    make_folder(tmp_path / below)
    assert len(SegmentationFolder(tmp_path, "train")) == 2


def test_lists_may_lie_in_imagesets_itself(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").rename(tmp_path / "ImageSets" / "train.txt")
    (tmp_path / "ImageSets" / "Segmentation").rmdir()
    assert len(SegmentationFolder(tmp_path, "train")) == 2


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".PNG"])
def test_suffixes_in_any_case(tmp_path: Path, suffix: str) -> None:
    dataset = SegmentationFolder(make_folder(tmp_path, suffix=suffix), "train")
    assert dataset[0].image.shape == (3, 5, 7)


def test_lists_from_any_editor(tmp_path: Path) -> None:
    """Windows line endings, a byte order mark, blank lines, names with spaces and accents."""
    ids = ("a b", "été", "图像", "a..b")
    make_folder(tmp_path, ids, text="\ufeff" + "\r\n\r\n".join(ids) + "\r\n  \r\n")
    dataset = SegmentationFolder(tmp_path, "train")
    assert tuple(dataset.ids) == ids
    assert [int(dataset[i].labels.max().clamp(max=9)) for i in range(4)] == [9] * 4


def test_accents_composed_in_another_way(tmp_path: Path) -> None:
    make_folder(tmp_path, ("e\u0301te\u0301",), text="\u00e9t\u00e9\n")  # files from a Mac, list from elsewhere
    assert SegmentationFolder(tmp_path, "train")[0].id == "\u00e9t\u00e9"


def test_own_classes(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"sky\r\nRotkehlchen\r\nbig dog\r\n\r\n")
    dataset = SegmentationFolder(tmp_path, "train")
    assert dataset.classes == ("sky", "Rotkehlchen", "big dog")  # the first is background, whatever its name
    assert SegmentationFolder(tmp_path, "train", classes=["x", "y", "z", "u"]).num_classes == 4


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGB"])
@given(labels=arrays(np.uint8, (4, 5), elements=st.sampled_from([*range(21), VOID])))
@settings(max_examples=20, deadline=None)
def test_every_kind_of_mask_reads_back(tmp_path_factory: pytest.TempPathFactory, mode: str, labels: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    save_mask(path, labels, mode)
    assert (read_labels(path, 21) == labels).all()


def test_void_of_16_bit_masks_and_two_colour_masks(tmp_path: Path) -> None:
    save_mask(tmp_path / "deep.png", [[0, 1], [65535, 255]], "I;16")
    assert read_labels(tmp_path / "deep.png", 2).tolist() == [[0, 1], [VOID, VOID]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert read_labels(tmp_path / "bits.png", 2).tolist() == [[1, 0]]


def test_most_classes_of_an_image(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save_mask(tmp_path / "SegmentationClass" / "two.png", [[0, 1, 2, 7, VOID, VOID, 7]] * 5)
    dataset = SegmentationFolder(tmp_path, "train")
    assert dataset.max_classes_per_image == 3  # neither background nor void counts
    (tmp_path / "SegmentationClass" / "two.png").unlink()
    assert dataset.max_classes_per_image == 3  # remembered


# Images


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    upright = np.zeros((4, 6, 3), dtype=np.uint8)
    upright[:2] = 255  # white above black
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90° to see it so
    Image.fromarray(np.rot90(upright, 1)).save(tmp_path / "turned.png", exif=exif)
    assert (np.asarray(read_image(tmp_path / "turned.png")) == upright).all()


def test_broken_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0nothing that EXIF could be")
    assert read_image(tmp_path / "a.jpg").size == (3, 2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((2, 3), 65535, dtype=np.uint16))
    else:
        image = Image.new("RGB", (3, 2), "white").convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    read = read_image(path)
    assert read.mode == "RGB" and read.size == (3, 2)
    assert np.asarray(read).min() >= 254


def test_16_bits_keep_their_greys(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 257 * 128, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    image.save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).tolist() == [[[255] * 3, [10, 20, 30]]]


def test_pictures_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    refusal(lambda: read_image(path), path, "no such file")
    refusal(lambda: read_image(tmp_path), tmp_path, "folder")
    path.write_text("<html>not found</html>")
    refusal(lambda: read_image(path), path, "not an image")
    path.write_bytes(b"")
    refusal(lambda: read_image(path), path, "not an image")
    Image.new("F", (2, 2)).save(tmp_path / "a.tiff")
    refusal(lambda: read_image(tmp_path / "a.tiff"), "a.tiff", "floating-point")
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    refusal(lambda: read_image(tmp_path / "big.png", most_pixels=1599), "big.png", "too many pixels")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_truncated_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, tolerant: bool
) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)  # as some libraries do on import
    refusal(lambda: read_image(path), path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


# Masks refused


def test_class_index_out_of_range(tmp_path: Path) -> None:
    for mode in ("P", "L", "I;16"):
        save_mask(tmp_path / "m.png", [[0, 21]], mode)
        refusal(lambda: read_labels(tmp_path / "m.png", 21), tmp_path / "m.png", "21", "0 to 20")
    save_mask(tmp_path / "m.png", [[0, 300]], "I;16")  # must not wrap around to 44
    refusal(lambda: read_labels(tmp_path / "m.png", 100), "300", "0 to 99")


def test_colour_of_no_class(tmp_path: Path) -> None:
    colours = np.zeros((2, 2, 3), dtype=np.uint8)
    colours[1, 1] = (64, 0, 1)  # one off cat's colour: never the nearest class
    Image.fromarray(colours).save(tmp_path / "m.png")
    refusal(lambda: read_labels(tmp_path / "m.png", 21), tmp_path / "m.png", "(64, 0, 1)")
    save_mask(tmp_path / "m.png", [[0, 20]], "RGB")
    refusal(lambda: read_labels(tmp_path / "m.png", 5), str(tuple(palette()[20].tolist())))


def test_masks_must_be_lossless(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "m.png", format="JPEG")
    refusal(lambda: read_labels(tmp_path / "m.png", 21), tmp_path / "m.png", "JPEG")
    Image.new("L", (2, 2)).save(tmp_path / "m.tiff")
    refusal(lambda: read_labels(tmp_path / "m.tiff", 21), "m.tiff", "TIFF", "must be PNG")


def test_mask_of_another_size(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save_mask(tmp_path / "SegmentationClass" / "one.png", np.zeros((6, 4)))
    dataset = SegmentationFolder(tmp_path, "train")
    refusal(lambda: dataset[0], "one.png", "4×6", "7×5")


# Folders and lists refused


def test_folders_refused(tmp_path: Path) -> None:
    refusal(lambda: SegmentationFolder(tmp_path / "none", "train"), tmp_path / "none", "no such folder")
    (tmp_path / "set.zip").touch()
    refusal(lambda: SegmentationFolder(tmp_path / "set.zip", "train"), "set.zip", "is a file, expected a folder")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), tmp_path, "JPEGImages")
    (tmp_path / "JPEGImages").mkdir()
    refusal(lambda: SegmentationFolder(tmp_path, "train"), tmp_path, "ImageSets")
    (tmp_path / "ImageSets").mkdir()
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "no split 'train'")
    (tmp_path / "ImageSets" / "train.txt").write_text("one\n")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), tmp_path / "SegmentationClass")


def test_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    make_folder(tmp_path)
    make_folder(tmp_path, split="holdout")
    refusal(lambda: SegmentationFolder(tmp_path, "val"), "'val'", "holdout, train")
    refusal(lambda: SegmentationFolder(tmp_path, "../train"), "no split")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("\n \r\n", ["empty split"]),
        ("one\ntwo\none\n", ["'one'", "twice"]),
        ("../one\n", ["'../one'", "plain name"]),
        ("..\n", ["'..'", "plain name"]),
        ("sub/one\n", ["'sub/one'", "plain name"]),
        ("sub\\one\n", ["plain name"]),
    ],
)
def test_lists_refused(tmp_path: Path, text: str, names: list[str]) -> None:
    make_folder(tmp_path, text=text)
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "train.txt", *names)


def test_list_that_is_no_text(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\xff\xfe\x00\x01")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "train.txt", "UTF-8")


def test_missing_and_doubled_files(tmp_path: Path) -> None:
    make_folder(tmp_path, text="one\nthree\n")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "JPEGImages", "three")
    Image.new("RGB", (7, 5)).save(tmp_path / "JPEGImages" / "three.jpg")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "SegmentationClass", "three.png")
    Image.new("RGB", (7, 5)).save(tmp_path / "JPEGImages" / "one.jpg")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "one.jpg", "one.png")


def test_classes_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for names in (["background"], [], [str(i) for i in range(256)]):
        (tmp_path / "classes.txt").write_text("\n".join(names))
        refusal(lambda: SegmentationFolder(tmp_path, "train"), "classes.txt", len(names), "2 to 255")
    (tmp_path / "classes.txt").write_text("background\ncat\ncat\n")
    refusal(lambda: SegmentationFolder(tmp_path, "train"), "classes.txt", "'cat'", "twice")


# Data sets by name


def test_open_a_folder(tmp_path: Path) -> None:
    assert len(open_dataset(str(make_folder(tmp_path)), "train")) == 2


def test_splits_must_not_share_images(tmp_path: Path) -> None:
    train = SegmentationFolder(make_folder(tmp_path, ("a", "b", "c")), "train")
    val = SegmentationFolder(make_folder(tmp_path, ("d", "e"), split="val"), "val")
    check_no_leak(train, val)
    refusal(lambda: check_no_leak(train, [*val.ids, "c", "b"]), "'b'", "2")


def test_voc_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSEG_VOC_ROOT", str(tmp_path))
    refusal(lambda: open_dataset("voc", "train"), tmp_path, "recseg data voc --root DIR", "RECSEG_VOC_ROOT")
    make_folder(tmp_path / "VOCdevkit" / "VOC2012", ("a", "b"))
    make_folder(tmp_path / "VOCdevkit" / "VOC2012", ("c",), split="val")
    assert open_dataset("voc", "train").ids == ["a", "b"]
    make_folder(tmp_path / "VOCdevkit" / "VOC2012", ("a", "c"), split="train_sbd")
    refusal(lambda: open_dataset("voc", "train_sbd"), "'c'", "validation")
    monkeypatch.delenv("RECSEG_VOC_ROOT")
    monkeypatch.setenv("RECSEG_CACHE", str(tmp_path / "cache"))
    refusal(lambda: open_dataset("voc", "train"), tmp_path / "cache" / "voc")


@needs_voc
def test_real_voc() -> None:
    """A few photographs of each list, and the known content of one mask."""
    train, val = open_dataset("voc", "train"), open_dataset("voc", "val")
    check_no_leak(train, val)
    for dataset in (train, val):
        for index in range(0, len(dataset), len(dataset) // 4):
            image, labels, _ = dataset[index]
            assert image.shape[1:] == labels.shape
            assert set(labels.unique().tolist()) <= {*range(21), VOID}
    first = train[train.ids.index("2007_000032")]
    assert first.labels.unique().tolist() == [0, 1, 15, VOID]  # aeroplanes and two people
