"""Packs: the same images from one file, or a refusal; made anew where what they were made of has changed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, refusal, save_indexed
from hypothesis import given
from hypothesis import strategies as st
from odd_pictures import exif
from PIL import Image

import recseg.data.pack as pack
from recseg.cli.main import main
from recseg.data import open_dataset, open_train
from recseg.data.folder import SegmentationFolder
from recseg.data.images import resized_shape
from recseg.data.pack import PackedFolder, open_pack, pack_bytes, packed_shapes, write_pack
from recseg.data.stream import batches
from recseg.data.transforms import nearest, resize_short_side, train_transform
from recseg.evaluation.evaluate import evaluate
from recseg.training.train import TrainConfig, train


@pytest.fixture
def packed(tiny_voc: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Packs the training split of `tiny_voc` at a size."""
    return lambda size: write_pack(SegmentationFolder(tiny_voc, "train"), tmp_path / "tiny.pack", size, progress=False)


def test_a_pack_at_full_size_is_the_folder(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    folder, found = SegmentationFolder(tiny_voc, "train"), open_pack(packed(1000))
    assert (found.ids, found.classes, found.split) == (folder.ids, folder.classes, folder.split)
    assert found.max_classes_per_image == folder.max_classes_per_image
    for mine, theirs in zip(found, folder, strict=True):
        assert mine.id == theirs.id
        assert torch.equal(mine.image, theirs.image) and torch.equal(mine.labels, theirs.labels)


def test_a_smaller_pack_is_the_folder_resized(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    path = packed(16)
    found = open_pack(path)
    assert pack_bytes(found.shapes) == 2 * 4 * 16 * 24 < path.stat().st_size
    for mine, theirs in zip(found, SegmentationFolder(tiny_voc, "train"), strict=True):
        assert torch.equal(mine.image, resize_short_side(theirs.image, 16))
        assert torch.equal(mine.labels, nearest(theirs.labels, 16, 24))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(2, 300))
def test_the_shape_is_known_before_the_picture_is_decoded(height: int, width: int, size: int) -> None:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    assert resize_short_side(image, size).shape == (3, *resized_shape(height, width, size))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_see_what_the_folder_gives(tiny_voc: Path, packed: Callable[[int], Path], workers: int) -> None:
    path = packed(1000)
    found = open_pack(path, transform=train_transform(16))
    folder = SegmentationFolder(tiny_voc, "train", transform=train_transform(16))
    found[0]  # mapped here already: each worker has to map it for itself
    for mine, theirs, _ in zip(batches(found, 3, seed=1, workers=workers), batches(folder, 3, seed=1), range(3)):  # noqa: B905
        assert mine.ids == theirs.ids
        assert torch.equal(mine.images, theirs.images) and torch.equal(mine.labels, theirs.labels)


def test_what_a_reader_changes_does_not_reach_the_file(packed: Callable[[int], Path]) -> None:
    path = packed(1000)
    before = path.read_bytes()
    sample = PackedFolder(path)[0]
    sample.image.fill_(7)
    assert path.read_bytes() == before and not bool((PackedFolder(path)[0].image == 7).all())


@pytest.mark.parametrize("place", [20, -100, -36, -1])
def test_a_changed_byte_is_noticed(packed: Callable[[int], Path], place: int) -> None:
    path = packed(16)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    refusal(lambda: open_pack(path), path, "damaged")


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "not a pack"), (b"PK", "not a pack"), (pack.MAGIC, "cut short"), (None, "No such file")]
)
def test_what_is_no_pack_is_refused(tmp_path: Path, content: bytes | None, word: str) -> None:
    path = tmp_path / "some.pack"
    if content is not None:
        path.write_bytes(content)
    refusal(lambda: open_pack(path), path, word)


def test_a_pack_is_made_anew_when_a_mask_changes(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    path = packed(16)
    reader = open_pack(path)
    old = reader.labels(0).copy()
    save_indexed(np.full((32, 48), 9), tiny_voc / "SegmentationClass" / "tiny_0.png")
    assert (open_pack(path).labels(0) == 9).all() and (open_pack(path).size, len(open_pack(path))) == (16, 2)
    assert np.array_equal(reader.labels(0), old)  # who reads the old file goes on reading it


def test_a_pack_is_made_anew_when_the_list_changes(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    path = packed(16)
    (tiny_voc / "ImageSets/Segmentation/train.txt").write_text("tiny_1\n")
    assert open_pack(path).ids == ["tiny_1"]


def test_a_pack_outlives_its_source(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    path = packed(16)
    shutil.rmtree(tiny_voc)
    assert len(list(open_pack(path))) == 2


def test_a_broken_picture_leaves_the_old_pack(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    path = packed(16)
    before = path.read_bytes()
    (tiny_voc / "JPEGImages" / "tiny_1.jpg").write_bytes(b"no picture")
    refusal(lambda: open_pack(path), "tiny_1.jpg")
    assert path.read_bytes() == before and len(list(path.parent.glob("*.pack"))) == 1


def test_no_room_is_said_before_anything_is_written(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_free", lambda path: 3071)
    source = SegmentationFolder(tiny_voc, "train")
    assert pack_bytes(packed_shapes(source, 16)) == 3072
    refusal(lambda: write_pack(source, tmp_path / "tiny.pack", 16), "tiny.pack", "MB")
    assert not (tmp_path / "tiny.pack").exists()


def test_opened_by_name(packed: Callable[[int], Path]) -> None:
    path = str(packed(16))
    assert open_dataset(path, "train").ids == open_train(path).ids
    refusal(lambda: open_dataset(path, "val"), path, "'train'", "'val'")


def test_training_on_a_pack_and_no_score_on_it(packed: Callable[[int], Path], tmp_path: Path) -> None:
    path = packed(1000)
    config: dict[str, Any] = {"steps": 2, "size": 16, "batch_size": 2, "workers": 0, "device": "cpu"}
    one = train(TrainConfig(data=str(path), **config), tmp_path / "packed", progress=False)
    two = train(TrainConfig(data=str(tmp_path / "tiny_voc"), **config), tmp_path / "folder", progress=False)
    import recseg

    models = [recseg.load(weights) for weights in (one, two)]
    for mine, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(mine, theirs)
    refusal(lambda: evaluate(models[0], open_pack(path)), path, "pack")


def test_a_turned_mask_is_packed_upright(tiny_voc: Path, packed: Callable[[int], Path]) -> None:
    path = tiny_voc / "SegmentationClass" / "tiny_0.png"
    whole = open_pack(packed(1000))[0].labels
    with Image.open(path) as mask:
        lying = mask.transpose(Image.Transpose.ROTATE_90)
    lying.save(path, exif=exif(6))
    assert torch.equal(SegmentationFolder(tiny_voc, "train")[0].labels, whole)
    assert torch.equal(open_pack(packed(1000))[0].labels, whole)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The pack with another header, and the digest of that."""
    content = path.read_bytes()[: -pack.DIGEST]
    length = int.from_bytes(content[-pack.LENGTH :], "little")
    header = json.loads(content[-pack.LENGTH - length : -pack.LENGTH])
    change(header)
    text = json.dumps(header).encode()
    content = content[: -pack.LENGTH - length] + text + len(text).to_bytes(pack.LENGTH, "little")
    path.write_bytes(content + hashlib.sha256(content).digest())


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.clear(),
        lambda header: header.pop("ids"),
        lambda header: header.update(shapes="many"),
        lambda header: header["shapes"].__setitem__(0, [-32, 48]),
        lambda header: header["shapes"].__setitem__(0, [1 << 40, 1 << 40]),
        lambda header: header["shapes"].pop(),
        lambda header: header.update(classes=[]),
    ],
)
def test_forged_headers_are_refused(packed: Callable[[int], Path], change: Callable[[dict[str, Any]], object]) -> None:
    path = packed(16)
    rewritten(path, change)
    refusal(lambda: open_pack(path), path, "pack")


def test_command(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "pack", "--data", str(tiny_voc), "--size", "16", "--out", str(tmp_path / "a.pack")]
    assert main(command) == 0
    assert "2 images of train, 0 MB" in capsys.readouterr().out
    first = os.stat(tmp_path / "a.pack").st_mtime_ns
    assert main(command) == 0 and "up to date" in capsys.readouterr().out
    assert os.stat(tmp_path / "a.pack").st_mtime_ns == first
    assert main([*command, "--split", "val"]) == 0 and PackedFolder(tmp_path / "a.pack").split == "val"


def test_command_refuses(tiny_voc: Path, tmp_path: Path, refuses: Refuses, photo: Path) -> None:
    command: list[object] = ["data", "pack", "--data", tiny_voc, "--size"]
    refuses([*command, 16, "--out", tmp_path / "a.bin"], "a.bin", ".pack")
    refuses([*command, 1, "--out", tmp_path / "a.pack"], "--size")
    photo.rename(tmp_path / "photo.pack")
    refuses([*command, 16, "--out", tmp_path / "photo.pack"], "photo.pack", "not a pack")
    write_pack(SegmentationFolder(tiny_voc, "train"), tmp_path / "b.pack", 16, progress=False)
    refuses(["data", "pack", "--data", tmp_path / "b.pack", "--size", 16, "--out", tmp_path / "c.pack"], "already")
