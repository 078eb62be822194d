"""In how many bits the parts of a network compute while it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recseg.data.stream import batches
from recseg.models.config import RecurrentUNetConfig
from recseg.training.config import TrainConfig, resolve
from recseg.training.train import training_data
from recseg.training.trainer import Trainer
from runs import QUICK


@pytest.mark.parametrize("amp", ["bf16", "off"])
def test_on_cpus_depthwise_convolutions_compute_in_float32(tmp_path: Path, amp: str) -> None:
    network = RecurrentUNetConfig(encoder="mobilenet_v2", decoder_widths=(8,), hidden=8, reduced=8)
    settings: dict[str, Any] = QUICK | {"size": 64, "amp": amp, "network": network, "val_split": "none"}
    config = resolve(TrainConfig("pictograms", steps=1, **settings))
    trainer = Trainer(config, training_data(config), tmp_path)
    depthwise, others = set[torch.dtype](), set[torch.dtype]()

    def note(module: nn.Conv2d, inputs: Any, output: torch.Tensor) -> None:
        (depthwise if module.groups > 1 else others).add(output.dtype)

    for module in convolutions(trainer.model):
        module.register_forward_hook(note)
    trainer.model.train()
    trainer.update(next(batches(trainer.dataset, 2, seed=0)))
    assert depthwise == {torch.float32}
    assert others == {torch.bfloat16 if amp == "bf16" else torch.float32}
    for module in convolutions(trainer.averaged):
        assert getattr(module.forward, "__self__", None) is module  # a copy that computes with its own weights


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]
