"""Images, readers and losses that fail amid a training: named, by the image; skipped where that is asked for."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, Refuses, refusal, save_indexed
from kill_work import recurrent
from PIL import Image
from torch.utils.data import DataLoader, get_worker_info

from recseg import evaluate, load
from recseg.cli.main import main
from recseg.data.folder import SegmentationFolder
from recseg.data.stream import batches
from recseg.data.transforms import train_transform
from recseg.evaluation.evaluate import evaluate as score
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.training import trainer as training
from recseg.training.bad_samples import find_bad_samples
from recseg.training.config import TrainConfig
from recseg.training.train import resume, train
from recseg.training.trainer import Trainer
from runs import begin, content, log_of, same_run, step_of


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, and a line of log for each step."""
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "build_model", recurrent)


@pytest.fixture
def five(tiny_voc: Path) -> Path:
    """The four images to train on, and a white one."""
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(tiny_voc / "JPEGImages" / "white.png")
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[:, :20] = 7
    save_indexed(labels, tiny_voc / "SegmentationClass" / "white.png")
    names = [*(f"tiny_{number}" for number in range(4)), "white"]
    (tiny_voc / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    return tiny_voc


def cut_short(picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:-200])


# A reader that dies


def test_a_dead_reader_is_named_with_its_picture(
    five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path / "run", five, steps=50, workers=2)
    read = SegmentationFolder.__getitem__

    def killed(self: SegmentationFolder, index: int) -> Any:
        if get_worker_info() is not None and self.ids[index] == "white" and (run / "checkpoint.safetensors").exists():
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        return read(self, index)

    monkeypatch.setattr(SegmentationFolder, "__getitem__", killed)
    assert main(["train", "--resume", str(run)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("recseg: error: ") and "at image white" in error and "Traceback" not in error
    monkeypatch.undo()
    assert 1 <= step_of(run) < 50


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is another thing elsewhere")
def test_readers_without_shared_memory_end_it_in_a_line(
    five: Path, tiny_recurrent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has 64 MB of it: a training and an evaluation end, and do not wait for ever."""
    images = SegmentationFolder(five, "train", transform=train_transform(32))
    expected = "shared memory is full", "--workers 0"

    def no_room(self: Any) -> Any:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: Resource temporarily …")

    def no_room_for_readers(self: Any) -> Any:
        return share(self) if get_worker_info() is None else no_room(self)

    share = torch.UntypedStorage._share_fd_cpu_
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", no_room_for_readers)
    refusal(lambda: next(batches(images, 2, seed=0, workers=1)), *expected)
    whole = SegmentationFolder(five, "train")
    refusal(lambda: score(load(tiny_recurrent), whole, workers=1, on_bad_image="skip", progress=False), *expected)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", no_room)
    refusal(lambda: next(batches(images, 2, seed=0, workers=1)), *expected)
    monkeypatch.undo()

    def no_locks(self: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DataLoader, "__iter__", no_locks)
    refusal(lambda: next(batches(images, 2, seed=0, workers=1)), *expected)


def test_a_program_that_holds_a_stream_of_batches_ends(five: Path) -> None:
    program = f"""
from recseg.data.folder import SegmentationFolder
from recseg.data.stream import batches
from recseg.data.transforms import train_transform
images = SegmentationFolder({str(five)!r}, "train", transform=train_transform(32))
if __name__ == "__main__":
    stream = batches(images, 2, seed=0, workers=1)
    next(stream)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


# Losses that are not numbers


def poison(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Let the network answer NaN to a white image."""
    forward = RecurrentUNet.forward

    def poisoned(self: RecurrentUNet, images: torch.Tensor, lengths: torch.Tensor | None = None) -> Any:
        output = forward(self, images, lengths)
        flat = images.flatten(1)  # (B, N)
        white = (flat.amin(dim=1) == flat.amax(dim=1)).nonzero()[:, 0]  # (W,), however bright it was made
        bad = torch.isin(output.sample, white)  # (P,)
        values = getattr(output, part)
        shape = (-1, *[1] * (values.ndim - 1))
        return output._replace(**{part: values.masked_fill(bad.view(shape), torch.nan)})

    monkeypatch.setattr(RecurrentUNet, "forward", poisoned)


@pytest.mark.parametrize(("order", "words"), [("matched", "matching"), ("class", "loss is not finite")])
def test_nan_is_named_with_its_picture(
    order: str, words: str, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without dropout and with crops that are whole images, the white one is white.
    poison(monkeypatch, "masks")
    config = TrainConfig(
        data=str(five), size=16, image_size=16, scale=(1.0, 1.0), batch_size=5, workers=0, device="cpu", steps=2,
        pixels_first=0.0, order=order, val_split="none",
    )  # fmt: skip
    message = refusal(lambda: train(config, tmp_path / "run", progress=False), "step 0", words, "image white")
    assert "tiny_" not in message


def test_a_batch_that_fails_as_a_whole_is_named_whole() -> None:
    images, labels = torch.rand(3, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.long)
    nan = torch.tensor(torch.nan)
    ids = ["a", "b", "c"]
    assert find_bad_samples(lambda image, _: nan, images, labels, ids) == "one of the images a, b, c"
    assert find_bad_samples(lambda image, _: image.sum(), images, labels, ids) == "one of the images a, b, c"
    images[1] = torch.nan
    assert find_bad_samples(lambda image, _: image.sum(), images, labels, ids) == "image b"
    images[2] = torch.nan
    assert find_bad_samples(lambda image, _: image.sum(), images, labels, ids) == "images b, c"


def test_a_gradient_that_is_no_number_replaces_no_checkpoint(
    five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path / "run", five, steps=5)
    clip = torch.nn.utils.clip_grad_norm_

    def third(parameters: Any, limit: float) -> torch.Tensor:
        parameters = list(parameters)
        calls.append(1)
        if len(calls) == 3:
            next(p for p in parameters if p.grad is not None).grad[...] = torch.nan
        return clip(parameters, limit)

    calls: list[int] = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", third)
    refusal(lambda: resume(run, progress=False), "gradient is not finite", "--lr", "tiny_")
    assert step_of(run) == 2


# Images that cannot be read


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_ends_a_training(
    workers: int, five: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(five / "JPEGImages" / "tiny_2.jpg")
    run = begin(tmp_path / "run", five, steps=20, workers=workers)
    assert main(["train", "--resume", str(run)]) == 2
    lines = capsys.readouterr().err.split("\r")[-1].strip().splitlines()
    assert lines[-1].startswith("recseg: error: ") and "tiny_2.jpg" in lines[-1] and "Traceback" not in lines[-1]
    assert not (run / "skipped.json").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skipped_picture_is_listed_and_resume_stays_exact(
    workers: int, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(five / "JPEGImages" / "tiny_2.jpg")
    (five / "SegmentationClass" / "tiny_0.png").write_bytes(b"no mask")
    (five / "classes.txt").write_text("\n".join(["background", *(f"class {number}" for number in range(1, 9))]))
    runs = [begin(tmp_path / name, five, steps=5, workers=workers, on_bad_image="skip") for name in ("whole", "cut")]
    assert main(["train", "--resume", str(runs[0])]) == 0
    printed = capsys.readouterr().out
    assert "skipped: 2 images that cannot be read: tiny_0, tiny_2" in printed and "skipped.json" in printed

    update = Trainer.update

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        assert main(["train", "--resume", str(runs[1])]) == 130
    assert main(["train", "--resume", str(runs[1])]) == 0
    same_run(runs[0], runs[1], steps=5)
    lists = [json.loads((run / "skipped.json").read_text()) for run in runs]
    assert lists[0] == lists[1] and lists[0].keys() == {"tiny_0", "tiny_2"}
    assert "tiny_2.jpg" in lists[0]["tiny_2"] and "tiny_0.png" in lists[0]["tiny_0"]
    about = json.loads(content(runs[0] / "weights.safetensors")[1]["metadata"])
    assert sorted(about["skipped"]) == ["tiny_0", "tiny_2"]


def test_a_stopped_run_can_go_on_without_the_picture(five: Path, tmp_path: Path) -> None:
    picture = five / "JPEGImages" / "tiny_2.jpg"
    cut_short(picture)
    run = begin(tmp_path / "run", five, steps=5)
    refusal(lambda: resume(run, progress=False), "tiny_2.jpg")
    assert main(["train", "--resume", str(run), "--on-bad-image", "skip"]) == 0
    assert [entry["step"] for entry in log_of(run)] == [1, 2, 3, 4, 5]
    assert json.loads((run / "config.json").read_text())["on_bad_image"] == "skip"


def test_the_next_picture_takes_the_place_and_is_drawn_alike(five: Path) -> None:
    cut_short(five / "JPEGImages" / "tiny_2.jpg")

    def first(skip: bool) -> Any:
        data = SegmentationFolder(five, "train", transform=train_transform(16, scale=(0.8, 1.3)))
        return next(batches(data, 5, seed=1, skip=skip))

    refusal(lambda: first(skip=False), "tiny_2.jpg")
    batch = first(skip=True)
    assert sorted(batch.ids) == ["tiny_0", "tiny_1", "tiny_3", "tiny_3", "white"]  # tiny_3 follows tiny_2 in the list
    assert list(batch.skipped) == ["tiny_2"] and batch.images.shape == (5, 3, 16, 16)
    for picture in (five / "JPEGImages").glob("*"):
        cut_short(picture)
    refusal(lambda: first(skip=True), "none of 5 images can be read")


def test_evaluate_skips_only_where_asked_to(
    five: Path, tiny_recurrent: Path, tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.json"
    start = ["evaluate", "--weights", str(tiny_recurrent), "--data", str(five), "--split", "train"]
    cut_short(five / "JPEGImages" / "tiny_2.jpg")
    refuses([*start, "--json", file], "tiny_2.jpg")
    assert main([*start, "--json", str(file), "--on-bad-image", "skip"]) == 0
    scores = json.loads(file.read_text())
    assert scores["images"] == 4 and list(scores["skipped"]) == ["tiny_2"]
    assert "skipped: 1 image that cannot be read: tiny_2" in capsys.readouterr().out
    assert str(tmp_path) not in file.read_text()
    (five / "ImageSets/Segmentation/four.txt").write_text("tiny_0\ntiny_1\ntiny_3\nwhite\n")
    alone = evaluate(load(tiny_recurrent), SegmentationFolder(five, "four"), progress=False)
    assert scores["miou"] == alone["miou"]  # the score is that of the others
    for picture in (five / "JPEGImages").glob("*"):
        cut_short(picture)
    refuses([*start, "--on-bad-image", "skip"], "none of 5 images")
    data = SegmentationFolder(five, "four")
    refusal(lambda: score(load(tiny_recurrent), data, on_bad_image="guess"), "guess", "stop or skip")


def test_on_bad_image_is_checked(tmp_path: Path) -> None:
    refusal(lambda: TrainConfig(data=str(tmp_path), on_bad_image="guess"), "guess", "stop, skip")
