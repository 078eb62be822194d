"""What one may ask of a training on data of one's own: which images, changed how, for how long, and what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, refusal, save_indexed
from torch import Tensor

from recseg.data.folder import SegmentationFolder
from recseg.data.stream import StreamSampler, batches, rarity_weights
from recseg.data.transforms import TrainTransform
from recseg.models.config import RecurrentUNetConfig
from recseg.training import trainer as training
from recseg.training.config import TrainConfig, load_config, resolve
from recseg.training.train import go_on, resume, train, training_data
from runs import QUICK, log_of, same_run, step_of, stopped_at_two, two_lists

STEPS = 4
NETWORK = RecurrentUNetConfig(**TINY, hidden=8, reduced=8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)


@pytest.fixture
def data(tiny_voc: Path) -> Path:
    """Three images to train on: class 1 is in two of them, class 2 in one."""
    (tiny_voc / "classes.txt").write_text("background\ncommon\nrare\n")
    for index, label in enumerate((1, 1, 2, 1)):
        labels = np.zeros((32, 48), np.uint8)
        labels[4:20, 4:24] = label
        save_indexed(labels, tiny_voc / "SegmentationClass" / f"tiny_{index}.png")
    two_lists(tiny_voc)
    return tiny_voc


def config(data: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**QUICK, "data": str(data), "steps": STEPS, "network": NETWORK, **changes})


def cut(data: Path, run: Path, augment: Any = None, **changes: Any) -> Path:
    """A run that was stopped after two steps."""
    return stopped_at_two(config(data, checkpoint_seconds=1e-9, **changes), run, augment)


# Sampling by rarity


def test_images_with_rare_classes_are_drawn_more_often(data: Path) -> None:
    dataset = SegmentationFolder(data, "train")
    weights = rarity_weights(dataset)
    np.testing.assert_allclose(weights, [1.5**0.5, 1.5**0.5, 3**0.5])
    stream = iter(StreamSampler(3, 6, seed=1, weights=weights))
    drawn = [pair for _ in range(1000) for pair in next(stream)]
    shares = np.bincount([index for _, index in drawn], minlength=3) / len(drawn)
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.02)
    assert len(set(drawn)) == len(drawn)  # no two samples have the same seed


def test_a_balanced_stream_can_be_entered_anywhere() -> None:
    weights = np.array([1.0, 2.0, 5.0])
    whole, late = (iter(StreamSampler(3, 4, seed=7, start=start, weights=weights)) for start in (0, 3))
    skipped = [next(whole) for _ in range(3)]
    assert [next(whole) for _ in range(5)] == [next(late) for _ in range(5)] and skipped


def test_an_image_without_a_class_counts_as_the_commonest(data: Path) -> None:
    save_indexed(np.zeros((32, 48), np.uint8), data / "SegmentationClass" / "tiny_0.png")
    np.testing.assert_allclose(rarity_weights(SegmentationFolder(data, "train")), [1, 3**0.5, 3**0.5])


def test_a_balanced_training_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    train(config(data, balance=True), tmp_path / "whole", progress=False)
    resume(cut(data, tmp_path / "cut", balance=True), progress=False)
    same_run(tmp_path / "whole", tmp_path / "cut", STEPS)
    train(config(data), tmp_path / "plain", progress=False)
    assert log_of(tmp_path / "plain") != log_of(tmp_path / "whole")


# Augmentation


def turned(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A quarter turn of half of the images."""
    return (image.rot90(1, (1, 2)), labels.rot90()) if torch.rand(()) < 0.5 else (image, labels)


def test_flip_and_colours_are_as_asked(data: Path) -> None:
    transform = training_data(resolve(config(data, flip=False, colour_jitter=0.0, scale=(1.0, 1.0)))).transform
    assert isinstance(transform, TrainTransform) and not transform.flip and transform.jitter == 0
    by_default = training_data(resolve(config(data))).transform
    assert isinstance(by_default, TrainTransform) and by_default.flip and by_default.jitter == 0.4
    refusal(lambda: config(data, colour_jitter=1.0), "colour_jitter 1.0")


def test_an_augmentation_of_ones_own_comes_first(data: Path) -> None:
    def left(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return image[:, :24, :24] // 2, labels[:24, :24]

    asked = resolve(config(data, flip=False, colour_jitter=0.0, scale=(1.0, 1.0), size=24))
    image, labels, _ = training_data(asked, left)[2]
    source = SegmentationFolder(data, "train")[2]
    assert torch.equal(image, source.image[:, :24, :24] // 2) and torch.equal(labels, source.labels[:24, :24])


def test_an_augmentation_is_seeded_for_each_sample(data: Path) -> None:
    dataset = training_data(resolve(config(data, size=32)), turned)
    one, two = (batches(dataset, 3, seed=1, start=start) for start in (0, 2))
    later = [next(one) for _ in range(3)][2]
    assert torch.equal(later.images, next(two).images)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image, labels: (image.float(), labels),
        lambda image, labels: (image[:, 1:], labels),
        lambda image, labels: (image, labels.long()),
        lambda image, labels: (image.permute(1, 2, 0), labels),
    ],
)
def test_what_an_augmentation_gives_is_checked(data: Path, wrong: Any) -> None:
    dataset = training_data(resolve(config(data)), wrong)
    refusal(lambda: dataset[0], "tiny_0", "expected (3, H, W) and (H, W), uint8")


def test_a_run_asks_for_its_augmentation_again(data: Path, tmp_path: Path) -> None:
    train(config(data), tmp_path / "whole", progress=False, augment=turned)
    run = cut(data, tmp_path / "cut", augment=turned)
    refusal(lambda: resume(run, progress=False), run, "test_levers.turned")
    refusal(lambda: resume(run, progress=False, augment=lambda a, b: (a, b)), "test_levers.turned", "<lambda>")
    resume(run, progress=False, augment=turned)
    same_run(tmp_path / "whole", run, STEPS)


# Going on for longer


def test_a_finished_run_goes_on_for_longer(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(data, pixels_first=0.5, warmup=0), run, progress=False)
    resume(run, progress=False, steps=8, lr=0.5)
    assert step_of(run) == 8
    lines = [entry for entry in log_of(run) if "loss" in entry]
    assert [entry["step"] for entry in lines] == list(range(1, 9))
    assert ["stop" in entry for entry in lines] == [False] * 2 + [True] * 6  # single pixels do not come back
    assert lines[4]["lr"] == pytest.approx(0.5 * (1 - 4 / 8) ** 0.9)
    assert load_config(run / "config.json").steps == 8
    resume(run, progress=False)  # nothing is left to do
    assert step_of(run) == 8


def test_a_run_of_steps_goes_on_for_minutes_and_the_other_way_round(data: Path) -> None:
    asked = resolve(config(data, steps=1000, pixels_first=0.5))
    assert asked.val_every == 100
    longer = go_on(asked, 800, 60.0, steps=None, minutes=4, lr=None)
    assert (longer.steps, longer.minutes, longer.val_every) == (None, 4, None)
    assert longer.pixels_first == pytest.approx(0.5 * (1 / 4) / 0.8)  # seconds of update 500
    back = go_on(longer, 800, 60.0, steps=1000, minutes=None, lr=None)
    assert back.pixels_first == pytest.approx(0.5)
    assert go_on(asked, 800, 60.0, steps=4000, minutes=None, lr=None).val_every == 400
    given = resolve(config(data, steps=1000, val_every=7))
    assert go_on(given, 800, 60.0, steps=4000, minutes=None, lr=None).val_every == 7
    refusal(lambda: go_on(asked, 800, 60.0, steps=None, minutes=0.5, lr=None), "--minutes 0.5", "already done 1.0 min")


# What it says


def test_a_line_says_when_the_objective_changes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(data, pixels_first=0.5), tmp_path / "run")
    streams = capsys.readouterr()
    said = [line for line in (streams.out + streams.err).split("\n") if "loss of single pixels" in line]
    assert len(said) == 1 and "step 3:" in said[0] and "bce, dice, classes, stop" in said[0]
    train(config(data, pixels_first=0.0), tmp_path / "other")
    assert "loss of single pixels" not in "".join(capsys.readouterr())


def test_minutes_show_what_is_left(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(data, steps=None, minutes=0.01), tmp_path / "run")
    assert "left=00:00" in capsys.readouterr().err


def test_the_columns_of_the_log_are_the_same_throughout(data: Path, tmp_path: Path) -> None:
    train(config(data, pixels_first=0.5, val_every=1), tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    batches_, validations = ([line for line in lines if ("loss" in line) == here] for here in (True, False))
    for kind, prefix in ((batches_, ""), (validations, "val_")):
        pixels, steps = (set(kind[place]) for place in (0, -1))
        assert {"step", "seconds", f"{prefix}loss", f"{prefix}pixels"} <= pixels < steps
        assert steps - pixels >= {f"{prefix}{name}" for name in ("bce", "dice", "classes", "stop")}
        assert all(set(line) in (pixels, steps) for line in kind)
