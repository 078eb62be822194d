"""What the tests of faults share: short runs of a small network, and whether two runs are the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from recseg.training.config import TrainConfig, resolve, save_config
from recseg.training.train import train
from recseg.training.trainer import Trainer

QUICK: dict[str, Any] = {"size": 16, "image_size": 16, "batch_size": 2, "workers": 0, "seed": 3, "device": "cpu"}


def begin(run: Path, data: Path, **changes: Any) -> Path:
    """A run that has not taken a step, and will save each: `recseg train --resume` goes on with it."""
    run.mkdir(parents=True)
    settings: dict[str, Any] = {**QUICK, "checkpoint_seconds": 1e-9, **changes}
    save_config(run / "config.json", resolve(TrainConfig(data=str(data), **settings)))
    return run


def two_lists(root: Path) -> None:
    """Three images to train on, and another to validate on."""
    lists = {"train": "tiny_0\ntiny_1\ntiny_2\n", "val": "tiny_3\n"}
    for split, names in lists.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(names)


def stopped_at_two(config: TrainConfig, run: Path, augment: Any = None) -> Path:
    """A run that was stopped after two steps, by Ctrl-C."""
    with pytest.MonkeyPatch.context() as patch:
        update = Trainer.update

        def fails(self: Trainer, batch: Any) -> Any:
            if self.step == 2:
                raise KeyboardInterrupt
            return update(self, batch)

        patch.setattr(Trainer, "update", fails)
        with pytest.raises(KeyboardInterrupt):
            train(config, run, progress=False, augment=augment)
    assert step_of(run) == 2
    return run


def content(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and text of a file, read to the last byte."""
    with safe_open(file, framework="pt") as stream:
        return {key: stream.get_tensor(key) for key in stream.keys()}, stream.metadata()  # noqa: SIM118 - not a dict


def step_of(run: Path) -> int:
    """Of the run's checkpoint, which is whole and holds numbers only."""
    tensors, text = content(run / "checkpoint.safetensors")
    assert all(value.isfinite().all() for value in tensors.values())
    step: int = json.loads(text["progress"])["step"]
    return step


def log_of(run: Path) -> list[dict[str, Any]]:
    """Entries of a log, without what no two runs share: the time."""
    return [{**json.loads(line), "seconds": 0} for line in (run / "log.jsonl").read_text().splitlines()]


def same_file(one: Path, two: Path) -> int:
    """Assert equal tensors, bit for bit, and equal text but for how it was run; returns how many tensors."""
    (first, about), (second, also) = content(one), content(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        assert torch.equal(value, second[name]), f"{one.name}: {name}"
    for text in (about, also):
        for key in {"progress", "metadata"} & text.keys():
            text[key] = {**json.loads(text[key]), "seconds": 0, "checkpoint_seconds": 0, "workers": 0}
    assert about == also
    return len(first)


def same_run(whole: Path, cut: Path, steps: int) -> None:
    """Assert equal weights, averages, optimisers, random states and logs, with one line of loss a step."""
    tensors = same_file(whole / "checkpoint.safetensors", cut / "checkpoint.safetensors")
    assert tensors > 2 * same_file(whole / "weights.safetensors", cut / "weights.safetensors")  # with the optimiser
    assert log_of(whole) == log_of(cut)
    assert [entry["step"] for entry in log_of(cut) if "loss" in entry] == list(range(1, steps + 1))
    assert not [path.name for path in cut.iterdir() if path.name.startswith(".")]  # nothing half written
