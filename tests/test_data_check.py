"""Folders as people make them, with what would be misunderstood in silence: refused, or reported in one line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Refuses, recurrent_model, refusal, save_indexed
from PIL import Image

from recseg.classes import VOID
from recseg.cli.main import main
from recseg.data import open_dataset
from recseg.data.check import examine, hints
from recseg.data.folder import SegmentationFolder
from recseg.evaluation.evaluate import evaluate
from recseg.training.train import TrainConfig, train

Masks = Callable[[int], np.ndarray]
SCENE = ("sky", "building", "road", "pavement", "tree", "fence", "pole", "sign", "car", "pedestrian", "cyclist")


def halves(value: int, ground: int = 0, share: float = 0.25) -> np.ndarray:
    """A mask (24, 32): the lower part has the value."""
    mask = np.full((24, 32), ground, np.uint8)
    mask[24 - round(24 * share) :] = value
    return mask


def street(number: int) -> np.ndarray:
    """Fully labelled from 0 on, and void (11) in a corner, as street scenes come."""
    mask = np.repeat(np.arange(12, dtype=np.uint8), 2)[:, None].repeat(32, axis=1)
    return np.roll(mask, number, axis=0)


def folder(root: Path, masks: Masks, names: Sequence[str] | str | None, lists: dict[str, range] | None = None) -> Path:
    """A folder of noise with these masks; images 0 to 3 in train, 4 and 5 in val."""
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for split, members in (lists or {"train": range(4), "val": range(4, 6)}).items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"m{number}\n" for number in members))
    generator = np.random.default_rng(0)
    for number in range(6):
        mask = masks(number)
        pixels = generator.integers(0, 256, (*mask.shape[:2], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"m{number}.jpg")
        Image.fromarray(mask).save(root / "SegmentationClass" / f"m{number}.png")
    if names is not None:
        (root / "classes.txt").write_text(names if isinstance(names, str) else "\n".join(names) + "\n")
    return root


def lines(root: Path) -> list[str]:
    """What a training on the folder begins with."""
    return examine(open_dataset(str(root), "train"), open_dataset(str(root), "val"))


def config(root: Path, **options: object) -> TrainConfig:
    given = {"steps": 1, "size": 32, "batch_size": 2, "workers": 0, "device": "cpu", "encoder_widths": None} | options
    del given["encoder_widths"]
    return TrainConfig(data=str(root), **given)  # type: ignore[arg-type]


# What a training says first


def test_a_training_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "set", lambda number: halves(1 + number % 2), ("background", "cat", "dog"))
    train(config(root), tmp_path / "run")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train: 4 images, 32×24; void 0.0% of all pixels"
    assert printed[1] == "classes: 0 background 75.0%, 1 cat 12.5%, 2 dog 12.5%"
    assert printed[2] == "val: 2 images, 32×24; void 0.0% of all pixels"
    assert printed[3] == "check: in fewer than 20 images of train: cat (2), dog (2)"
    assert len(printed) == 5 and printed[4].startswith("by default: ")
    train(config(root), tmp_path / "silent", progress=False)
    assert not capsys.readouterr().out


def test_a_first_name_that_is_no_background(tmp_path: Path) -> None:
    """Background was left out of classes.txt, so that every name is one off."""
    printed = lines(folder(tmp_path, halves_of_one, ("cat", "dog")))
    assert "classes: 0 cat = background 75.0%, 1 dog 25.0%" in printed
    assert any("'cat', the first of classes.txt" in line and "put background before it" in line for line in printed)


def halves_of_one(number: int) -> np.ndarray:
    return halves(1)


def test_raw_masks_that_start_with_a_class(tmp_path: Path) -> None:
    """Values 0 … 11, of which 11 is void, under `background` and eleven names: each name is one off."""
    printed = lines(folder(tmp_path / "a", street, ("background", *SCENE)))
    assert any("every pixel is labelled, and value 0 is taken for the background" in line for line in printed)
    printed = lines(folder(tmp_path / "b", street, (*SCENE, "void")))
    assert any("'sky', the first of classes.txt" in line for line in printed)
    assert any("'11 void'" in line and "call it void in a table" in line for line in printed)
    table = "value,name\n" + "".join(f"{value},{name}\n" for value, name in enumerate((*SCENE, "void")))
    printed = lines(folder(tmp_path / "c", street, table))
    assert printed[1].startswith("classes, and no background: 0 sky 9.1%, 1 building 9.1%")
    assert [line for line in printed if line.startswith("check")] == [
        "check: in fewer than 20 images of train: " + ", ".join(f"{name} (4)" for name in SCENE)
    ]


def test_without_names_they_are_vocs(tmp_path: Path) -> None:
    root = folder(tmp_path, halves_of_one, None)
    assert any(f"no classes.txt in {root}: the names are VOC's" in line for line in lines(root))


@pytest.mark.parametrize(
    ("masks", "names", "words"),
    [
        (lambda number: halves(1, 2), ("background", "a", "b"), "no pixel is background (value 0)"),
        (lambda number: np.pad(halves(1, 1)[:2, :2], ((0, 22), (0, 30))), ("background", "a"), "99.5% of the pixels"),
        (halves_of_one, ("background", "a", "unlabelled"), "'2 unlabelled' is scored like any class"),
        (halves_of_one, ("background", "a", "b"), "in no mask of train: b"),
        (lambda number: halves(1 + number // 4), ("background", "a", "b"), "in masks of val and none of train: b"),
    ],
)  # fmt: skip
def test_what_may_not_be_meant(tmp_path: Path, masks: Masks, names: tuple[str, ...], words: str) -> None:
    assert any(words in line for line in lines(folder(tmp_path, masks, names)))


def test_masks_that_were_smoothed(tmp_path: Path) -> None:
    """Between background and class 3 a smoothed mask has rims of 1 and 2."""

    def smoothed(number: int) -> np.ndarray:
        mask = halves(3, share=0.5)
        mask[11], mask[12] = 1, 2
        return mask

    printed = lines(folder(tmp_path, smoothed, ("background", "a", "b", "c")))
    assert any("nowhere two pixels wide: a, b" in line for line in printed)
    generator = np.random.default_rng(0)
    noise = folder(tmp_path / "noise", lambda number: generator.integers(0, 256, (24, 32), dtype=np.uint8), ("x", "y"))
    refusal(lambda: lines(noise), "expected 0 to 1", "values look like those of a smoothed mask or a JPEG")


# What it refuses


def test_masks_of_0_and_255_hold_no_class(tmp_path: Path, refuses: Refuses) -> None:
    root = folder(tmp_path / "set", lambda number: halves(VOID), ("background", "cat"))
    command = ["train", "--data", root, "--steps", 1, "--out", tmp_path / "run"]
    refuses(command, str(root), "'train' holds a class, only background and void (value 255)", "a table in classes.txt")
    model = recurrent_model(num_classes=2)
    model.classes, model.image_size = ("background", "cat"), 32
    (root / "classes.txt").write_text("value,name\n0,background\n255,cat\n")  # as the line says
    assert lines(root)[1] == "classes: 0 background 75.0%, 255 cat 25.0%"
    assert evaluate(model, open_dataset(str(root), "val"), progress=False)["iou_per_class"].keys() == {
        "background",
        "cat",
    }


def test_nothing_but_void(tmp_path: Path, refuses: Refuses, tiny_recurrent: Path) -> None:
    root = folder(tmp_path / "set", lambda number: halves(1) if number < 4 else halves(VOID, VOID), None)
    words = (str(root), "no mask of the split 'val' holds a class or background, only void")
    refuses(["train", "--data", root, "--steps", 1, "--out", tmp_path / "run"], *words)
    refuses(["evaluate", "--data", root, "--weights", tiny_recurrent], *words)


def test_palettes_that_differ_from_file_to_file(tmp_path: Path) -> None:
    """As reducing each mask to its own colours makes them: two classes become index 0."""
    root = folder(tmp_path, halves_of_one, ("background", "cat", "dog"))
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
    for number, labels in enumerate((halves(1), halves(2, share=0.75), halves(1), halves(2), halves(1), halves(2))):
        mask = Image.fromarray(colours[labels]).convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
        mask.save(root / "SegmentationClass" / f"m{number}.png")
    refusal(
        lambda: lines(root), root, "index 0 is (200, 0, 0) in m0.png and (0, 200, 0) in m1.png", "value,name,colour"
    )
    (root / "classes.txt").write_text("name,colour\nbackground,#000\ncat,#c80000\ndog,#00c800\n")  # as the line says
    for number, labels in enumerate((halves(1), halves(2))):
        Image.fromarray(colours[labels]).save(root / "SegmentationClass" / f"m{number}.png")
    dataset = open_dataset(str(root), "train")
    assert [np.unique(dataset.labels(number)).tolist() for number in (0, 1)] == [[0, 1], [0, 2]]


def test_one_index_in_two_colours_is_asked_about(tmp_path: Path) -> None:
    root = folder(tmp_path, halves_of_one, ("background", "cat", "dog"))
    for number, colour in enumerate(([200, 0, 0], [0, 200, 0])):
        mask = Image.fromarray(halves(1))
        mask.putpalette([0, 0, 0, *colour, 9, 9, 9])
        mask.save(root / "SegmentationClass" / f"m{number}.png")
    words = "index 1 is (200, 0, 0) in m0.png and (0, 200, 0) in m1.png; is it the same class in both?"
    assert f"check: {words}" in lines(root)


def test_values_with_gaps(tmp_path: Path) -> None:
    root = folder(tmp_path, lambda number: halves([38, 75][number % 2]), ("background", "cat", "dog"))
    refusal(lambda: lines(root), "m0.png", "38, expected 0 to 2", "classes.txt says what values mean")
    (root / "classes.txt").write_text("value,name\n0,background\n38,cat\n75,dog\n")
    assert lines(root)[1] == "classes: 0 background 75.0%, 38 cat 12.5%, 75 dog 12.5%"


@pytest.mark.parametrize("val", [range(4), range(3, 6)])
def test_a_validation_list_of_training_images(tmp_path: Path, refuses: Refuses, val: range) -> None:
    root = folder(tmp_path / "set", halves_of_one, ("background", "cat"), {"train": range(4), "val": val})
    command = ["train", "--data", root, "--steps", 1, "--out", tmp_path / "run"]
    refuses(command, str(root), repr(f"m{val[0]}"), "--val-split none")
    refuses(["data", "check", root], "1 fault ")


def test_a_score_on_training_images_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "set", halves_of_one, ("background", "cat"), {"train": range(4), "val": range(3, 6)})
    train(config(root, val_split="none"), tmp_path / "run", progress=False)
    assert main(["evaluate", "--weights", str(tmp_path / "run"), "--data", str(root)]) == 0
    assert "note: 1 of these 3 images are in the list that it was trained on (train)" in capsys.readouterr().out


def test_trainval_holds_val_by_its_name(tmp_path: Path) -> None:
    lists = {"trainval": range(6), "val": range(4, 6)}
    root = folder(tmp_path / "set", halves_of_one, ("background", "cat"), lists)
    train(config(root, split="trainval"), tmp_path / "run", progress=False)


# The command


def test_check_tells_of_all_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "set", lambda number: halves(1 + number % 2), ("background", "cat", "dog"))
    assert main(["data", "check", str(root), "--sheet", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 images" in printed and "val: 2 images" in printed
    assert "  2 dog" in printed and "nothing that a training would refuse" in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or []}
    dataset = SegmentationFolder(root, "train")
    assert {tuple(colour) for colour in dataset.palette.tolist()} <= colours  # in the legend


def test_a_sheet_is_not_drawn_over_an_image(tmp_path: Path, refuses: Refuses) -> None:
    root = folder(tmp_path / "set", halves_of_one, ("background", "cat"))
    mask = root / "SegmentationClass/m0.png"
    before = mask.read_bytes()
    refuses(["data", "check", root, "--sheet", mask], str(mask))
    assert mask.read_bytes() == before


def test_check_finds_copies_strays_and_bad_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = {"train": range(3), "val": range(4, 6)}
    root = folder(tmp_path / "set", halves_of_one, ("background", "cat"), lists)
    smooth = Image.radial_gradient("L").resize((32, 24)).convert("RGB")
    for name in ("m0", "m4"):
        smooth.save(root / "JPEGImages" / f"{name}.jpg")
    Image.new("RGB", (24, 24)).save(root / "JPEGImages" / "m2.jpg")
    save_indexed(halves(7), root / "SegmentationClass" / "m1.png")
    assert main(["data", "check", str(root)]) == 2
    streams = capsys.readouterr()
    assert "near-duplicates in train and val: 1, such as 'm0' and 'm4'" in streams.out
    assert "in none of these lists, 1 images: m3" in streams.out
    assert "fault: 1 mask cannot be read" in streams.out and "class index 7" in streams.out
    assert streams.err.count("\n") == 1 and "2 faults that a training would refuse" in streams.err
    assert "m2.jpg: is 24×24 pixels, its mask 32×24" in streams.out


def test_check_takes_whatever_lists_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CVAT writes one list, `default`, when nobody asks for others."""
    root = folder(tmp_path / "set", halves_of_one, ("background", "cat"), {"default": range(6)})
    assert main(["data", "check", str(root)]) == 0
    assert "default: 6 images" in capsys.readouterr().out


def test_real_sets_are_left_alone() -> None:
    dataset = open_dataset("pictograms", "val")
    assert [hint for hint in hints(dataset, dataset.survey()) if "fewer than" not in hint] == []
