"""What is trained on and what is scored on share no image, under whatever name."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import refusal
from PIL import Image, ImageEnhance, ImageOps

from recseg.data import check_no_leak, open_dataset, voc_root
from recseg.data.duplicates import ALIKE, near_duplicates
from recseg.data.folder import SegmentationFolder, read_split
from recseg.resources import resource

VOC = pytest.mark.skipif("RECSEG_VOC_ROOT" not in os.environ, reason="RECSEG_VOC_ROOT: expected the folder of VOC 2012")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "a copy": lambda picture: picture,
    "smaller": lambda picture: picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)),
    "larger": lambda picture: picture.resize((picture.width * 2, picture.height * 2)),
    "squeezed": lambda picture: picture.resize((picture.width, picture.height * 3 // 4)),
    "mirrored": ImageOps.mirror,
    "lighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "less contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(0.6),
    "cut a little": lambda picture: picture.crop((1, 1, picture.width - 1, picture.height - 1)),
}


def lists(root: Path) -> tuple[SegmentationFolder, SegmentationFolder]:
    return SegmentationFolder(root, "train"), SegmentationFolder(root, "val")


@pytest.fixture
def pictograms(tmp_path: Path) -> Path:
    """Forty of the committed pictograms, as a folder that may be spoilt."""
    source, root = resource("pictograms"), tmp_path / "set"
    ids = {split: read_split(source, split)[:20] for split in ("train", "val")}
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split, names in ids.items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            shutil.copy(source / "JPEGImages" / f"{name}.jpg", root / "JPEGImages")
            shutil.copy(source / "SegmentationClass" / f"{name}.png", root / "SegmentationClass")
    return root


@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_leak_is_found(pictograms: Path, change: str) -> None:
    train, val = lists(pictograms)
    assert near_duplicates(train, val) == []
    stolen, at = val.ids[7], pictograms / "JPEGImages" / f"{train.ids[3]}.jpg"
    CHANGES[change](Image.open(val.image_paths[7])).save(at, quality=60)
    (pair,) = near_duplicates(*lists(pictograms))
    assert (pair.first, pair.second) == (train.ids[3], stolen)
    assert ALIKE <= pair.alike <= 1.0001


def test_the_most_alike_come_first(pictograms: Path) -> None:
    pairs = near_duplicates(*lists(pictograms), alike=0.0)
    assert len(pairs) > 2
    assert [pair.alike for pair in pairs] == sorted((pair.alike for pair in pairs), reverse=True)


def test_flat_pictures_are_like_each_other_to_no_degree(pictograms: Path) -> None:
    train, val = lists(pictograms)
    for path in (train.image_paths[0], val.image_paths[0]):
        Image.new("RGB", (64, 64), (90, 90, 90)).save(path)
    assert near_duplicates(*lists(pictograms)) == []  # nothing to compare, and no division by zero


def test_a_picture_that_cannot_be_read_is_named(pictograms: Path) -> None:
    train, val = lists(pictograms)
    train.image_paths[2].write_bytes(b"no picture")
    refusal(lambda: near_duplicates(train, val), train.image_paths[2].name)


def test_an_id_in_both_lists_is_refused_whatever_the_lists(pictograms: Path) -> None:
    official, sbd = ["2007_000033", "2007_000042"], ["2008_000008", "2007_000042", "2008_000015"]
    refusal(lambda: check_no_leak(sbd, official), "2007_000042")
    check_no_leak([name for name in sbd if name not in official], official)
    with open(pictograms / "ImageSets/Segmentation/train.txt", "a", encoding="utf-8") as stream:
        stream.write(f"\n{read_split(pictograms, 'val')[0]}\n")
    refusal(lambda: check_no_leak(*lists(pictograms)), read_split(pictograms, "val")[0])


def test_a_training_list_of_voc_with_a_validation_picture_is_refused(
    pictograms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSEG_VOC_ROOT", str(pictograms))
    assert len(open_dataset("voc", "train")) == 20
    listed = pictograms / "ImageSets/Segmentation/train_aug.txt"
    listed.write_text("\n".join([*read_split(pictograms, "train"), read_split(pictograms, "val")[4]]))
    refusal(lambda: open_dataset("voc", "train_aug"), read_split(pictograms, "val")[4])


def test_the_committed_pictograms_share_none() -> None:
    train, val = lists(resource("pictograms"))
    check_no_leak(train, val)
    assert len(near_duplicates(train, val)) == 0


# --- VOC


@VOC
def test_the_lists_of_voc_share_no_id() -> None:
    root = voc_root()
    folder = root / "ImageSets" / "Segmentation"
    held_out = [split for split in ("val", "official_val") if (folder / f"{split}.txt").is_file()]
    trained = [
        split for split in ("train", "train_aug", "trainaug", "official_train") if (folder / f"{split}.txt").is_file()
    ]
    assert held_out and trained
    for train in trained:
        for val in held_out:
            check_no_leak(read_split(root, train), read_split(root, val))


@VOC
@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "train_aug"])
def test_the_photographs_of_voc_share_no_near_duplicate(split: str) -> None:
    if not (voc_root() / "ImageSets" / "Segmentation" / f"{split}.txt").is_file():
        pytest.skip(f"this copy of VOC has no list {split}")
    assert near_duplicates(SegmentationFolder(voc_root(), split), SegmentationFolder(voc_root(), "val")) == []


@VOC
def test_a_leak_planted_in_voc_is_found(tmp_path: Path) -> None:
    train, val = (SegmentationFolder(voc_root(), split) for split in ("train", "val"))
    chosen = random.Random(0).sample(range(len(val)), 12)
    for number, index in enumerate(chosen):  # paths alone are changed: nothing is written beside the photographs
        change = list(CHANGES.values())[number % len(CHANGES)]
        train.image_paths[number] = tmp_path / f"{number}.jpg"
        change(Image.open(val.image_paths[index]).convert("RGB")).save(train.image_paths[number], quality=50)
    for split, kept in ((train, list(range(24))), (val, chosen)):
        split.image_paths, split.ids = [split.image_paths[k] for k in kept], [split.ids[k] for k in kept]
    found = {(pair.first, pair.second) for pair in near_duplicates(train, val)}
    assert found == {(train.ids[number], val.ids[number]) for number in range(len(chosen))}
