"""Fine-tuning: what a network takes from trained weights, at which rate it learns, and how its run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Refuses, refusal

from recseg.classes import NO_BACKGROUND
from recseg.cli.main import main
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.training.config import TrainConfig, load_config, resolve
from recseg.training.initial import copy_weights, network_of
from recseg.training.train import resume, train, training_data
from recseg.training.trainer import Trainer
from recseg.weights.io import load, save_weights
from recseg.weights.safetensors import TensorFile
from runs import QUICK, same_run, two_lists

OLD = ("background", "cat", "dog", "sheep")
NEW = ("background", "goose", "sheep", "cat", "duck")
SIZES: dict[str, Any] = {**TINY, "hidden": 8, "reduced": 8}
STEPS = 4


def network(kind: str, classes: tuple[str, ...], seed: int, **changes: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    model: SegmentationModel
    if kind == "dense":
        model = UNet(UNetConfig(num_classes=len(classes), **TINY))
    elif kind == "published":
        model = PublishedNetwork(PublishedConfig(len(classes), 3, input_size=160, widths=(2, 2, 2, 2, 2)))
    else:
        model = RecurrentUNet(RecurrentUNetConfig(num_classes=len(classes), **{**SIZES, **changes}))
        torch.nn.init.normal_(model.context.weight)
    model.classes = classes
    return model


@pytest.mark.parametrize("kind", ["recurrent", "dense", "published"])
def test_the_tensors_with_a_row_for_each_class_are_named(kind: str) -> None:
    one, two = (network(kind, OLD[:count], 0).state_dict() for count in (3, 4))
    differ = {name for name, tensor in one.items() if tensor.shape != two[name].shape}
    rows = network(kind, OLD, 0).class_rows
    assert differ == set(rows)
    assert {name: 4 - len(two[name]) for name in differ} == rows


@pytest.mark.parametrize("kind", ["recurrent", "dense", "published"])
def test_rows_of_classes_follow_their_names(kind: str) -> None:
    source, model = network(kind, OLD, 1), network(kind, NEW, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = copy_weights(model, source)
    assert found.classes == ("background", "sheep", "cat")
    assert set(found.rows) == set(model.class_rows)
    for name, tensor in model.state_dict().items():
        given = source.state_dict()[name]
        if name not in model.class_rows:
            assert torch.equal(tensor, given)
            continue
        first = model.class_rows[name]
        for label, title in enumerate(NEW[first:]):
            known = title in OLD[first:]
            expected = given[OLD.index(title) - first] if known else before[name][label]
            assert torch.equal(tensor[label], expected)
    assert set(found.fresh) == set(model.class_rows)


def test_equal_classes_leave_nothing_new() -> None:
    source, model = network("recurrent", OLD, 1), network("recurrent", OLD, 2)
    found = copy_weights(model, source)
    assert found.fresh == found.rows == ()
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert str(found).endswith("new: nothing else")


def test_the_background_is_one_class_whatever_its_name() -> None:
    model = network("dense", ("rest", "cow", "hen"), 2)
    assert copy_weights(model, network("dense", OLD, 1)).classes == ("rest",)
    model = network("dense", (NO_BACKGROUND, "cow", "dog"), 2)
    assert copy_weights(model, network("dense", OLD, 1)).classes == ("dog",)


def test_dense_and_recurrent_give_each_other_what_they_share() -> None:
    dense, recurrent = network("dense", OLD, 1), network("recurrent", OLD, 2)
    found = copy_weights(recurrent, dense)
    assert set(found.whole) == {name for name in dense.state_dict() if not name.endswith("num_batches_tracked")}
    assert {name.split(".")[0] for name in found.fresh} == {
        "reduce", "cell", "coverage", "summary", "stop", "query", "context",
    }  # fmt: skip
    back = network("dense", OLD, 3)
    assert copy_weights(back, recurrent).fresh == ()
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in back.state_dict().items())


def test_another_size_of_the_state_is_new_and_listed() -> None:
    found = copy_weights(network("recurrent", OLD, 1, hidden=12), network("recurrent", OLD, 2))
    assert "cell.gates.weight" not in found.whole and "encoder.stages.0.0.weight" in found.whole
    assert "cell" in str(found).split("new: ")[1]


# Of a training


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "old.safetensors"
    save_weights(path, network("recurrent", OLD, 1), classes=OLD, image_size=32, metadata={})
    return path


@pytest.fixture
def data(tiny_voc: Path) -> Path:
    (tiny_voc / "classes.txt").write_text("\n".join(NEW))
    two_lists(tiny_voc)
    return tiny_voc


def config(data: Path, source: Path | str, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**QUICK, "data": str(data), "steps": STEPS, "init": str(source), **changes})


@pytest.mark.parametrize(("encoder", "share"), [("plain", 1.0), ("mobilenet_v2", 0.1)])
def test_a_training_starts_from_the_weights(data: Path, tmp_path: Path, encoder: str, share: float) -> None:
    source = tmp_path / "old.safetensors"
    old = network("recurrent", OLD, 1, encoder=encoder)
    save_weights(source, old, classes=OLD, image_size=32, metadata={})
    asked = resolve(config(data, source, freeze=0))
    assert asked.network == network_of(str(source)) and asked.network.hidden == SIZES["hidden"]
    trainer = Trainer(asked, training_data(asked), tmp_path / "run")
    given, rates = load(source).state_dict(), dict[str, float]()
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    for optimiser in trainer.optimisers:
        for group in optimiser.param_groups:
            rates |= {names[parameter]: group["base_lr"] for parameter in group["params"]}
    assert asked.lr is not None and rates.keys() == set(names.values())
    assert {rate for name, rate in rates.items() if name.startswith("encoder.")} == {share * asked.lr}
    assert {rate for name, rate in rates.items() if not name.startswith("encoder.")} == {asked.lr}
    new = {"classifier.weight", "classifier.bias", "context.weight"}
    for name, tensor in trainer.averaged.state_dict().items():
        assert name in new or torch.equal(tensor, given[name])


def test_a_run_goes_on_without_the_weights_that_it_began_with(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recseg.training.trainer.LOG_EVERY", 1)
        train(config(data, trained), whole)
        assert "the classifier rows of background, sheep, cat; new: nothing else" in capsys.readouterr().out
        update = Trainer.update

        def fails(self: Trainer, batch: Any) -> Any:
            if self.step == 2:
                raise KeyboardInterrupt
            return update(self, batch)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Trainer, "update", fails)
            with pytest.raises(KeyboardInterrupt):
                train(config(data, trained, checkpoint_seconds=1e-9), cut, progress=False)
        trained.unlink()
        resume(cut, progress=False)
    same_run(whole, cut, STEPS)
    assert str(tmp_path) not in json.dumps(load(whole).metadata)


def test_a_contradiction_is_one_line(data: Path, trained: Path, tmp_path: Path, refuses: Refuses) -> None:
    start = ["train", "--data", data, "--out", tmp_path / "run", "--steps", 1, "--init", trained]
    refuses([*start, "--encoder", "resnet18"], str(trained), "encoder is plain", "resnet18")
    refuses([*start, "--pretrained"], "--init", "--pretrained")
    refuses([*start[:-1], tmp_path / "none.safetensors"], "none.safetensors", "no such file")
    published = tmp_path / "published.safetensors"
    save_weights(published, network("published", OLD, 1), classes=OLD, image_size=160, metadata={})
    refuses([*start[:-1], published], "published network")
    wide = RecurrentUNetConfig(encoder_widths=(5, 7, 9, 11), decoder_widths=(9, 9))
    asked = resolve(config(data, trained, network=wide, model="dense"))
    message = refusal(lambda: train(asked, tmp_path / "run", progress=False), "--init", "no tensor")
    assert str(trained) in message


def test_sizes_are_those_of_the_weights_unless_they_are_given(data: Path, trained: Path, tmp_path: Path) -> None:
    start = ["train", "--data", data, "--init", trained, "--steps", 1, "--size", 16, "--batch-size", 2]
    for hidden, more in ((8, []), (6, ["--hidden", 6])):
        run = tmp_path / f"run{hidden}"
        assert main([str(part) for part in [*start, "--workers", 0, "--device", "cpu", "--out", run, *more]]) == 0
        sizes = load_config(run / "config.json").network
        assert (sizes.encoder_widths, sizes.hidden) == (TINY["encoder_widths"], hidden)


def test_the_weights_are_read_once(data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen = TensorFile.read, list[str]()

    def counted(file: TensorFile, name: str) -> torch.Tensor:
        seen.append(name)
        return read(file, name)

    monkeypatch.setattr(TensorFile, "read", counted)
    start = ["train", "--data", data, "--init", trained, "--steps", 1, "--size", 16, "--batch-size", 2, "--hidden", 8]
    run = [*start, "--workers", 0, "--device", "cpu", "--val-split", "none", "--out", tmp_path / "run"]
    assert main([str(part) for part in run]) == 0
    once = seen.copy()
    assert sorted(once) == sorted(load(trained).state_dict())
