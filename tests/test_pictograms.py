"""The embedded data set: like VOC in its habits, reproducible, safe to write, and blind to colour."""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL import __version__ as pillow_version

from recseg.book.contact_sheet import contact_sheet
from recseg.classes import VOC_CLASSES, VOID, palette
from recseg.data import open_dataset
from recseg.data.pictograms import (
    TRAIN_SEED,
    VAL_SEED,
    VERSION,
    dataset,
    embedded_root,
    ensure_train,
    generate,
    scene,
    write_dataset,
)  # fmt: skip
from recseg.data.pictograms.dataset import encode, image_id
from recseg.data.pictograms.drawing import OUTSIDE, bend, rasterize, silhouette
from recseg.data.pictograms.shapes_living import DISTRACTORS, SHAPES
from recseg.errors import RecsegError
from recseg.resources import resource

Picture = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@cache
def sample(count: int = 300) -> list[Picture]:
    """Images at half size, where drawing is cheap."""
    return [generate(index, seed=77, size=64) for index in range(count)]


def present(labels: NDArray[np.uint8]) -> list[int]:
    return [int(v) for v in np.unique(labels) if v not in (0, VOID)]


def lists(root: Path) -> dict[str, list[str]]:
    folder = root / "ImageSets" / "Segmentation"
    return {path.stem: path.read_text().split() for path in sorted(folder.glob("*.txt"))}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_each_class_has_several_silhouettes_that_cover_something() -> None:
    assert set(SHAPES) == set(VOC_CLASSES[1:])
    assert all(len(set(variants)) >= 3 for variants in SHAPES.values())
    for text in [*DISTRACTORS, *(text for variants in SHAPES.values() for text in variants)]:
        shape = silhouette(text)
        extent = np.ptp(shape.points, axis=0)
        assert 60 < extent.max() < 115  # drawn in the same box, so that strokes have the same weight
        assert shape.area > 0.1 * extent.max() ** 2
        np.testing.assert_allclose(shape.points.max(axis=0), -shape.points.min(axis=0))


def test_a_wheel_has_a_hole_and_a_cut_shape_stays_on_the_canvas() -> None:
    shape = silhouette("O 50,50 40,40 10")
    layer = rasterize(shape, shape.points + 50, 100)
    assert layer.tones[50 - layer.top, 50 - layer.left] == OUTSIDE
    assert layer.tones[50 - layer.top, 15 - layer.left] != OUTSIDE
    assert np.count_nonzero(layer.tones) == pytest.approx(np.pi * (40**2 - 30**2), rel=0.05)
    far = rasterize(shape, shape.points + [95, -300], 100)
    assert far.tones.shape[0] + far.top <= 100 and far.tones.shape[1] + far.left <= 100


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(SHAPES)))
def test_bending_keeps_a_shape_finite_and_about_as_large(seed: int, name: str) -> None:
    shape = silhouette(SHAPES[name][0])
    bent = bend(shape.points, np.random.default_rng(seed), turn=25)
    assert np.isfinite(bent).all()
    assert 0.5 < np.ptp(bent, axis=0).max() / np.ptp(shape.points, axis=0).max() < 1.8


def test_images_and_masks_have_the_promised_form() -> None:
    for size in (32, 97, 128):
        image, labels = generate(3, seed=5, size=size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert labels.shape == (size, size) and labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(21), VOID}


def test_a_picture_depends_on_its_own_number_only() -> None:
    alone = generate(7, seed=5, size=64)
    for index in (0, 3, 9):
        generate(index, seed=5, size=64)
    again = generate(7, seed=5, size=64)
    assert all(np.array_equal(a, b) for a, b in zip(alone, again, strict=True))
    for other in (generate(8, seed=5, size=64), generate(7, seed=6, size=64)):
        assert not np.array_equal(alone[0], other[0])


def test_one_to_five_planned_classes_can_all_be_seen() -> None:
    for index, (_, labels) in enumerate(sample()):
        planned = scene.plan_classes(np.random.default_rng([77, index, VERSION]))
        assert sorted(planned) == present(labels), index
        pixels = np.bincount(labels.ravel(), minlength=256)
        assert pixels[planned].min() >= 30 / 4, index  # 30 pixels at 128 × 128


def test_the_last_resort_shows_every_class_whatever_they_are() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 6):
        for _ in range(8):
            classes = [int(label) for label in rng.choice(np.arange(1, 21), count, replace=False)]
            placed = scene.grid_layout(rng, classes, canvas=256)
            labels, visible = scene.label_map(placed, 256)
            assert scene.acceptable(classes, placed, labels, visible)


def test_classes_an_image_and_class_frequencies_are_those_of_voc() -> None:
    plans = [scene.plan_classes(np.random.default_rng([1, index])) for index in range(4000)]
    share = np.bincount([len(plan) for plan in plans], minlength=6)[1:] / len(plans)
    np.testing.assert_allclose(share, np.array([933, 383, 124, 21, 3]) / 1464, atol=0.025)
    frequency = np.bincount([label for plan in plans for label in plan], minlength=21)[1:]
    person = VOC_CLASSES.index("person") - 1
    others = np.delete(frequency, person)
    assert others.max() < 1.4 * others.min()
    assert 2.3 < frequency[person] / others.mean() < 3.3


def test_areas_and_void_are_about_those_of_voc() -> None:
    labels = [labels for _, labels in sample()]
    areas = [np.mean(map_ == label) for map_ in labels for label in present(map_)]
    low, first, median, third = np.quantile(areas, [0.05, 0.25, 0.5, 0.75])
    assert 0.003 < low < 0.025
    assert 0.025 < first < 0.06 and 0.08 < median < 0.15 and 0.17 < third < 0.28  # VOC: 0.035, 0.11, 0.25
    void = float(np.mean([map_ == VOID for map_ in [generate(index, 5)[1] for index in range(40)]]))
    assert 0.03 < void < 0.09  # VOC: 0.055


def test_void_parts_every_two_labels() -> None:
    for index in range(12):
        labels = generate(index, seed=9)[1]
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            assert ((a == b) | (a == VOID) | (b == VOID)).all()


def test_colour_says_nothing_about_class() -> None:
    """A classifier on colour histograms does no better than always saying the most frequent class."""
    pairs = [(image, present(labels)) for image, labels in sample()]
    single = [(image, classes[0]) for image, classes in pairs if len(classes) == 1]
    bins = np.stack([(image >> 6).astype(int) @ [16, 4, 1] for image, _ in single]).reshape(len(single), -1)
    features = np.stack([np.sqrt(np.bincount(row, minlength=64) / row.size) for row in bins])
    labels = np.array([label for _, label in single])
    hits = 0
    for fold in range(5):  # nearest mean of a class, each image held out once
        held_out = np.arange(len(labels)) % 5 == fold
        known = np.unique(labels[~held_out])
        means = np.stack([features[~held_out & (labels == label)].mean(axis=0) for label in known])
        distance = ((features[held_out][:, None] - means) ** 2).sum(axis=2)
        hits += int((known[distance.argmin(axis=1)] == labels[held_out]).sum())
    majority = np.bincount(labels).max() / len(labels)
    assert hits / len(labels) < majority + 0.03


def test_an_object_stands_out_from_what_is_around_it() -> None:
    differences = []
    for index in range(30):
        image, labels = generate(index, seed=13)
        inside = np.isin(labels, present(labels))
        mean = [image[mask].mean(axis=0) for mask in (inside, labels == 0)]
        differences.append(float(np.linalg.norm(mean[0] - mean[1])))
    assert np.median(differences) > 50


def test_masks_are_palette_pngs_and_keep_every_label() -> None:
    image, labels = generate(0, seed=1)
    jpeg, png = encode(image, labels)
    mask = Image.open(io.BytesIO(png))
    assert mask.mode == "P" and mask.format == "PNG"
    assert mask.getpalette() == palette().ravel().tolist()
    assert np.array_equal(np.asarray(mask), labels)
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.format == "JPEG" and picture.mode == "RGB" and picture.size == (128, 128)


def test_the_committed_set_is_what_the_generator_draws() -> None:
    root = resource("pictograms")
    info = json.loads((root / "info.json").read_text())
    assert info["version"] == VERSION
    splits = lists(root)
    assert (len(splits["train"]), len(splits["val"])) == (200, 500)
    assert splits["trainval"] == splits["train"] + splits["val"]
    assert (root / "classes.txt").read_text().splitlines() == list(VOC_CLASSES)
    same_library = info["drawn_with"]["pillow"] == pillow_version
    for seed, index, split in (
        (TRAIN_SEED, 0, "train"),
        (TRAIN_SEED, 199, "train"),
        (VAL_SEED, 0, "val"),
        (VAL_SEED, 499, "val"),
    ):
        name = image_id((seed, index))
        assert splits[split][index] == name
        image, labels = generate(index, seed)
        jpeg, png = (
            (root / folder / f"{name}{suffix}")
            for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"))
        )
        stored = np.asarray(Image.open(png))
        if same_library:
            assert np.array_equal(stored, labels)
            assert (jpeg.read_bytes(), png.read_bytes()) == encode(image, labels)
        else:  # another Pillow may draw an edge a pixel elsewhere
            assert np.mean(stored == labels) > 0.97
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) <= 5_000_000


def test_a_dataset_is_in_vocs_layout_and_its_prefix_does_not_depend_on_its_length(tmp_path: Path) -> None:
    write_dataset(tmp_path / "five", 5, seed=4, size=64, progress=False)
    write_dataset(tmp_path / "three", 3, seed=4, size=64, val_fraction=0, progress=False)
    splits = lists(tmp_path / "five")
    assert (len(splits["train"]), len(splits["val"]), len(splits["trainval"])) == (4, 1, 5)
    assert not set(splits["train"]) & set(splits["val"])
    long, short = contents(tmp_path / "five"), contents(tmp_path / "three")
    assert all(long[name] == content for name, content in short.items() if name.endswith((".jpg", ".png")))
    assert sum(name.endswith(".png") for name in short) == sum(name.endswith(".jpg") for name in short) == 3


def test_an_interrupted_run_leaves_no_lists_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def stops(index: int, seed: int, size: int = 128) -> Picture:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(index)
        return generate(index, seed, size)

    monkeypatch.setattr(dataset, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", 6, seed=4, size=64, progress=False)
    assert lists(tmp_path / "set") == {}

    def counts(index: int, seed: int, size: int = 128) -> Picture:
        drawn.append(index)
        return generate(index, seed, size)

    monkeypatch.setattr(dataset, "generate", counts)
    write_dataset(tmp_path / "set", 6, seed=4, size=64, progress=False)
    assert drawn == [0, 1, 2, 3, 4, 5]  # nothing twice
    monkeypatch.undo()
    write_dataset(tmp_path / "whole", 6, seed=4, size=64, progress=False)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


class Pool(ThreadPoolExecutor):
    """Stands in for a pool of processes, whose start would take longer than the whole file."""

    def __init__(self, workers: int, mp_context: object) -> None:
        super().__init__(workers)


class BrokenPool(Pool):
    """Does the first share, then loses its workers."""

    def map(self, function: Callable[..., int], *arguments: Any, **options: Any) -> Iterator[int]:  # type: ignore[override]
        yield function(*next(zip(*arguments, strict=True)))
        raise BrokenProcessPool


@pytest.mark.parametrize("pool", [Pool, BrokenPool])
def test_several_workers_write_what_one_writes_even_if_they_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: type[Pool]
) -> None:
    write_dataset(tmp_path / "one", 40, seed=4, size=32, progress=False)
    monkeypatch.setattr(dataset, "ProcessPoolExecutor", pool)
    write_dataset(tmp_path / "two", 40, seed=4, size=32, workers=2, progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RecsegError, match=r"mine: not empty"):
        write_dataset(tmp_path / "mine", 2, seed=1, progress=False)
    assert contents(tmp_path / "mine") == {"letter.txt": b"dear"}
    write_dataset(tmp_path / "set", 2, seed=1, size=32, progress=False)
    before = contents(tmp_path / "set")
    with pytest.raises(RecsegError, match=r"set: holds other pictograms \(seed 1 instead of 2\)"):
        write_dataset(tmp_path / "set", 2, seed=2, size=32, progress=False)
    assert contents(tmp_path / "set") == before
    (tmp_path / "file").write_text("")
    with pytest.raises(RecsegError, match="file: cannot be used as a folder"):
        write_dataset(tmp_path / "file", 2, seed=1, progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0, "seed": 1}, "images 0"),
        ({"images": 1, "seed": -1}, "seed -1"),
        ({"images": 1, "seed": 1, "size": 8}, "size 8"),
        ({"images": 1, "seed": 1, "val_fraction": 1.0}, r"val_fraction 1\.0"),
    ],
)
def test_bad_numbers_are_named_and_nothing_is_written(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(RecsegError, match=message):
        write_dataset(tmp_path / "set", progress=False, **arguments)
    assert not (tmp_path / "set").exists()
    with pytest.raises(RecsegError):
        generate(-1, 0)


def test_the_training_set_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSEG_CACHE", str(tmp_path))
    root = ensure_train(3, workers=1, progress=False)
    assert root.name == f"pictograms-v{VERSION}-{TRAIN_SEED}-3"
    assert lists(root)["train"] == [image_id((TRAIN_SEED, index)) for index in range(3)]
    assert lists(root)["val"] == []
    monkeypatch.setattr(dataset, "write_dataset", lambda *a, **k: pytest.fail("drawn again"))
    assert ensure_train(3, workers=1, progress=False) == root


@pytest.fixture
def without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that does not carry the committed set, and an empty cache; returns the committed set."""
    committed = resource("pictograms")

    def absent(*parts: str) -> Path:
        raise RecsegError(f"data/{'/'.join(parts)}: not part of this installation of recseg")

    monkeypatch.setattr(dataset, "resource", absent)
    monkeypatch.setenv("RECSEG_CACHE", str(tmp_path / "cache"))
    return committed


def same_pictures(drawn: Path, committed: Path) -> None:
    """Each file that was drawn is the committed one, byte by byte where both were drawn by one version of Pillow."""
    same_library = json.loads((committed / "info.json").read_text())["drawn_with"]["pillow"] == pillow_version
    for path in sorted(drawn.glob("*/*.*")):
        original = committed / path.relative_to(drawn)
        if same_library:
            assert path.read_bytes() == original.read_bytes(), path
        elif path.suffix == ".png":  # another Pillow may draw an edge a pixel elsewhere
            assert np.mean(np.asarray(Image.open(path)) == np.asarray(Image.open(original))) > 0.97, path


def test_a_clone_reads_the_committed_set_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSEG_CACHE", str(tmp_path / "cache"))
    assert embedded_root() == open_dataset("pictograms", "val").root == resource("pictograms")
    assert not (tmp_path / "cache").exists()


def test_an_installation_without_the_committed_set_draws_it_once(
    without_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "EMBEDDED_TRAIN", 2)
    monkeypatch.setattr(dataset, "EMBEDDED_VAL", 3)
    val = open_dataset("pictograms", "val")
    assert val.root == tmp_path / "cache" / f"pictograms-v{VERSION}"
    assert list(tmp_path.glob("cache/*")) == [val.root]  # no lock is left
    assert list(val.ids) == lists(without_images)["val"][:3]
    assert lists(val.root)["train"] == lists(without_images)["train"][:2]
    assert len(list(val.root.glob("JPEGImages/*.jpg"))) == len(list(val.root.glob("SegmentationClass/*.png"))) == 5
    same_pictures(val.root, without_images)
    monkeypatch.setattr(dataset, "generate", lambda *_, **__: pytest.fail("drawn again"))
    assert embedded_root() == val.root


def test_a_cache_that_cannot_be_written_is_named(without_images: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RecsegError, match="cache"):
        embedded_root()


@pytest.mark.slow
def test_the_whole_committed_set_is_drawn_again(without_images: Path) -> None:
    root = embedded_root()
    assert lists(root) == lists(without_images)
    assert {path.relative_to(root) for path in root.rglob("*")} == {
        path.relative_to(without_images) for path in without_images.rglob("*")
    }
    same_pictures(root, without_images)


def test_the_contact_sheet_shows_twenty_classes() -> None:
    sheet = contact_sheet(columns=2, size=40)
    assert sheet.mode == "RGB" and sheet.width > 4 * 40 and sheet.height > 10 * 40
