"""The parts of the benchmark: each measures one thing of all contestants and says which bars hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recseg.benchmark.memory import peak_bytes
from recseg.benchmark.networks import (
    VOC_MIX,
    build,
    contestant_config,
    contestants,
    forward,
    output_bytes,
    random_images,
    random_labels,
    voc_lengths,
)
from recseg.benchmark.timing import Ratio, exponent, interleave, ratio, waiter, weighted
from recseg.data.stream import count_classes
from recseg.models.model import SegmentationModel
from recseg.training.optim import make_optimisers, parameter_groups
from recseg.training.trainer import choose_precision, compute_loss, precision_name

COUNTS = range(1, len(VOC_MIX) + 1)


@dataclass(frozen=True)
class Setting:
    """Where and how long a part measures.

    Attributes:
        device: to run on.
        side: of the square images, in pixels.
        rounds: see `timing.interleave`.
        encoder: of all but the published network.
        reference: a file to compare exported networks with (`recseg.benchmark.deployed`).
        progress: called now and then.
    """

    device: torch.device
    side: int = 256
    rounds: int = 5
    encoder: str = "mobilenet_v2"
    reference: Path | None = None
    progress: Callable[[], object] = lambda: None

    def times(self, acts: dict[str, Callable[[], object]], rounds: int | None = None) -> dict[str, list[float]]:
        return interleave(acts, rounds or self.rounds, waiter(self.device), progress=self.progress)

    def make(self, name: str, num_classes: int = 21) -> nn.Module:
        return build(name, encoder=self.encoder, num_classes=num_classes, side=self.side, device=self.device)


@dataclass(frozen=True)
class Bar:
    """A figure and the bound that it is held to; `value` None: not measured here."""

    what: str
    value: float | None
    bound: float
    at_most: bool = True
    spread: Ratio | None = None

    @property
    def holds(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def to_dict(self) -> dict[str, Any]:
        spread = None if self.spread is None else self.spread.to_dict()
        value = None if self.value is None else round(self.value, 4)
        return {
            "what": self.what, "value": value, "bound": self.bound, "at_most": self.at_most, "holds": self.holds,
            "spread": spread,
        }  # fmt: skip


Found = tuple[dict[str, Any], list[Bar]]


def _bar(what: str, found: Ratio, bound: float, at_most: bool = True) -> Bar:
    return Bar(what, found.median, bound, at_most, found)


def precisions(device: torch.device) -> dict[str, torch.dtype | None]:
    """32 bits, and 16 where the hardware is fast at them."""
    short = choose_precision("auto", device)
    return {precision_name(precision): precision for precision in (None, short)}


def inference(setting: Setting) -> Found:
    """One forward pass to full-size logits: batch 1 for one to five classes, and a batch of 16 mixed as VOC is."""
    models = {name: setting.make(name) for name in contestants(setting.side)}
    lengths = voc_lengths(16)
    result: dict[str, Any] = {}
    bars: list[Bar] = []
    for kind, precision in precisions(setting.device).items():
        one, many = (random_images(batch, setting.side, setting.device) for batch in (1, 16))
        acts = {f"recurrent {n}": forward("recurrent", models["recurrent"], one, [n], precision) for n in COUNTS}
        acts |= {name: forward(name, models[name], one, [1], precision) for name in models if name != "recurrent"}
        times = setting.times(acts)
        mixed = weighted([times[f"recurrent {n}"] for n in COUNTS], VOC_MIX)
        big = {name: forward(name, models[name], many, lengths, precision) for name in models if name != "published"}
        times_16 = setting.times(big)
        result[kind] = {
            "batch_1": as_milliseconds(times | {"recurrent, VOC's mix": mixed}),
            "batch_16": as_milliseconds(times_16),
        }
        where = f"inference, recurrent ÷ {{}}, VOC's mix, {kind}, batch "
        bars += [
            _bar(where.format("dense") + "1", ratio(mixed, times["dense"]), 1.1),
            _bar(where.format("dense") + "16", ratio(times_16["recurrent"], times_16["dense"]), 1.1),
            _bar(where.format("encoder") + "1", ratio(mixed, times["encoder"]), 1.8),
            _bar(where.format("encoder") + "16", ratio(times_16["recurrent"], times_16["encoder"]), 1.8),
        ]
        if setting.device.type == "cpu" and "published" in models:
            found = ratio(times["published"], mixed)
            bars.append(_bar(f"inference, published ÷ recurrent, {kind}, batch 1", found, 30, at_most=False))
    sizes = {name: output_bytes(forward(name, models[name], many, lengths)()) for name in ("dense", "recurrent")}
    result["output_bytes_batch_16"] = sizes
    share = sizes["dense"] / sizes["recurrent"]
    bars.append(Bar("output bytes, dense ÷ recurrent, VOC's mix, 21 classes", share, 8, at_most=False))
    return result, bars


def training(setting: Setting) -> Found:
    """One update: forward, losses, backward, optimisers."""
    precision = choose_precision("auto", setting.device)
    result: dict[str, Any] = {"precision": precision_name(precision)}
    bars: list[Bar] = []
    # Two images for the published network: one is fewer than its batch norms take, sixteen fill the memory.
    groups = {16: ("dense", "recurrent"), 2: tuple({"recurrent", "published"} & {*contestants(setting.side)})}
    times = {}
    for batch, names in groups.items():
        lengths = voc_lengths(batch)
        images = random_images(batch, setting.side, setting.device)
        labels = random_labels(lengths, setting.side, 21, setting.device)
        acts = {name: update(name, setting.make(name), images, labels, precision) for name in names}
        times[batch] = setting.times(acts, rounds=min(3, setting.rounds))
        result[f"batch_{batch}"] = as_milliseconds(times[batch])
        del acts
    bars.append(
        _bar("training step, recurrent ÷ dense, batch 16", ratio(times[16]["recurrent"], times[16]["dense"]), 1.2)
    )
    memory = {name: _memory(setting, name, act="training", batch=2) for name in groups[2]}
    result["peak_bytes_batch_2"] = memory
    if "published" not in memory:
        return result, bars
    if setting.device.type == "cpu":
        found = ratio(times[2]["published"], times[2]["recurrent"])
        bars.append(_bar("training step, published ÷ recurrent, batch 2", found, 20, at_most=False))
    bars.append(
        Bar("training memory, published ÷ recurrent, batch 2", _quotient(memory, "published", "recurrent"), 8, False)
    )
    return result, bars


def classes(setting: Setting) -> Found:
    """The size of the label set: 21, 1,000 and 10,000 classes, at batch 1 and two classes an image.

    The time of a dense network of 1,000 classes is not compared: on a CPU it depends on how the C library keeps freed
    memory (chapter 8 says how to set that).
    """
    image, numbers = random_images(1, setting.side, setting.device), (21, 1000, 10000)
    acts = {f"recurrent {k}": forward("recurrent", setting.make("recurrent", k), image, [2]) for k in numbers}
    times = setting.times(acts)
    memory = {f"recurrent {k}": _memory(setting, "recurrent", batch=1, num_classes=k) for k in numbers}
    memory["dense 1000"] = _memory(setting, "dense", batch=1, num_classes=1000)
    bars = [
        _bar("10,000 ÷ 21 classes, recurrent, time", ratio(times["recurrent 10000"], times["recurrent 21"]), 1.2),
        Bar("10,000 ÷ 21 classes, recurrent, memory", _quotient(memory, "recurrent 10000", "recurrent 21"), 1.2),
        Bar("1,000 classes, dense ÷ recurrent, memory", _quotient(memory, "dense 1000", "recurrent 1000"), 10, False),
    ]
    return {"milliseconds": as_milliseconds(times), "peak_bytes": memory}, bars


def scaling(setting: Setting) -> Found:
    """Cost against the number of pixels: by the side of one image, and by the images in a batch."""
    model = setting.make("recurrent")
    sides, batches = (128, 192, 256, 384, 512), (1, 2, 4, 8, 16, 32, 64)
    by_side = {
        str(s): forward("recurrent", model, random_images(1, s, setting.device), [2]) for s in sides
    }  # fmt: skip
    by_batch = {
        str(b): forward("recurrent", model, random_images(b, 128, setting.device), [2] * b) for b in batches
    }  # fmt: skip
    result: dict[str, Any] = {}
    bars = []
    for what, sizes, acts in (
        ("side", [side * side for side in sides], by_side), ("batch", list(batches), by_batch),
    ):  # fmt: skip
        times = setting.times(acts)
        slopes = [exponent(sizes, row) for row in zip(*times.values(), strict=True)]
        found = ratio(slopes, [1.0] * len(slopes))
        result[f"by_{what}"] = as_milliseconds(times)
        bars.append(_bar(f"exponent of the time against pixels, by {what}", found, 1.1))
    return result, bars


def update(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, precision: torch.dtype | None = None
) -> Callable[[], object]:
    """One update of the weights as `recseg.training.trainer` does it, as an act to be timed."""
    config = contestant_config(name, pixels_first=0.0)
    assert config.optimiser is not None and isinstance(model, SegmentationModel)
    optimisers = make_optimisers(config.optimiser, parameter_groups(model, 1e-6, 1e-6, 0.0))
    model.train()
    lengths = count_classes(labels)

    def act() -> Tensor:
        with torch.autocast(images.device.type, dtype=precision, enabled=precision is not None):
            loss = compute_loss(model, images, labels, lengths, config)["loss"]
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        return loss.detach()

    return act


def as_milliseconds(times: dict[str, list[float]]) -> dict[str, float]:
    """Median of the rounds. Of no use alone: see `timing`."""
    return {name: round(1000 * sorted(found)[len(found) // 2], 3) for name, found in times.items()}


def _memory(setting: Setting, name: str, *, batch: int, act: str = "inference", num_classes: int = 21) -> int | None:
    setting.progress()
    return peak_bytes(
        name, act=act, device=str(setting.device), batch=batch, side=setting.side, num_classes=num_classes,
        encoder=setting.encoder, threads=torch.get_num_threads(),
    )  # fmt: skip


def _quotient(bytes_of: dict[str, int | None], over: str, under: str) -> float | None:
    a, b = bytes_of[over], bytes_of[under]
    return None if a is None or b is None else a / max(b, 1)
