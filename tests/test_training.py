"""The loop: exact resume, honest budgets, one line for bad input."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import refusal
from safetensors.torch import load_file, save_file

import recseg.training.objective as objective
import recseg.training.trainer as training
from recseg.data.stream import StreamSampler, batches, count_classes
from recseg.devices import choose_device, choose_precision
from recseg.errors import RecsegError
from recseg.models.baseline import PublishedConfig, PublishedNetwork, published_loss
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.training.config import TrainConfig, build_model, load_config, resolve
from recseg.training.optim import averaged_model, parameter_groups, schedule
from recseg.training.train import resume, train, training_data
from recseg.training.trainer import Trainer
from recseg.weights.io import load

QUICK: dict[str, Any] = {"size": 16, "image_size": 16, "batch_size": 2, "workers": 0, "seed": 3, "device": "cpu"}


def quick(data: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data=str(data), **(QUICK | changes))


def entries(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def log_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)


@pytest.mark.parametrize("model", ["recurrent", "dense"])
def test_a_run_leaves_weights_that_load_and_a_log(tiny_voc: Path, tmp_path: Path, model: str) -> None:
    weights = train(quick(tiny_voc, model=model, steps=2), tmp_path / "run", progress=False)
    loaded = load(weights)
    assert loaded.kind == model and loaded.image_size == 16 and not loaded.training
    assert [entry["step"] for entry in entries(tmp_path / "run")] == [1, 2]
    assert load_config(tmp_path / "run" / "config.json").steps == 2


def test_resume_is_exact(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(quick(tiny_voc, steps=4), tmp_path / "whole", progress=False)

    update, calls = Trainer.update, 0

    def interrupted(self: Trainer, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step; the run ends after it
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", interrupted)
    with pytest.raises(KeyboardInterrupt, match="after step 2"):
        train(quick(tiny_voc, steps=4), tmp_path / "cut", progress=False)
    torch.manual_seed(99)  # whatever happened in between
    cut = resume(tmp_path / "cut", progress=False)

    first, second = load_file(whole), load_file(cut)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    timeless = [[{**e, "seconds": 0} for e in entries(tmp_path / run)] for run in ("whole", "cut")]
    assert timeless[0] == timeless[1]


def test_resume_forgets_log_lines_after_the_checkpoint(tiny_voc: Path, tmp_path: Path) -> None:
    train(quick(tiny_voc, steps=2), tmp_path / "run", progress=False)
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 3, "loss": 1}\n{"step": 4, "lo')  # a run that was killed while it wrote
    resume(tmp_path / "run", progress=False)
    assert [entry["step"] for entry in entries(tmp_path / "run")] == [1, 2]


def test_same_seed_same_weights_other_seed_other_weights(tiny_voc: Path, tmp_path: Path) -> None:
    runs = [
        train(quick(tiny_voc, steps=1, seed=seed), tmp_path / name, progress=False)
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    ]
    a, b, c = (load_file(run)["classifier.weight"] for run in runs)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_minutes_end_a_run(tiny_voc: Path, tmp_path: Path) -> None:
    train(quick(tiny_voc, minutes=1e-6), tmp_path / "run", progress=False)
    assert len(entries(tmp_path / "run")) == 1


def test_published_preset_trains() -> None:
    config = resolve(TrainConfig(data="voc", model="published"))
    assert (config.size, config.batch_size, config.lr) == (256, 32, 1e-3)
    with torch.device("meta"):  # its shape, without its 60 million numbers
        network: Any = build_model(config)
    assert network.config == PublishedConfig(21, 5, input_size=256)
    tiny = PublishedNetwork(PublishedConfig(6, 3, 160, (4, 4, 4, 8, 8), dropout=0.0, head_dropout=0.0)).train()
    images, labels = torch.rand(2, 3, 160, 160), torch.zeros(2, 160, 160, dtype=torch.long)
    labels[0, :30], labels[:, 90:] = 5, 2
    # Its own loss, whatever share of the budget is used up; of two classes the one with the lower label comes first.
    masks = torch.stack([torch.stack([labels[image] == label for label in (2, 5, 255)]) for image in (0, 1)])
    expected = published_loss(
        *tiny.forward_all(images), masks, torch.tensor([[2, 5, 0], [2, 0, 0]]), torch.tensor([2, 1])
    )
    for done in (0.0, 1.0):
        terms = objective.compute_loss(tiny, images, labels, count_classes(labels), config, done)
        assert terms.keys() == expected.keys()
        for name, value in terms.items():
            torch.testing.assert_close(value, expected[name])


def test_single_pixels_are_learned_first(tiny_voc: Path) -> None:
    config = resolve(quick(tiny_voc, steps=10))
    model = build_model(config)
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[:, 4:] = 7
    batch = torch.rand(2, 3, 16, 16), labels, torch.tensor([1, 1]), config
    assert objective.compute_loss(model, *batch, done=0.4).keys() == {"loss", "pixels"}
    terms = {"loss", "pixels", "bce", "dice", "classes", "stop"}
    assert objective.compute_loss(model, *batch, done=0.5).keys() == terms


def test_a_run_builds_the_network_that_was_asked_for(tiny_voc: Path, tmp_path: Path) -> None:
    """As many classes as the data has; a dense network has of a recurrent one what the two share."""
    sizes = RecurrentUNetConfig(encoder_widths=(4, 6, 8), decoder_widths=(8, 7), hidden=5, reduced=3, max_steps=9)
    (tiny_voc / "classes.txt").write_text("\n".join("abcdefgh"))
    for model in ("recurrent", "dense"):
        weights = train(quick(tiny_voc, model=model, network=sizes, steps=1), tmp_path / model, progress=False)
        built: Any = load(weights)
        network = load_config(tmp_path / model / "config.json").network
        assert network == replace(sizes, num_classes=8, max_steps=1)  # the most that an image has
        dense = UNetConfig(8, "plain", sizes.encoder_widths, sizes.decoder_widths)
        assert built.config == (network if model == "recurrent" else dense)


def test_the_default_is_the_network_that_ships() -> None:
    assert TrainConfig(data="voc").network == RecurrentUNetConfig() == RecurrentUNet().config
    assert build_model(resolve(TrainConfig(data="voc"))).state_dict().keys() == RecurrentUNet().state_dict().keys()


@pytest.mark.parametrize(("chosen", "kinds"), [(None, ["Muon", "AdamW"]), ("adamw", ["AdamW"])])
def test_optimisers(chosen: str | None, kinds: list[str], tiny_voc: Path, tmp_path: Path) -> None:
    config = resolve(quick(tiny_voc, model="dense", optimiser=chosen))
    trainer = Trainer(config, training_data(config), tmp_path)
    assert [type(optimiser).__name__ for optimiser in trainer.optimisers] == kinds
    known = sum(len(group["params"]) for optimiser in trainer.optimisers for group in optimiser.param_groups)
    assert known == len(list(trainer.model.parameters()))


def test_the_baseline_keeps_the_optimiser_of_its_authors(tiny_voc: Path) -> None:
    assert resolve(TrainConfig(data=str(tiny_voc), model="published")).optimiser == "adamw"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "unet"}, "model 'unet'"),
        ({"minutes": 1.0, "steps": 1}, "not both"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"seed": -1}, "seed -1"),
        ({"pixels_first": 1.0}, "pixels_first 1.0"),
        ({"freeze": 6, "pretrained": True}, "freeze 6"),
        ({"freeze": 2}, "freeze 2.*--pretrained"),
        ({"optimiser": "sgd"}, "optimiser 'sgd'"),
        ({"order": "size"}, "order 'size': expected one of matched, class, area"),
        ({"on_bad_image": "weep"}, "on_bad_image 'weep'"),
        ({"amp": "int8"}, "amp 'int8'"),
    ],
)
def test_bad_configuration_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecsegError, match=words):
        quick(tmp_path, **changes)


def test_a_folder_in_use_is_left_alone(tiny_voc: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecsegError, match="not empty"):
        train(quick(tiny_voc, steps=1), tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["thesis.txt"]


def test_bad_data_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RecsegError, match="nowhere"):
        train(quick(tmp_path / "nowhere", steps=1), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_resume_of_something_else_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecsegError, match=r"config\.json: no such file"):
        resume(tmp_path)
    (tmp_path / "config.json").write_text('{"data": "voc", "colour": 1}')
    with pytest.raises(RecsegError, match="not the configuration"):
        resume(tmp_path)


def test_damaged_checkpoint_is_one_line(tiny_voc: Path, tmp_path: Path) -> None:
    train(quick(tiny_voc, steps=1), tmp_path / "run", progress=False)
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(RecsegError, match=r"checkpoint\.safetensors: not a readable checkpoint"):
        resume(tmp_path / "run", progress=False)


def test_a_diverged_loss_is_named(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "compute_loss", lambda *_: {"loss": torch.tensor(float("nan"))})
    with pytest.raises(RecsegError, match="step 0: the loss is not finite"):
        train(quick(tiny_voc, steps=1), tmp_path / "run", progress=False)


def test_stream_can_be_entered_anywhere_and_sees_every_image() -> None:
    def first(count: int, start: int) -> list[list[tuple[int, int]]]:
        stream = iter(StreamSampler(5, 2, seed=7, start=start))
        return [next(stream) for _ in range(count)]

    everything = first(10, 0)
    assert first(4, 6) == everything[6:]
    flat = [pair for batch in everything for pair in batch]
    assert sorted(flat) == [(epoch, index) for epoch in range(4) for index in range(5)]


def test_workers_do_not_change_what_is_seen(tiny_voc: Path) -> None:
    config = resolve(quick(tiny_voc, steps=1))
    data = training_data(config)
    alone, helped = (next(batches(data, 3, seed=1, workers=n)) for n in (0, 1))
    assert torch.equal(alone.images, helped.images) and torch.equal(alone.labels, helped.labels)
    assert alone.ids == helped.ids


def test_schedule_rises_then_falls() -> None:
    factors = [schedule(step, step / 100, warmup=10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9]
    assert all(a > b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert schedule(500, 1.2, warmup=10) == 0


def test_norms_and_biases_are_not_decayed_and_the_encoder_is_slower() -> None:
    model = UNet(UNetConfig(encoder_widths=(4, 4, 4, 4, 4), decoder_widths=(4, 4, 4)))
    groups = parameter_groups(model, 1.0, 0.1, 0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert (parameter.ndim > 1) == (group["weight_decay"] == 0.5)
            slow = any(parameter is p for p in model.encoder.parameters())
            assert slow == (group["lr"] == 0.1)


def test_frozen_stages_stay_as_they_were(tiny_voc: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "imagenet.safetensors")
    network, weights = RecurrentUNetConfig(encoder="resnet18"), str(tmp_path / "imagenet.safetensors")
    config = resolve(quick(tiny_voc, steps=2, model="dense", network=network, encoder_weights=weights))
    assert config.freeze == 2
    trainer = Trainer(config, training_data(config), tmp_path / "run")
    assert isinstance(trainer.model, UNet)
    stages = trainer.model.encoder.stages
    before = [{name: value.clone() for name, value in stage.state_dict().items()} for stage in stages]
    trainer.run(progress=False)
    for level, stage in enumerate(stages):  # norms' statistics among it
        changed = any(not torch.equal(value, before[level][name]) for name, value in stage.state_dict().items())
        assert changed == (level >= 2), level


def test_average_follows_and_counts() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = averaged_model(model, 0.9)
    before = average.module.get_parameter("0.weight").clone()
    with torch.no_grad():
        model.get_parameter("0.weight").add_(1)
    model.get_buffer("1.num_batches_tracked").add_(4)
    average.n_averaged.fill_(10_001)  # as if after update 10_000
    average.update_parameters(model)
    assert torch.allclose(average.module.get_parameter("0.weight"), before + 0.1, atol=1e-6)
    assert average.module.get_buffer("1.num_batches_tracked") == 4


def test_device_and_precision() -> None:
    with pytest.raises(RecsegError, match="device 'abacus'"):
        choose_device("abacus")
    cpu = choose_device("cpu")
    assert choose_precision("off", cpu) is None and choose_precision("bf16", cpu) is torch.bfloat16


def test_a_batch_too_small_for_its_norms_is_refused(tiny_voc: Path, tmp_path: Path) -> None:
    config = quick(tiny_voc, steps=1, batch_size=1)
    refusal(lambda: train(config, tmp_path / "run", progress=False), "batch_size 1", "size 16")


def test_tiny_crops_on_a_cpu_stay_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    cpu = choose_device("cpu")
    assert choose_precision("auto", cpu, 32) is None and choose_precision("auto", cpu, 64) is torch.bfloat16
