"""The parts of the benchmark: each measures one aspect of all contestants against its targets."""

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
from recseg.benchmark.timing import Ratio, interleave, ratio, waiter, weighted
from recseg.data.stream import count_classes
from recseg.devices import choose_precision, depthwise_in_float32, precision_name
from recseg.models.model import SegmentationModel
from recseg.training.objective import compute_loss
from recseg.training.optim import make_optimisers, parameter_groups

COUNTS = range(1, len(VOC_MIX) + 1)


@dataclass(frozen=True)
class Setting:
    """Settings of a measurement.

    Attributes:
        device: to run on.
        side: of the square images, in pixels.
        rounds: see `timing.interleave`.
        encoder: of all but the published network.
        reference: a file to compare exported networks with (`recseg.benchmark.deployed`).
        progress: called after each measurement.
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
    """A measured value and its target.

    Attributes:
        what: what is measured.
        value: None if it was not measured here.
        bound: the target: a maximum, or without `at_most` a minimum.
        tells: what a user learns from it.
        spread: range over the rounds.
    """

    what: str
    value: float | None
    bound: float
    tells: str
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
            "spread": spread, "tells": self.tells,
        }  # fmt: skip


Found = tuple[dict[str, Any], list[Bar]]


def bar_of(what: str, found: Ratio, bound: float, tells: str, at_most: bool = True) -> Bar:
    """The bar for a ratio measured in rounds."""
    return Bar(what, found.median, bound, tells, at_most, found)


def precisions(device: torch.device) -> dict[str, torch.dtype | None]:
    """32 bits, and 16 if the hardware is fast at them."""
    short = choose_precision("auto", device)
    return {precision_name(precision): precision for precision in (None, short)}


def inference(setting: Setting) -> Found:
    """One forward pass to full-size logits: batch 1 with one to five classes, and a batch of 16 distributed as VOC."""
    models = {name: setting.make(name) for name in contestants(setting.side) if name != "encoder"}
    lengths = voc_lengths(16)
    one, many = (random_images(batch, setting.side, setting.device) for batch in (1, 16))
    result: dict[str, Any] = {}
    bars: list[Bar] = []
    for kind, precision in precisions(setting.device).items():
        acts = {f"recurrent {n}": forward("recurrent", models["recurrent"], one, [n], precision) for n in COUNTS}
        acts |= {name: forward(name, models[name], one, [1], precision) for name in models if name != "recurrent"}
        times = setting.times(acts)
        mixed = weighted([times[f"recurrent {n}"] for n in COUNTS], VOC_MIX)
        big = {name: forward(name, models[name], many, lengths, precision) for name in ("dense", "recurrent")}
        times_16 = setting.times(big)
        result[kind] = {
            "batch_1": as_milliseconds(times | {"recurrent, VOC's mix": mixed}),
            "batch_16": as_milliseconds(times_16),
        }
        for batch, found in ((1, ratio(mixed, times["dense"])), (16, ratio(times_16["recurrent"], times_16["dense"]))):
            what = f"inference time, recurrent ÷ dense, {kind}, batch {batch}"
            bars.append(bar_of(what, found, 1.05, "what it costs to name the classes instead of mapping all of them"))
        if precision is None and setting.device.type == "cpu" and "published" in models:
            what, tells = "inference time, published ÷ recurrent, batch 1", "what decoding anew at each step costs"
            bars.append(bar_of(what, ratio(times["published"], mixed), 30, tells, at_most=False))
    result["output_bytes_batch_16"] = {
        name: output_bytes(forward(name, models[name], many, lengths)()) for name in ("dense", "recurrent")
    }
    return result, bars


def training(setting: Setting) -> Found:
    """One update of a batch of 16: forward, losses, backward, optimisers."""
    precision, lengths = choose_precision("auto", setting.device), voc_lengths(16)
    images = random_images(16, setting.side, setting.device)
    labels = random_labels(lengths, setting.side, 21, setting.device)
    acts = {name: update(name, setting.make(name), images, labels, precision) for name in ("dense", "recurrent")}
    times = setting.times(acts, rounds=min(3, setting.rounds))
    found = ratio(times["recurrent"], times["dense"])
    tells = "how much longer a training of as many updates takes"
    bars = [bar_of("time of an update, recurrent ÷ dense, batch 16", found, 1.2, tells)]
    return {"precision": precision_name(precision), "batch_16": as_milliseconds(times)}, bars


def classes(setting: Setting) -> Found:
    """The effect of the size of the label set, at batch 1 and two classes per image: time and peak memory.

    The time of a dense network of 1,000 classes is not compared: on a CPU it depends on how the C library keeps freed
    memory (chapter 14 says how to set that).
    """
    image, numbers = random_images(1, setting.side, setting.device), (21, 10000)
    acts = {f"recurrent {k}": forward("recurrent", setting.make("recurrent", k), image, [2]) for k in numbers}
    times = setting.times(acts)
    memory = {f"{name} 1000": _memory(setting, name, batch=1, num_classes=1000) for name in ("dense", "recurrent")}
    dense, recurrent = memory["dense 1000"], memory["recurrent 1000"]
    share = None if dense is None or recurrent is None else dense / max(1, recurrent)
    found = ratio(times["recurrent 10000"], times["recurrent 21"])
    bars = [
        bar_of("time, recurrent, 10,000 ÷ 21 classes", found, 1.2, "whether more classes in the label set cost time"),
        Bar("memory, dense ÷ recurrent, 1,000 classes", share, 10, "which network a large label set asks for", False),
    ]
    return {"milliseconds": as_milliseconds(times), "peak_bytes": memory}, bars


def update(
    name: str, model: nn.Module, images: Tensor, labels: Tensor, precision: torch.dtype | None = None
) -> Callable[[], object]:
    """One update of the weights as in `recseg.training.trainer`, as a function to time."""
    config = contestant_config(name, pixels_first=0.0)
    assert config.optimiser is not None and isinstance(model, SegmentationModel)
    optimisers = make_optimisers(config.optimiser, parameter_groups(model, 1e-6, 1e-6, 0.0))
    model.train()
    if images.device.type == "cpu" and precision is not None:
        depthwise_in_float32(model)
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
    """Median of the rounds; meaningful only in comparison: see `timing`."""
    return {name: round(1000 * sorted(found)[len(found) // 2], 3) for name, found in times.items()}


def _memory(setting: Setting, name: str, *, batch: int, num_classes: int) -> int | None:
    setting.progress()
    return peak_bytes(
        name, device=str(setting.device), batch=batch, side=setting.side, num_classes=num_classes,
        encoder=setting.encoder, threads=torch.get_num_threads(),
    )  # fmt: skip
