"""The command line as a script sees it: exit codes, files, keys, and one line for whatever is wrong."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, Snapshot, save_indexed
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from recseg.classes import VOC_CLASSES, palette
from recseg.cli.main import main

EVALUATE_KEYS = {
    "miou", "iou_per_class", "pixel_accuracy", "slot_accuracy", "slot_iou", "label_set_f1", "count_accuracy",
    "mean_steps", "images",
}  # fmt: skip
ORIGIN_KEYS = {"command", "commit", "versions", "hardware", "date", "seed", "data", "split"}


# predict


def test_predict_writes_overlay_labels_gif_and_json(
    photo: Path, tiny_recurrent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "steps.json"
    extras = ["--gif", "--json", str(report)]
    assert main(["predict", str(photo), "--weights", str(tiny_recurrent), "--out", str(out), *extras]) == 0
    assert {path.name for path in out.iterdir()} == {"photo-overlay.png", "photo-labels.png", "photo.gif"}
    (entry,) = json.loads(report.read_text())
    assert entry["file"] == str(photo) and len(entry["steps"]) == 3
    for step in entry["steps"]:
        assert {"class", "class_id", "probability", "area"} <= set(step)
        assert VOC_CLASSES[step["class_id"]] == step["class"]
        assert 0 <= step["probability"] <= 1 and 0 <= step["area"] <= 1
    with Image.open(out / "photo-labels.png") as labels:
        assert labels.mode == "P" and labels.size == (56, 40)
        assert set(np.unique(np.asarray(labels))) <= {0, *(step["class_id"] for step in entry["steps"])}
        assert labels.getpalette()[:63] == palette()[:21].ravel().tolist()  # type: ignore[index]
    with Image.open(out / "photo-overlay.png") as overlay:
        assert overlay.mode == "RGB" and overlay.size == (56, 40)
    with Image.open(out / "photo.gif") as gif:
        assert isinstance(gif, GifImageFile) and gif.n_frames == 1 + 3 + 1
    printed = capsys.readouterr().out
    assert all(step["class"] in printed for step in entry["steps"])


def test_predict_with_a_dense_network(photo: Path, tiny_dense: Path, tmp_path: Path) -> None:
    assert main(["predict", str(photo), "--weights", str(tiny_dense), "--out", str(tmp_path / "out"), "--gif"]) == 0
    assert (tmp_path / "out" / "photo.gif").is_file()


def test_pictures_of_one_name_do_not_overwrite_each_other(photo: Path, tiny_recurrent: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "photo.png"
    other.parent.mkdir()
    Image.new("RGB", (20, 20)).save(other)
    out = tmp_path / "out"
    assert main(["predict", str(photo), str(other), "--weights", str(tiny_recurrent), "--out", str(out)]) == 0
    with Image.open(out / "photo-labels.png") as first, Image.open(out / "photo-2-labels.png") as second:
        assert first.size == (56, 40) and second.size == (20, 20)


def test_bad_pictures_are_named_and_nothing_is_written(
    photo: Path, tiny_recurrent: Path, tmp_path: Path, refuses: Refuses
) -> None:
    end = ["--weights", tiny_recurrent, "--out", tmp_path / "out"]
    refuses(["predict", tmp_path / "absent.jpg", *end], "absent.jpg", "no such file")
    words = tmp_path / "words.jpg"
    words.write_text("these are words")
    refuses(["predict", words, *end], "words.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:-200])
    refuses(["predict", photo, cut, *end], "cut.jpg")  # the good one before it is not written either
    (tmp_path / "none").mkdir()
    refuses(["predict", tmp_path / "none", *end], "is a folder without images")


def test_bad_weights_are_named(photo: Path, tmp_path: Path, refuses: Refuses) -> None:
    refuses(["predict", photo, "--weights", "no-such-name", "--out", tmp_path / "out"], "no-such-name")
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(os.urandom(500))
    refuses(["predict", photo, "--weights", noise, "--out", tmp_path / "out"], "noise.safetensors")
    refuses(["predict", photo, "--weights", tmp_path, "--out", tmp_path / "out"], str(tmp_path))
    pickled = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(3)}, pickled)
    refuses(
        ["predict", photo, "--weights", pickled, "--out", tmp_path / "out"], "model.pth", "torch.save", ".safetensors"
    )


def test_a_device_that_is_not_here_is_refused_with_those_that_are(
    photo: Path, tiny_dense: Path, tmp_path: Path, refuses: Refuses
) -> None:
    for name in ("gpu", "cuda:99", "0"):
        end = ["--out", tmp_path / "out", "--device", name]
        refuses(["predict", photo, "--weights", tiny_dense, *end], f"'{name}'", "expected cpu")


def test_bad_outputs_are_named(photo: Path, tiny_recurrent: Path, tmp_path: Path, refuses: Refuses) -> None:
    start = ["predict", photo, "--weights", tiny_recurrent]
    refuses([*start, "--out", photo], "photo.jpg", "file")
    refuses([*start, "--out", photo / "below"], "photo.jpg")
    refuses([*start, "--out", tmp_path / "out", "--json", tmp_path], "is a folder")
    taken = tmp_path / "photo-overlay.png"
    Image.new("RGB", (8, 8)).save(taken)
    refuses(
        ["predict", photo, taken, "--weights", tiny_recurrent, "--out", tmp_path], "photo-overlay.png", "overwritten"
    )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_leaves_the_old_file(
    photo: Path, tiny_recurrent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses, code: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo-overlay.png").write_bytes(b"older")

    def full(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", full)
    refuses(["predict", photo, "--weights", tiny_recurrent, "--out", out], "photo-overlay.png", os.strerror(code))


def test_a_terminal_without_the_letters_shows_them_all_the_same(
    tiny_recurrent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the arrow nor the name is in ASCII, and the name is not even text: no reason to fail after the work."""
    photo, report = tmp_path / os.fsdecode(b"\xc3\xa9\xff.png"), tmp_path / "steps.json"
    try:
        Image.new("RGB", (9, 7)).save(photo)
    except OSError:
        pytest.skip("this file system takes text alone")
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    rest = ["--weights", str(tiny_recurrent), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert main(["predict", str(photo), *rest]) == 0
    assert b"\\u2192" in shown.getvalue()
    (entry,) = json.loads(report.read_text(encoding="utf-8"))
    assert entry["file"] == str(photo) and Path(entry["labels"]).is_file()


def test_the_home_folder_where_a_shell_leaves_its_sign(
    photo: Path, tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--out=~/out` reaches the command as it is typed, and a folder that is called ~ would be made."""
    home, place = tmp_path / "home", tmp_path / "place"
    for path in (home, place):
        path.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(place)
    (home / "p.jpg").write_bytes(photo.read_bytes())
    assert main(["predict", "~/p.jpg", "--weights", str(tiny_dense), "--out=~/out", "--json", "~/steps.json"]) == 0
    assert sorted(path.name for path in home.iterdir()) == ["out", "p.jpg", "steps.json"]
    assert not list(place.iterdir())


def test_the_report_does_not_overwrite_a_picture(
    photo: Path, tiny_recurrent: Path, tmp_path: Path, refuses: Refuses
) -> None:
    refuses(
        ["predict", photo, "--weights", tiny_recurrent, "--out", tmp_path / "out", "--json", photo],
        "photo.jpg",
        "overwritten",
    )


def test_names_as_long_as_a_file_system_takes(tiny_recurrent: Path, tmp_path: Path) -> None:
    photo = tmp_path / ("x" * 240 + ".png")
    Image.new("RGB", (9, 7)).save(photo)
    assert main(["predict", str(photo), "--weights", str(tiny_recurrent), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / ("x" * 240 + "-overlay.png")).is_file()


# evaluate


def test_evaluate_writes_the_contracts_keys(
    tiny_voc: Path, tiny_recurrent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    start = ["evaluate", "--weights", str(tiny_recurrent), "--data", str(tiny_voc)]
    assert main([*start, "--split", "val", "--json", str(file)]) == 0
    scores = json.loads(file.read_text())
    assert set(scores) >= EVALUATE_KEYS | ORIGIN_KEYS
    assert scores["images"] == 2 and scores["mean_steps"] == 3 and scores["seed"] == 0
    assert set(scores["iou_per_class"]) == set(VOC_CLASSES)
    assert scores["command"].startswith("recseg evaluate --weights recurrent.safetensors")
    assert str(tmp_path) not in file.read_text()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("VOC", "Slot", "Set", "mIoU", "2 images", "aeroplane"))


def test_evaluate_limit_and_dense(tiny_voc: Path, tiny_dense: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    start = ["evaluate", "--weights", str(tiny_dense), "--data", str(tiny_voc)]
    assert main([*start, "--limit", "1", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["images"] == 1


def test_bad_data_is_named(tiny_voc: Path, tiny_recurrent: Path, tmp_path: Path, refuses: Refuses) -> None:
    start = ["evaluate", "--weights", tiny_recurrent, "--json", tmp_path / "scores.json", "--data"]
    refuses([*start, tmp_path / "absent"], "absent")
    refuses([*start, tiny_voc, "--split", "test"], "test")
    refuses([*start, tiny_voc, "--limit", "0"], "--limit", "'0'")
    mask = tiny_voc / "SegmentationClass" / "tiny_3.png"
    save_indexed(np.zeros((32, 40)), mask)
    refuses([*start, tiny_voc], "tiny_3", "40×32", "48×32")
    save_indexed(np.full((32, 48), 77), mask)
    refuses([*start, tiny_voc], "tiny_3.png", "77")
    (tiny_voc / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    refuses([*start, tiny_voc], "val.txt", "empty")


def test_evaluate_finds_out_first_that_it_cannot_write(tiny_voc: Path, tiny_recurrent: Path, refuses: Refuses) -> None:
    refuses(["evaluate", "--weights", tiny_recurrent, "--data", tiny_voc, "--json", tiny_voc], "is a folder")


# train


def test_train_evaluate_and_resume(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], snapshot: Snapshot, refuses: Refuses
) -> None:
    run_folder = tmp_path / "run"
    settings = ["--steps", "2", "--batch-size", "2", "--size", "32", "--workers", "0", "--device", "cpu"]
    assert main(["train", "--data", str(tiny_voc), "--out", str(run_folder), *settings]) == 0
    assert f"weights: {run_folder / 'weights.safetensors'}" in capsys.readouterr().out
    assert json.loads((run_folder / "config.json").read_text())["steps"] == 2
    refuses(["train", "--data", tiny_voc, "--out", run_folder, *settings], "run", "empty")
    refuses(["train", "--resume", run_folder, "--seed", "1"], "--resume", "--seed")
    refuses(["train", "--resume", run_folder, "--no-flip"], "--resume", "--no-flip")
    refuses(["train", "--resume", run_folder, "--lr", "1"], "--lr", "--steps")
    refuses(["train", "--resume", run_folder, "--steps", "2"], "--steps 2", "already done 2 steps")
    assert main(["train", "--resume", str(run_folder)]) == 0
    assert main(["evaluate", "--weights", str(run_folder), "--data", str(tiny_voc)]) == 0


def test_train_passes_on_what_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def train(config: Any, out: Path) -> Path:
        seen.append(config)
        return out / "weights.safetensors"

    monkeypatch.setattr("recseg.training.train.train", train)
    typed = (
        "train --data voc --model dense --minutes 1.5 --seed 4 --encoder resnet18 --encoder-weights w.safetensors "
        "--size 96 --batch-size 3 --lr 0.01 --order area --split train --workers 1 "
        "--device cpu --amp off --colour-jitter 0.1 --warmup 7"
    )
    flags = ["--no-flip", "--balance", "--scale", "0.9", "1.1"]
    assert main([*typed.split(), *flags, "--out", str(tmp_path / "run")]) == 0
    (config,) = seen
    assert not config.flip and config.balance and config.scale == (0.9, 1.1)
    words = typed.split()[1:]
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option[2:].replace("-", "_")
        assert str(getattr(config.network if name == "encoder" else config, name)) == value


def test_a_resumed_training_names_its_data(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--steps", "1", "--size", "16", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
    run = str(tmp_path / "run")
    assert main(["train", "--data", str(tiny_voc), "--out", run, *quick]) == 0
    first = capsys.readouterr().out
    assert main(["train", "--resume", run]) == 0
    again = capsys.readouterr().out
    new = set(first.splitlines()) - set(again.splitlines())
    (chosen,) = new  # what was left open is printed once
    assert chosen.startswith("by default: ") and again.splitlines() == [
        line for line in first.splitlines() if line != chosen
    ]
    assert "image_size 16" in chosen and "lr 0.003" in chosen and "scale 0.8 to 1.3" in chosen and "steps" not in chosen
    assert f"--data {tiny_voc} " in first


def test_bad_trainings_are_refused(tiny_voc: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = ["--out", tmp_path / "run"]
    refuses(["train", *out], "--data", "--resume")
    refuses(["train", "--data", tiny_voc], "--out")
    refuses(["train", "--data", tiny_voc, "--minutes", "1", "--steps", "1", *out], "--steps", "--minutes")
    refuses(["train", "--data", tiny_voc, "--minutes", "nan", *out], "--minutes", "nan")
    refuses(["train", "--data", tiny_voc, "--steps", "-3", *out], "--steps", "-3")
    refuses(["train", "--data", tiny_voc, "--encoder", "vgg", *out], "--encoder", "vgg")
    refuses(["train", "--data", tmp_path / "absent", *out], "absent")
    refuses(["train", "--data", tiny_voc, "--split", "tarin", *out], "tarin")
    refuses(["train", "--data", tiny_voc, "--device", "abacus", *out], "abacus")
    refuses(["train", "--resume", tmp_path / "absent"], "absent")
    weights = ["--encoder", "mobilenet_v2", "--encoder-weights", tmp_path / "absent.safetensors"]
    refuses(["train", "--data", tiny_voc, *weights, *out], "absent.safetensors")


# data, video, weights


def test_pictograms_are_the_same_for_the_same_seed(tmp_path: Path, snapshot: Snapshot) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, seed in zip(folders, (7, 7, 8), strict=True):
        assert main(["data", "pictograms", "--out", str(folder), "--images", "2", "--seed", str(seed)]) == 0
    one, two, three = map(snapshot, folders)
    assert one == two != three
    assert sum(name.startswith("JPEGImages/") for name in one) == 2


def test_pictograms_refuse_a_folder_in_use(tmp_path: Path, refuses: Refuses, photo: Path) -> None:
    refuses(["data", "pictograms", "--out", tmp_path, "--images", "2"], str(tmp_path), "empty")
    refuses(["data", "pictograms", "--out", photo, "--images", "2"], "photo.jpg")
    refuses(["data", "pictograms", "--out", tmp_path / "new", "--images", "two"], "--images", "two")


def test_video_command(tiny_recurrent: Path, tmp_path: Path, refuses: Refuses) -> None:
    clip = tmp_path / "clip.gif"
    frames = [Image.new("RGB", (32, 24), (60 * k, 0, 0)) for k in range(3)]
    frames[0].save(clip, save_all=True, append_images=frames[1:], duration=50)
    end = ["--weights", str(tiny_recurrent), "--out"]
    assert main(["video", str(clip), *end, str(tmp_path / "out.gif"), "--max-frames", "2"]) == 0
    with Image.open(tmp_path / "out.gif") as gif:
        assert isinstance(gif, GifImageFile) and gif.n_frames == 2
    refuses(["video", tmp_path / "absent.mp4", *end, tmp_path / "new.gif"], "absent.mp4")
    refuses(["video", clip, *end, tmp_path / "new.avi"], "new.avi", ".mp4")


def test_weights_lists_the_registry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"name": "tiny-one", "file": "tiny-one.safetensors", "sha256": "ab" * 32, "bytes": 2_500_000,
             "data": "pictograms", "split": "val", "miou": 0.7123}  # fmt: skip
    monkeypatch.setattr("recseg.weights.registry.published_weights", lambda: [entry])
    assert main(["weights"]) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("tiny-one", "pictograms val", "71.2 %", "2.5 MB", "ab" * 6))
    assert "ab" * 7 not in table
    assert main(["weights", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [entry]
