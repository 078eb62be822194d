"""An update asks a GPU for no number but one: whether the loss is finite.

The meta device stands in for a GPU: its tensors have shapes and no values, so every question for a value is noticed.
"""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data._utils.pin_memory import pin_memory

from recseg.data.stream import Batch, batches
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import RecurrentUNetConfig
from recseg.training.config import TrainConfig, resolve
from recseg.training.objective import Objective
from recseg.training.optim import averaged_model
from recseg.training.train import training_data
from recseg.training.trainer import Trainer

aten = torch.ops.aten
ASK = (aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default)  # for a value
SIZE = (aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor)  # that depends on values
INDEX = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
CHECK = "aten._local_scalar_dense.default"  # of the loss and the gradient before it


class HostWaits(TorchDispatchMode):
    """Lists the operations for which the host waits for a device. A question is answered by 1, a copy by zeros."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.device, self.found = device, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves(args) if isinstance(each, Tensor)]
        there = [each for each in tensors if each.device.type == self.device]
        masks = [each for each in args[1] if each is not None and each.dtype == torch.bool] if func in INDEX else []
        if there and (func in ASK or (func in SIZE and not kwargs.get("output_size")) or masks):
            self.found.append(str(func))
            if func in ASK:
                return True if there[0].dtype == torch.bool else 1
        if func in (aten._to_copy.default, aten.copy_.default):
            if func is aten.copy_.default:
                target, source, waited = args[0].device.type, args[1].device.type, not (args[2:] and args[2])
            else:
                source, waited = args[0].device.type, not kwargs.get("non_blocking")
                target = torch.device(kwargs.get("device") or source).type
            if source != target and (waited or source == self.device):
                self.found.append(f"copy from {source} to {target}")
            if source == self.device != target:
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


def trainer_on(device: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Trainer, Batch]:
    """A trainer of a tiny network on pictograms, and a batch of four for it."""
    if device == "meta":  # which autocast does not know
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    network = RecurrentUNetConfig(**TINY, hidden=8, reduced=8)
    settings: dict[str, Any] = {"size": 32, "batch_size": 4, "workers": 0, "val_split": "none", "pixels_first": 0.0}
    config = resolve(TrainConfig("pictograms", steps=4, device=device, network=network, **settings | options))
    trainer = Trainer(config, training_data(config), Path("not written"))
    return trainer, next(batches(trainer.dataset, 4, seed=0, pin=device == "cuda"))


@pytest.mark.parametrize(
    "options",
    [{}, {"optimiser": "adamw"}, {"order": "area"}, {"max_steps": 1}, {"model": "dense"}, {"pixels_first": 0.9}],
    ids=str,
)
def test_an_update_waits_once(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = trainer_on("meta", monkeypatch, **options)
    for _ in range(2):  # optimisers make their state at the first
        with HostWaits() as waits:
            trainer.update(batch)
        assert waits.found == [CHECK]


def test_matching_more_than_five_steps_waits_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = trainer_on("meta", monkeypatch, max_steps=6)
    with HostWaits() as waits:
        trainer.update(batch)
    assert waits.found == ["copy from meta to cpu", CHECK]


def test_the_published_network_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = trainer_on("meta", monkeypatch)
    trainer.model = PublishedNetwork(PublishedConfig(21, 3, input_size=32, widths=(8, 12))).to("meta")
    trainer.objective = Objective(trainer.model, trainer.config)
    trainer.optimisers, trainer.average = [], averaged_model(trainer.model, 0.9)
    with HostWaits() as waits:
        trainer.update(batch)
    assert waits.found == [CHECK]


def test_what_would_wait_is_noticed() -> None:
    there, mask = torch.ones(3, device="meta"), torch.ones(3, dtype=torch.bool, device="meta")
    with HostWaits() as waits:
        assert there.sum().item() == 1 and bool(mask.any())
        with pytest.raises(RuntimeError):  # whose size nobody knows
            there[mask]
        there.cpu()
        torch.ones(3).to("meta")
        torch.ones(3).to("meta", non_blocking=True)
        there[torch.ones(1, dtype=torch.long, device="meta")]
    assert waits.found[:2] == [CHECK, CHECK] and waits.found[-2:] == ["copy from meta to cpu", "copy from cpu to meta"]
    assert "aten.index.Tensor" in waits.found


def test_a_loader_pins_what_goes_to_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor + 1)
    zeros = torch.zeros(1, dtype=torch.long)
    pinned = pin_memory(Batch(zeros, zeros, zeros, ["a"]))
    assert (pinned.images.item(), pinned.labels.item(), pinned.lengths.item()) == (1, 1, 0) and pinned.ids == ["a"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batch = trainer_on("cuda", monkeypatch)
    assert batch.images.is_pinned() and batch.labels.is_pinned()
    trainer.update(batch)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([each for each in caught if "synchronizing" in str(each.message)]) == 1
