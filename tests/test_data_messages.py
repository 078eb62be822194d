"""What is wrong with a data folder or a command line is named by its cause, and what works in one case works in all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, refusal, save_indexed
from PIL import Image

from recseg.classes import VOID, palette
from recseg.cli.main import main
from recseg.data.check import examine
from recseg.data.folder import SegmentationFolder
from recseg.data.images import ORIENTATION
from recseg.data.pack import PackedFolder, write_pack
from recseg.devices import available, choose_device
from recseg.errors import RecsegError, counted
from recseg.models.unet import UNet
from recseg.training.config import TrainConfig
from recseg.weights.io import load, save_weights

QUICK = [
    *("--val-split", "none", "--steps", "1", "--size", "16"),
    *("--batch-size", "2", "--workers", "0", "--device", "cpu"),
]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Four images of 24×40 with a square of class 1, train and val alike, and the names of two classes."""
    root = tmp_path / "two"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        pixels = np.full((24, 40, 3), 40 * number, np.uint8)
        pixels[4:12, 4:12] = (230, 40, 40)
        Image.fromarray(pixels).save(root / f"JPEGImages/{number}.png")
        labels = np.zeros((24, 40), np.uint8)
        labels[4:12, 4:12] = 1
        Image.fromarray(labels).save(root / f"SegmentationClass/{number}.png")
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("0\n1\n2\n3\n")
    (root / "classes.txt").write_text("background\nthing\n")
    return root


def test_a_list_of_files_is_told_that_it_is_a_list_of_ids(two: Path) -> None:
    (two / "ImageSets/Segmentation/train.txt").write_text("0.png\n1.png\n")
    refusal(lambda: SegmentationFolder(two, "train"), "the split lists '0.png'", "without a suffix: '0'")


# Class names

BAD_NAMES = {
    "a tab": ("traffic\tlight", "U+0009"),
    "a no-break space": ("traffic\u00a0light", "U+00A0, no-break space"),
    "a zero-width space": ("traffic\u200blight", "U+200B, zero width space"),
    "a line separator": ("traffic\u2028light", "U+2028"),
    "a direction mark": ("\u202elight", "U+202E"),
    "a thousand letters": ("x" * 1000, "1000 characters"),
}


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_names_that_cannot_be_read_back_are_refused_at_the_start(
    kind: str, two: Path, tmp_path: Path, tiny_dense: Path, refuses: Refuses
) -> None:
    name, word = BAD_NAMES[kind]
    (two / "classes.txt").write_text(f"background\n{name}\n", encoding="utf-8", newline="")
    refuses(["train", "--data", two, "--out", tmp_path / "run", *QUICK], "classes.txt", word)
    refuses(["evaluate", "--weights", tiny_dense, "--data", two], "classes.txt", word)
    refuses(["data", "pack", "--data", two, "--size", 16, "--out", tmp_path / "two.pack"], "classes.txt", word)
    model = UNet(load(tiny_dense).config)
    names = [name, *map(str, range(20))]
    file = tmp_path / "new.safetensors"
    refusal(lambda: save_weights(file, model, classes=names, image_size=16, metadata={}), file, word)
    assert not file.exists()


@pytest.mark.parametrize("names", [["a"], [], ["a", "a"], ["a", ""], ["a", " "], ["a", 3], ["a", None], ["a"] * 256])
def test_only_lists_of_names_are_written(names: list[Any], tiny_dense: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.safetensors"
    refusal(lambda: save_weights(file, load(tiny_dense), classes=names, image_size=16, metadata={}), file)
    assert not file.exists()


def test_names_of_any_script_come_back(two: Path, tmp_path: Path) -> None:
    names = ["Hintergrund", "Fußgänger & Räder: 100 %"]
    (two / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    write_pack(SegmentationFolder(two, "train"), tmp_path / "two.pack", 16, progress=False)
    assert PackedFolder(tmp_path / "two.pack").classes == tuple(names)
    assert main(["train", "--data", str(two), "--out", str(tmp_path / "run"), *QUICK]) == 0
    assert load(tmp_path / "run").classes == tuple(names)
    (two / "classes.txt").write_text("背景\nرصيف\n", encoding="utf-8")
    assert SegmentationFolder(two, "train").classes == ("背景", "رصيف")


def test_metadata_that_cannot_be_read_back_are_not_written(tiny_dense: Path, tmp_path: Path) -> None:
    model, file = load(tiny_dense), tmp_path / "new.safetensors"
    more = {"note": "x" * (1 << 20)}
    refusal(lambda: save_weights(file, model, classes=model.classes, image_size=16, metadata=more), file, "metadata")
    assert not file.exists()


# Images and masks


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".webp", ".bmp", ".gif", ".ppm"])
def test_a_folder_takes_what_predict_takes(two: Path, suffix: str) -> None:
    before = SegmentationFolder(two, "train")[1]
    old = two / "JPEGImages" / "1.png"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    Image.open(old).save(old.with_suffix(suffix), **options)
    refusal(lambda: SegmentationFolder(two, "train"), "1.png", "both have the id")
    old.unlink()
    after = SegmentationFolder(two, "train")[1]
    assert torch.equal(before.image, after.image) and torch.equal(before.labels, after.labels)


def test_an_image_of_no_such_kind_is_told(two: Path) -> None:
    (two / "JPEGImages" / "2.png").rename(two / "JPEGImages" / "2.heic")
    refusal(lambda: SegmentationFolder(two, "train"), "2.jpg", "2.heic is none of", ".webp")


@pytest.mark.parametrize(("suffix", "word"), [(".jpg", "JPEG changes labels"), (".bmp", "PNG"), (".npy", "PNG")])
def test_a_mask_of_another_kind_is_told(two: Path, suffix: str, word: str) -> None:
    mask = two / "SegmentationClass" / "2.png"
    mask.rename(mask.with_suffix(suffix))
    message = refusal(lambda: SegmentationFolder(two, "train"), mask.with_suffix(suffix), word, "expected 2.png")
    assert "no such file" not in message


def turn(path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize("who", ["image", "mask"])
def test_exif_that_turns_one_of_two_is_named(who: str, two: Path) -> None:
    turn(two / {"image": "JPEGImages", "mask": "SegmentationClass"}[who] / "3.png")
    refusal(lambda: SegmentationFolder(two, "train")[3], "3.png", "24×40", "40×24", f"EXIF orientation of the {who}")


def test_exif_is_not_named_where_it_turns_both_or_none(two: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass"):
        turn(two / folder / "3.png")
    data = SegmentationFolder(two, "train")
    assert data[3].image.shape == (3, 40, 24)
    save_indexed(np.zeros((9, 9)), two / "SegmentationClass" / "2.png")
    assert "EXIF" not in refusal(lambda: data[2], "9×9", "40×24")


def test_a_colour_of_a_class_that_the_set_lacks_is_named_as_that(two: Path) -> None:
    mask = two / "SegmentationClass" / "0.png"
    Image.fromarray(palette()[np.full((24, 40), 3)]).save(mask)
    message = refusal(lambda: SegmentationFolder(two, "train")[0], mask, "(128, 128, 0)", "of class 3", "0 to 1")
    assert "no class" not in message
    Image.fromarray(np.full((24, 40, 3), 7, np.uint8)).save(mask)
    refusal(lambda: SegmentationFolder(two, "train")[0], mask, "(7, 7, 7)", "no class of VOC's palette")


# Masks that label nothing


@pytest.mark.parametrize("labels", ["void", "background", "0 and 255"])
@pytest.mark.parametrize("named", [True, False])
def test_a_training_list_without_a_label_is_refused(
    labels: str, named: bool, two: Path, tmp_path: Path, refuses: Refuses
) -> None:
    for path in (two / "SegmentationClass").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray({"void": mask * 0 + VOID, "background": mask * 0, "0 and 255": mask * VOID}[labels]).save(path)
    if not named:
        (two / "classes.txt").unlink()
    refuses(["train", "--data", two, "--out", tmp_path / "run", *QUICK], str(two), "'train'", "no mask", "background")
    (two / "SegmentationClass" / "0.png").write_bytes(b"no mask")
    refusal(lambda: examine(SegmentationFolder(two, "train"), None), "0.png", "not an image")


def test_one_labelled_mask_is_enough(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        Image.new("L", (40, 24), VOID).save(two / f"SegmentationClass/{number}.png")
    data = SegmentationFolder(two, "train")
    read: list[int] = []
    labels = data.labels

    def noted(index: int) -> np.ndarray:
        read.append(index)
        return labels(index)

    monkeypatch.setattr(data, "labels", noted)
    assert any("1 thing" in line for line in examine(data, None))
    assert data.max_classes_per_image == 1
    assert read == [0, 1, 2, 3]  # each once


# The command line


def test_a_device_is_refused_with_those_there_are(two: Path, tmp_path: Path, refuses: Refuses) -> None:
    refuses(["train", "--data", two, "--out", tmp_path / "run", *QUICK[:-1], "gpu"], "'gpu'", *available())
    assert "cpu" in available()
    for name in available():
        assert str(choose_device(name)) == name
    refusal(lambda: choose_device("cuda:99"), "'cuda:99'", "expected cpu")


def test_too_small_a_crop_is_told_as_typed(two: Path, tmp_path: Path, refuses: Refuses) -> None:
    refuses(["train", "--data", two, "--out", tmp_path / "run", "--size", 1], "--size", "'1'", "from 2")
    for name in ("size", "image_size"):
        for value in (-1, 0, 1):
            option: dict[str, Any] = {name: value}
            with pytest.raises(RecsegError) as caught:
                TrainConfig(data="voc", **option)
            assert str(caught.value) == f"{name} {value}: expected 2 pixels or more"


def test_neither_data_nor_a_run(tmp_path: Path, refuses: Refuses) -> None:
    refuses(["train", "--out", tmp_path / "run"], "--data", "--resume")


def test_one_is_one(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (two / "ImageSets/Segmentation/one.txt").write_text("0\n")
    one = ["--images", "1", "--out", str(tmp_path / "set")]
    pack = ["--data", str(two), "--split", "one", "--size", "16", "--out", str(tmp_path / "one.pack")]
    for command in (["data", "pictograms", *one], ["data", "pack", *pack]):
        assert main(command) == 0
        assert "1 image " in capsys.readouterr().out
    assert (counted(0, "frame"), counted(1, "frame"), counted(1200, "frame")) == ("0 frames", "1 frame", "1,200 frames")
