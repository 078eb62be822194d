"""`recseg predict` on many images: folders, patterns, names of outputs, bad files, masks in COCO's format, legends."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Refuses, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recseg.classes import VOC_CLASSES, Legend
from recseg.cli.inputs import find_images, unique_names
from recseg.cli.main import main
from recseg.inference.coco import CocoFile, encode_mask
from recseg.inference.prediction import Prediction, Step
from recseg.viz.legend import draw_legend
from recseg.viz.plotting import overlay


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Images in two folders, and files that are none."""
    for number, name in enumerate(("a.jpg", "sub/a.png", "sub/deep/B.JPG", ".thumbs/a.jpg", "._a.jpg")):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 16), (90, 40 * number, 0)).save(path)
    (tmp_path / "album" / "notes.txt").write_text("of the album")
    return tmp_path / "album"


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments), "--device", "cpu"])


def written(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


# Files, folders, patterns


def test_a_folder_is_mirrored(album: Path, tiny_dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(album, "--weights", tiny_dense, "--out", out) == 0
    names = ("a", "sub/a", "sub/deep/B")
    assert written(out) == {f"{name}-{kind}.png" for name in names for kind in ("overlay", "labels")}
    with Image.open(out / "sub" / "a-labels.png") as labels:
        assert labels.size == (21, 16)


def test_outputs_are_not_taken_for_images_the_next_time(album: Path, tiny_dense: Path, refuses: Refuses) -> None:
    command = [album, "--weights", tiny_dense, "--out", album / "out"]
    assert predict(*command) == 0
    first = written(album)
    assert predict(*command) == 0
    assert written(album) == first
    for same in (album, album / "sub" / ".."):
        refuses(["predict", album, "--weights", tiny_dense, "--out", same], "--out", "folder of the images")


def test_a_pattern_is_what_a_shell_makes_of_it(album: Path, tmp_path: Path) -> None:
    found = find_images([album / "**" / "*.[jJ]*"], tmp_path / "out")
    assert [image.path for image in found] == [album / "a.jpg", album / "sub" / "deep" / "B.JPG"]
    assert [str(image.relative) for image in found] == ["a.jpg", "B.JPG"]
    refusal(lambda: find_images([album / "*.gif"], tmp_path / "out"), "*.gif", "no such file")
    odd = album / "a[1].jpg"  # a name that looks like a pattern
    odd.write_bytes((album / "a.jpg").read_bytes())
    assert [image.path for image in find_images([odd], tmp_path / "out")] == [odd]


def test_names_of_outputs_never_clash() -> None:
    names = ["x.jpg", "x-2.jpg", "x.jpg", "X.png", "sub/x.jpg", "sub/x.png"]
    assert list(map(str, unique_names(map(Path, names)))) == ["x", "x-2", "x-3", "X-4", "sub/x", "sub/x-2"]


# Bad files


@pytest.fixture
def with_bad(album: Path) -> Path:
    (album / "cut.jpg").write_bytes((album / "a.jpg").read_bytes()[:-200])
    return album


def test_a_bad_image_stops_all(with_bad: Path, tiny_dense: Path, tmp_path: Path, refuses: Refuses) -> None:
    refuses(["predict", with_bad, "--weights", tiny_dense, "--out", tmp_path / "out"], "cut.jpg")


def test_a_bad_image_is_skipped_and_listed(
    with_bad: Path, tiny_dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "steps.json"
    skip = ["--on-bad-image", "skip", "--json", report]
    assert predict(with_bad, "--weights", tiny_dense, "--out", out, *skip) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("cut.jpg" in line for line in errors)
    assert errors[0].startswith("recseg: skipped: ") and errors[1].startswith("recseg: error: skipped 1 image ")
    assert len(json.loads(report.read_text())) == 3 and "sub/a-labels.png" in written(out)


def test_nothing_but_bad_images(
    with_bad: Path, tiny_dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(with_bad / "cut.jpg", "--weights", tiny_dense, "--out", out, "--on-bad-image", "skip") == 2
    assert "none of 1 image" in capsys.readouterr().err and not out.exists()


# Masks in COCO's format


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1), st.integers(1, 40), st.integers(0, 9))
def test_run_lengths_are_those_of_pycocotools(height: int, width: int, share: float, grain: int, seed: int) -> None:
    coder = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((height, width)) < share, np.ones((grain, grain), bool))  # long runs and short ones
    expected = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_mask(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_masks_come_back_from_the_coco_file(album: Path, tiny_recurrent: Path, tmp_path: Path) -> None:
    """An image twice under one relative path is named by its whole path."""
    coco = pytest.importorskip("pycocotools.coco")
    file, steps, out = tmp_path / "masks.json", tmp_path / "steps.json", tmp_path / "out"
    end = ["--weights", tiny_recurrent, "--out", out, "--json", steps, "--coco", file]
    assert predict(album, album / "a.jpg", *end) == 0
    read = coco.COCO(str(file))
    names = [image["file_name"] for image in read.dataset["images"]]
    assert names == [str(album / "a.jpg"), "sub/a.png", "sub/deep/B.JPG", str(album / "a.jpg")]
    assert [each["name"] for each in read.dataset["categories"]] == list(VOC_CLASSES[1:])
    steps_of_all = [step for entry in json.loads(steps.read_text()) for step in entry["steps"] if step["area"]]
    assert len(steps_of_all) == len(read.anns) > 0
    for step, note in zip(steps_of_all, read.anns.values(), strict=True):
        mask = read.annToMask(note)
        rows, columns = np.nonzero(mask)
        assert (step["class_id"], step["probability"]) == (note["category_id"], note["score"])
        assert round(float(mask.mean()), 6) == step["area"] and note["area"] == mask.sum()
        assert note["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_categories_have_the_values_of_the_data() -> None:
    legend = Legend(("", "sky", "road"), (None, 0, 7), ((0, 0, 0), (9, 9, 9), (8, 8, 8)))
    mask = np.eye(3, dtype=bool)
    labels = np.where(mask, 2, 1).astype(np.uint8)
    file = CocoFile(legend)
    file.add("x.jpg", Prediction([Step(2, "road", 0.5, None, mask, 1 / 3)], labels, legend.palette))
    assert file.categories == [{"id": 0, "name": "sky"}, {"id": 7, "name": "road"}]
    assert file.annotations[0]["category_id"] == 7


def test_only_one_report_is_printed(photo: Path, tiny_dense: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = ["--out", tmp_path / "out", "--json", "-", "--coco", "-"]
    refuses(["predict", photo, "--weights", tiny_dense, *out], "--coco -", "one of them")


# The legend


def prediction(labels: np.ndarray) -> Prediction:
    present = [label for label in np.unique(labels).tolist() if label]
    steps = [Step(label, VOC_CLASSES[label], 0.9, None, labels == label, 0.1) for label in present]
    return Prediction(steps, labels, Legend.plain(VOC_CLASSES).palette)


def changed_rows(labels: np.ndarray) -> list[int]:
    image = Image.new("RGB", labels.shape[::-1], (40, 40, 40))
    before = overlay(image, labels)
    after = before.copy()
    draw_legend(after, prediction(labels))
    return np.flatnonzero((np.asarray(before) != np.asarray(after)).any(axis=(1, 2))).tolist()


def test_the_legend_covers_the_edge_with_less_in_it() -> None:
    labels = np.zeros((120, 200), np.uint8)
    assert changed_rows(labels) == []  # nothing to name
    labels[:60, 50:150] = 8
    assert min(changed_rows(labels)) > 90
    assert max(changed_rows(labels[::-1].copy())) < 30


def test_more_names_take_more_rows_and_a_small_image_none() -> None:
    labels = np.zeros((240, 200), np.uint8)
    labels[100, :20] = np.arange(1, 21)
    assert changed_rows(labels) == []  # more than a third of the image
    labels[100, 9:] = 0
    assert 40 < len(changed_rows(labels)) <= 80
    assert changed_rows(np.full((30, 40), 8, np.uint8)) == []


def test_a_legend_shows_the_colours_that_the_masks_have() -> None:
    labels = np.zeros((120, 200), np.uint8)
    labels[:20, :20] = 8
    found = prediction(labels)
    drawn = Image.new("RGB", (200, 120))
    draw_legend(drawn, found)
    assert tuple(found.palette[8].tolist()) in {colour for _, colour in drawn.getcolors(1 << 16) or []}
