"""`recseg train --compile`: the same network, only run in another way."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, refusal
from safetensors import safe_open
from torch import nn

from recseg.data.stream import batches
from recseg.devices import compile_parts
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import RecurrentUNetConfig
from recseg.training.config import TrainConfig, resolve
from recseg.training.train import resume, train, training_data
from recseg.training.trainer import Trainer
from recseg.weights.io import load
from runs import QUICK, two_lists

NETWORK = RecurrentUNetConfig(**TINY, hidden=8, reduced=8)
SETTINGS: dict[str, Any] = {**QUICK, "steps": 2, "network": NETWORK, "pixels_first": 0.0, "val_split": "none"}


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Traces and runs as it is; the modules that were compiled."""
    compiled: list[nn.Module] = []
    original = nn.Module.compile

    def compile(module: nn.Module, *args: Any, **options: Any) -> None:
        compiled.append(module)
        original(module, *args, backend="eager", **options)

    monkeypatch.setattr(nn.Module, "compile", compile)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    return compiled


def names(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as stream:
        return set(stream.keys())


def test_a_compiled_run_is_saved_and_goes_on(tiny_voc: Path, tmp_path: Path, without_compiler: list[nn.Module]) -> None:
    two_lists(tiny_voc)
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    train(TrainConfig(str(tiny_voc), **SETTINGS), plain, progress=False)
    assert not without_compiler
    train(TrainConfig(str(tiny_voc), compile=True, **SETTINGS), compiled, progress=False)
    assert [type(module).__name__ for module in without_compiler] == ["Encoder", "Decoder"]
    resume(compiled, progress=False, steps=3)
    for name in ("checkpoint.safetensors", "weights.safetensors"):
        assert names(compiled / name) == names(plain / name)
    assert load(compiled)(torch.zeros(1, 3, 16, 16)).masks.isfinite().all()


@pytest.mark.slow
def test_the_loss_and_its_gradient_are_those_without_a_compiler(tmp_path: Path) -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    found = []
    for compiled in (False, True):
        torch.compiler.reset()
        config = resolve(TrainConfig("pictograms", compile=compiled, **SETTINGS))
        trainer = Trainer(config, training_data(config), tmp_path)
        trainer.model.train()
        losses = [trainer.update(batch)["loss"] for batch in islice(batches(trainer.dataset, 2, seed=0), 2)]
        found.append([*losses, *trainer.model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refusal(lambda: compile_parts(nn.ModuleDict({"encoder": nn.Identity(), "decoder": nn.Identity()})), "g++")


def test_the_published_network_is_refused() -> None:
    model = PublishedNetwork(PublishedConfig(3, 2, input_size=32, widths=(8, 12)))
    refusal(lambda: compile_parts(model), "--compile", "recurrent or dense")
