"""A training scores itself on images that it does not learn from, and learns the same as without."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import refusal
from safetensors.torch import load_file
from test_distributed import run as run_processes

import recseg.training.trainer as training
from recseg import evaluate, load
from recseg.cli.main import main
from recseg.data import open_dataset
from recseg.data.pack import write_pack
from recseg.errors import RecsegError
from recseg.models.config import RecurrentUNetConfig
from recseg.training import validation
from recseg.training.config import TrainConfig, load_config, resolve
from recseg.training.optim import averaged_model
from recseg.training.run_folder import check_tensorboard
from recseg.training.train import resume, train, training_data
from recseg.training.validation import Validation, spread, validation_data
from recseg.viz.figures import read_log

SMALL = RecurrentUNetConfig(encoder_widths=(16, 16, 16), decoder_widths=(16,), hidden=16, reduced=16)
QUICK: dict[str, Any] = {
    "size": 16, "image_size": 16, "batch_size": 2, "workers": 0, "seed": 3, "device": "cpu", "network": SMALL,
    "val_every": 2,
}  # fmt: skip


def quick(data: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data=str(data), **(QUICK | changes))


@pytest.fixture(autouse=True)
def log_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)


def entries(run: Path) -> list[dict[str, Any]]:
    """The lines of a log, without what no two runs share: the time."""
    return [{**row, "seconds": 0} for row in read_log(run / "log.jsonl")]


def scores(run: Path) -> list[dict[str, Any]]:
    return [row for row in entries(run) if "val_miou" in row]


def same(one: Path, two: Path) -> bool:
    first, second = load_file(one), load_file(two)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("model", ["recurrent", "dense"])
def test_validation_is_logged_and_changes_nothing(model: str, tiny_voc: Path, tmp_path: Path) -> None:
    looked = train(quick(tiny_voc, model=model, steps=5), tmp_path / "looked", progress=False)
    blind = train(quick(tiny_voc, model=model, steps=5, val_split="none"), tmp_path / "blind", progress=False)
    assert same(looked, blind)
    states = [load_file(run.parent / "checkpoint.safetensors")["random.cpu"] for run in (looked, blind)]
    assert torch.equal(*states)
    assert [row["step"] for row in scores(looked.parent)] == [2, 4, 5]  # and at the end
    assert [row for row in entries(looked.parent) if "val_miou" not in row] == entries(blind.parent)
    assert not scores(blind.parent) and not (blind.parent / "best.safetensors").exists()
    last = scores(looked.parent)[-1]
    assert last["val_images"] == 2 and 0 <= last["val_miou"] <= 1 and last["val_loss"] > 0
    assert {"val_pixels", "val_count_accuracy", "val_label_set_f1"} <= last.keys()
    assert ("val_stop" in last) == (model == "recurrent")


def test_what_is_logged_is_what_evaluate_says_of_the_weights(tiny_voc: Path, tmp_path: Path) -> None:
    weights = train(quick(tiny_voc, steps=4), tmp_path / "run", progress=False)
    last = scores(weights.parent)[-1]
    found = evaluate(load(weights), open_dataset(str(tiny_voc), "val"), progress=False)
    for name in ("miou", "count_accuracy", "label_set_f1"):
        assert last[f"val_{name}"] == pytest.approx(found[name], abs=2e-3)


def test_the_best_is_kept_beside_the_last(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mious = iter([0.2, 0.6, 0.6, 0.4])
    measure = validation.validate
    monkeypatch.setattr(validation, "validate", lambda *given: measure(*given) | {"val_miou": next(mious)})
    last = train(quick(tiny_voc, steps=8), tmp_path / "run", progress=False)
    best = last.parent / "best.safetensors"
    about = [load(file).metadata for file in (best, last)]
    assert [each["step"] for each in about] == [4, 8]  # the first of two that are as good
    assert about[0]["validation"]["val_miou"] == 0.6 and not same(best, last)
    photo = tiny_voc / "JPEGImages" / "tiny_0.jpg"
    assert main(["predict", str(photo), "--weights", str(best), "--out", str(tmp_path / "out")]) == 0


def test_a_score_that_is_undefined_is_no_best(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = validation.validate
    monkeypatch.setattr(validation, "validate", lambda *given: measure(*given) | {"val_miou": None})
    train(quick(tiny_voc, steps=2), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "best.safetensors").exists() and len(scores(tmp_path / "run")) == 1


# Resume


def interrupt(monkeypatch: pytest.MonkeyPatch, place: str, number: int) -> None:
    """Ask a run to end, or let it fail, at the `number`-th time that it comes to a place."""
    calls = 0
    validate, update = validation.validate, training.Trainer.update

    def hit(then: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            then()

    def ask() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def fail() -> None:
        raise RecsegError("val/x.jpg: cannot be read")

    def validated(*given: Any) -> Any:
        if place == "fault":
            hit(fail)
        found = validate(*given)
        if place == "validation":
            hit(ask)
        return found

    def updated(self: training.Trainer, batch: Any) -> Any:
        if place == "update":
            hit(ask)
        return update(self, batch)

    monkeypatch.setattr(validation, "validate", validated)
    monkeypatch.setattr(training.Trainer, "update", updated)


@pytest.mark.parametrize(
    ("place", "number", "error", "step"),
    [
        ("update", 3, KeyboardInterrupt, 3),  # between two validations
        ("update", 4, KeyboardInterrupt, 4),  # the checkpoint comes right after one
        ("validation", 1, KeyboardInterrupt, 3),  # during one
        ("fault", 2, RecsegError, 4),  # an image of the second cannot be read: what was learned is kept
        ("fault", 3, RecsegError, 6),  # nor one of the last, when the budget is used up
    ],
)
def test_resume_is_exact_through_validations(
    place: str, number: int, error: Any, step: int, tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(quick(tiny_voc, steps=6), tmp_path / "whole", progress=False).parent
    with monkeypatch.context() as patch:
        interrupt(patch, place, number)
        with pytest.raises(error):
            train(quick(tiny_voc, steps=6), tmp_path / "cut", progress=False)
    assert load(tmp_path / "cut").metadata["step"] == step
    torch.manual_seed(99)  # whatever happened in between
    cut = resume(tmp_path / "cut", progress=False).parent
    for name in ("weights", "best", "checkpoint"):
        assert same(whole / f"{name}.safetensors", cut / f"{name}.safetensors"), name
    assert entries(whole) == entries(cut)
    assert len(scores(cut)) == 3
    assert load(whole / "best.safetensors").metadata["step"] == load(cut / "best.safetensors").metadata["step"]


def test_a_gradient_that_is_no_number_is_never_the_best(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.nan))
    refusal(lambda: train(quick(tiny_voc, steps=4, val_every=1), tmp_path / "run", progress=False), "not finite")
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_a_bad_image_is_left_out_where_that_was_asked_for(tiny_voc: Path, tmp_path: Path) -> None:
    image = tiny_voc / "JPEGImages" / "tiny_3.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    refusal(lambda: train(quick(tiny_voc, steps=2), tmp_path / "run", progress=False), "tiny_3.jpg")
    resume(tmp_path / "run", progress=False, on_bad_image="skip")
    (found,) = scores(tmp_path / "run")
    assert found["step"] == 2 and found["val_images"] == 1


def test_two_processes_validate_together(tiny_voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--size", "16", "--image-size", "16", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    options += ["--steps", "3", "--val-every", "2", "--encoder-widths", "16", "16", "16", "--decoder-widths", "16"]
    (tiny_voc / "ImageSets/Segmentation/val.txt").write_text("tiny_2\ntiny_3\ntiny_1\n")  # of which one has two
    (tiny_voc / "ImageSets/Segmentation/train.txt").write_text("tiny_0\n")
    command = ["-m", "recseg.cli", "train", "--data", str(tiny_voc), "--out", str(out), *options]
    code, errors = run_processes(2, command)
    assert code == 0, errors
    found = scores(out)
    assert [row["step"] for row in found] == [2, 3] and found[0]["val_images"] == 3
    alone = evaluate(load(out), open_dataset(str(tiny_voc), "val"), progress=False)
    assert found[-1]["val_miou"] == pytest.approx(alone["miou"], abs=2e-3)  # of the weights that were saved


# What is validated on, and when


def split_of(config: TrainConfig) -> list[str] | None:
    config = resolve(config)
    found = validation_data(config, training_data(config))
    return None if found is None else found.ids


def test_the_default_is_val_where_there_is_one_of_its_own(tiny_voc: Path) -> None:
    assert split_of(quick(tiny_voc)) == ["tiny_2", "tiny_3"]
    assert split_of(quick(tiny_voc, val_split="none")) is None
    lists = tiny_voc / "ImageSets/Segmentation"
    lists.joinpath("test.txt").write_text("tiny_3\n")
    assert split_of(quick(tiny_voc, val_split="test")) == ["tiny_3"]
    lists.joinpath("val.txt").write_text("tiny_1\ntiny_2\n")  # trained on as well
    refusal(lambda: split_of(quick(tiny_voc)), tiny_voc, "tiny_1", "--val-split none")
    refusal(lambda: split_of(quick(tiny_voc, val_split="val")), "tiny_1", "both in the training and in the validation")
    lists.joinpath("trainval.txt").write_text("tiny_0\ntiny_1\ntiny_2\n")  # which holds val by its meaning
    assert split_of(quick(tiny_voc, split="trainval")) is None
    lists.joinpath("val.txt").unlink()
    assert split_of(quick(tiny_voc)) is None
    refusal(lambda: split_of(quick(tiny_voc, val_split="val")), "no split 'val'")
    assert not (tiny_voc.parent / "run").exists()


def test_a_pack_is_validated_on_what_lies_beside_its_images(tiny_voc: Path, tmp_path: Path) -> None:
    pack = write_pack(open_dataset(str(tiny_voc), "train"), tmp_path / "train.pack", 32, progress=False)
    assert split_of(quick(pack)) == ["tiny_2", "tiny_3"]
    tiny_voc.rename(tmp_path / "elsewhere")
    assert split_of(quick(pack)) is None


def test_a_long_list_is_thinned_evenly(tiny_voc: Path) -> None:
    (tiny_voc / "ImageSets/Segmentation/many.txt").write_text("tiny_0\ntiny_1\ntiny_2\ntiny_3\n")
    data = open_dataset(str(tiny_voc), "many")
    two = spread(data, 2)
    assert two.ids == ["tiny_0", "tiny_2"] and len(data) == 4
    assert [path.stem for path in (*two.image_paths, *two.mask_paths)] == 2 * ["tiny_0", "tiny_2"]
    assert spread(data, 9).ids == data.ids


def due(config: TrainConfig, tiny_voc: Path, steps: int, pace: float = 0.0) -> list[int]:
    """The steps after which a training validates; with `pace`, minutes of a step."""
    plan, found = Validation(config, open_dataset(str(tiny_voc), "val")), []
    for step in range(1, steps + 1):
        done = step / config.steps if config.steps else step * pace / (config.minutes or 1)
        if plan.due(step, done):
            found.append(step)
            plan.step, plan.done = step, done
    return found


def test_a_tenth_of_the_budget_is_between_two_validations(tiny_voc: Path) -> None:
    settings = {"val_every": None, "steps": 2345}
    assert due(resolve(quick(tiny_voc, **settings)), tiny_voc, 2345) == [*range(235, 2346, 235), 2345]
    assert due(resolve(quick(tiny_voc, val_every=None, steps=250)), tiny_voc, 250) == [100, 200, 250]
    assert due(resolve(quick(tiny_voc, val_every=None, steps=99)), tiny_voc, 99) == []  # a trial run
    clock = resolve(quick(tiny_voc, val_every=None, minutes=10.0))
    assert due(clock, tiny_voc, 1280, pace=1 / 128) == [128 * k for k in range(1, 11)]
    assert due(clock, tiny_voc, 20, pace=0.5) == []
    assert due(resolve(quick(tiny_voc, minutes=10.0, val_every=7)), tiny_voc, 20, pace=0.5) == [7, 14, 20]


@pytest.mark.parametrize(
    "changes",
    [
        {"val_every": 0}, {"val_limit": 0}, {"clip": 0.0}, {"ema": 1.0}, {"warmup": -1}, {"weight_decay": -0.1},
        {"scale": (2.0, 0.5)}, {"scale": (0.0, 1.0)},
    ],
)  # fmt: skip
def test_bad_settings_are_named(changes: dict[str, Any], tmp_path: Path) -> None:
    (name,) = changes
    refusal(lambda: quick(tmp_path, **changes), name, "expected")


# The command line


def test_options_reach_the_training(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    numbers = "--size 16 --image-size 32 --batch-size 2 --workers 0 --steps 2 --warmup 1 --clip 2 --weight-decay 0"
    more = "--scale 0.5 1.5 --ema 0.9 --checkpoint-seconds 9 --val-split val --val-every 1 --val-limit 1 --hidden 8"
    words = [*numbers.split(), *more.split(), "--device", "cpu"]
    assert main(["train", "--data", str(tiny_voc), "--out", str(run), *words]) == 0
    config = load_config(run / "config.json")
    assert (config.scale, config.image_size, config.warmup, config.clip) == ((0.5, 1.5), 32, 1, 2.0)
    assert (config.weight_decay, config.ema, config.checkpoint_seconds, config.network.hidden) == (0.0, 0.9, 9.0, 8)
    assert [row["val_images"] for row in scores(run)] == [1, 1]
    assert f"best on the validation images: {run / 'best.safetensors'}" in capsys.readouterr().out


# TensorBoard


def test_the_log_in_tensorboards_format(tiny_voc: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    run = train(quick(tiny_voc, steps=2, tensorboard=True), tmp_path / "run", progress=False).parent
    (file,) = (run / "tensorboard").iterdir()
    content, place, found = file.read_bytes(), 0, set()
    while place < len(content):  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[place : place + 8], "little")
        event = content[place + 12 : place + 12 + length]
        assert masked_crc32c(event) == int.from_bytes(content[place + 12 + length : place + 16 + length], "little")
        found |= {(value.tag, Event.FromString(event).step) for value in Event.FromString(event).summary.value}
        place += 16 + length
    assert {("train/loss", 1), ("train/loss", 2), ("val/miou", 2), ("val/loss", 2)} <= found


def test_without_tensorboards_writer_nothing_is_begun(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    refusal(check_tensorboard, "--tensorboard", "recseg[tensorboard]")
    config = quick(tiny_voc, steps=2, tensorboard=True)
    refusal(lambda: train(config, tmp_path / "run", progress=False), "recseg[tensorboard]")
    assert not (tmp_path / "run").exists()


def test_a_runs_configuration_says_what_it_is_validated_on(tiny_voc: Path, tmp_path: Path) -> None:
    for split, expected in ((None, "val"), ("none", "none")):
        out = tmp_path / expected
        train(quick(tiny_voc, steps=1, val_split=split), out, progress=False)
        assert json.loads((out / "config.json").read_text())["val_split"] == expected


# The averaged weights


def test_the_average_is_its_formula_to_the_last_bit() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    average = averaged_model(model, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(20):
        model(torch.rand(2, 3, 8, 8))  # which moves the norm's statistics, and counts
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update_parameters(model)
        keep = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            moved = expected[name].lerp(value, 1 - keep) if value.is_floating_point() else value.clone()
            expected[name] = moved
    found = average.module.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert int(found["1.num_batches_tracked"]) == 20 and not average.module.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
