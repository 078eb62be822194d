"""The measurements of `recseg.book.measure_gpu`. Each part yields its cases one by one, the most important first.

A case is a description and a function that measures it. Everything that the function builds is freed when it returns,
so that each case has the whole memory of the device.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recseg.benchmark.networks import CONTESTANTS, build, contestant_config, forward, random_images, random_labels
from recseg.benchmark.networks import voc_lengths as mixed
from recseg.benchmark.parts import update
from recseg.benchmark.timing import interleave, waiter
from recseg.data.readers import default_workers
from recseg.data.stream import batches, count_classes
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.training.config import TrainConfig, resolve
from recseg.training.objective import compute_loss
from recseg.training.train import train, training_data
from recseg.training.trainer import Trainer

Case = tuple[dict[str, Any], Callable[[], dict[str, Any]]]
WAYS = ("contiguous", "channels_last", "compiled", "compiled, reduce-overhead", "CUDA graph")


@dataclass(frozen=True)
class Plan:
    """Where and what to measure.

    Attributes:
        device: to run on.
        out: folder for the training run.
        until: deadline, by `time.monotonic`.
        data: a packed VOC to train on; None: no training, and the loader reads pictograms.
        encoder_weights: to start that training run from.
        encoder: of all networks but the published one.
        sides: of square images, in pixels; the first is measured in each precision.
        batches: batch sizes, likewise.
        precisions: the first is that of all other rows.
        ways: ways to run a network, of `WAYS`.
        rounds: number of rounds of each measurement.
        least: minimum seconds of each round.
    """

    device: torch.device
    out: Path
    until: float
    data: Path | None = None
    encoder_weights: Path | None = None
    encoder: str = "mobilenet_v2"
    sides: tuple[int, ...] = (256, 512)
    batches: tuple[int, ...] = (16, 1, 64, 4, 256)
    precisions: tuple[str, ...] = ("bfloat16", "float32", "tf32", "float16")
    ways: tuple[str, ...] = WAYS
    rounds: int = 3
    least: float = 0.05

    def make(self, name: str, side: int) -> nn.Module:
        return build(name, encoder=self.encoder, side=side, device=self.device)

    def milliseconds(self, act: Callable[[], object]) -> float:
        """Median time per call."""
        (times,) = interleave({"": act}, self.rounds, waiter(self.device), least=self.least).values()
        return round(1000 * sorted(times)[len(times) // 2], 3)


@contextmanager
def arithmetic(precision: str) -> Iterator[torch.dtype | None]:
    """Set up a precision; yields its 16-bit dtype, or None for float32 and TF32 (19-bit factors on tensor cores)."""
    convolutions, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, matmul.allow_tf32
    if precision in ("float32", "tf32"):
        convolutions.allow_tf32 = matmul.allow_tf32 = precision == "tf32"
    try:
        yield {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    finally:
        convolutions.allow_tf32, matmul.allow_tf32 = before


def waits(plan: Plan) -> Iterator[Case]:
    """How often an update of the training loop waits for the GPU, and what share of the time the GPU is busy."""

    def act() -> dict[str, Any]:
        config = TrainConfig(
            "pictograms", steps=1000, size=plan.sides[0], batch_size=plan.batches[0], device=str(plan.device),
            val_split="none", pixels_first=0.0,
        )  # fmt: skip
        config = resolve(replace(config, network=replace(config.network, encoder=plan.encoder)))
        trainer = Trainer(config, training_data(config), plan.out)
        batch = next(batches(trainer.dataset, plan.batches[0], seed=0, pin=plan.device.type == "cuda"))
        trainer.model.train()
        ms = plan.milliseconds(lambda: trainer.update(batch))
        return {"milliseconds": ms, **_waits_of(lambda: trainer.update(batch), plan.device, ms)}

    yield {"network": "recurrent", "side": plan.sides[0], "batch": plan.batches[0]}, act


def _waits_of(act: Callable[[], object], device: torch.device, ms: float) -> dict[str, Any]:
    if device.type != "cuda":
        return {"waits": None, "busy": None}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            act()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with torch.profiler.profile() as profiler:
        act()
        torch.cuda.synchronize()
    kernels = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
    # Annotations of the optimisers' steps span kernels that are also listed on their own.
    working = sum(each.self_device_time_total for each in kernels if not each.is_user_annotation) / 1000
    return {"waits": sum("synchronizing" in str(w.message) for w in caught), "busy": round(min(1.0, working / ms), 3)}


def _grid(plan: Plan) -> Iterator[tuple[int, int, str]]:
    """Side, batch and precision: every precision of the first size, then every size in the first precision."""
    first = (plan.sides[0], plan.batches[0])
    yield from ((*first, precision) for precision in plan.precisions)
    for side in plan.sides:
        for batch in plan.batches:
            if (side, batch) != first:
                yield side, batch, plan.precisions[0]


def training(plan: Plan) -> Iterator[Case]:
    """Milliseconds per update."""
    for side, batch, precision in _grid(plan):
        for name in CONTESTANTS[1:]:

            def act(name: str = name, side: int = side, batch: int = batch, precision: str = precision) -> Any:
                labels = random_labels(mixed(batch), side, 21, plan.device)
                images = random_images(batch, side, plan.device)
                with arithmetic(precision) as kind:
                    return _rate(plan, batch, update(name, plan.make(name, side), images, labels, kind))

            yield {"network": name, "side": side, "batch": batch, "precision": precision}, act


def inference(plan: Plan) -> Iterator[Case]:
    """Milliseconds per forward pass to full-size logits."""
    for side, batch, precision in _grid(plan):
        for name in CONTESTANTS:

            def act(name: str = name, side: int = side, batch: int = batch, precision: str = precision) -> Any:
                images = random_images(batch, side, plan.device)
                with arithmetic(precision) as kind:
                    return _rate(plan, batch, forward(name, plan.make(name, side), images, mixed(batch), kind))

            yield {"network": name, "side": side, "batch": batch, "precision": precision}, act


def _rate(plan: Plan, batch: int, act: Callable[[], object]) -> dict[str, Any]:
    ms = plan.milliseconds(act)
    return {"milliseconds": ms, "images_a_second": round(1000 * batch / ms, 1)}


def ways(plan: Plan) -> Iterator[Case]:
    """Milliseconds per forward pass, by the way it is run. The recurrent network runs two steps."""
    for batch in plan.batches[:2]:
        for name in ("encoder", "recurrent", "dense"):
            for way in plan.ways:

                def act(name: str = name, batch: int = batch, way: str = way) -> dict[str, Any]:
                    with arithmetic(plan.precisions[0]) as kind:
                        return {"milliseconds": plan.milliseconds(_run(plan, name, batch, way, kind))}

                yield {"network": name, "side": plan.sides[0], "batch": batch, "way": way}, act


def two_steps(model: nn.Module, images: Tensor) -> Any:
    """A forward pass whose cost does not depend on the images: a recurrent network runs two steps."""
    if not isinstance(model, RecurrentUNet):
        return model(images)
    features = model.encode(images)
    state, first = model.step(features, model.initial_state(features))
    return first, model.step(features, state)[1]


def _run(plan: Plan, name: str, batch: int, way: str, kind: torch.dtype | None) -> Callable[[], object]:
    model, images = plan.make(name, plan.sides[0]), random_images(batch, plan.sides[0], plan.device)
    if way == "contiguous":
        model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,unused-ignore]
        images = images.contiguous()
    network: Callable[..., Any] = two_steps
    if way.startswith("compiled"):
        torch.compiler.reset()
        network = torch.compile(two_steps, mode="reduce-overhead" if "reduce" in way else "default")

    def act() -> Any:
        with torch.inference_mode(), torch.autocast(plan.device.type, dtype=kind, enabled=kind is not None):
            return network(model, images)

    if way != "CUDA graph":
        return act
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):  # warm up: set-up at the first calls must not be captured
        for _ in range(3):
            act()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        act()
    return graph.replay


def memory(plan: Plan) -> Iterator[Case]:
    """Peak memory of a forward and a backward pass, above the idle model; None where the device does not report it."""
    side, batch = plan.sides[0], plan.batches[0]
    cases = [{"batch": size, "classes": 2} for size in sorted(plan.batches)]
    cases += [{"batch": batch, "classes": count} for count in (1, 3, 5)]
    cases += [{"batch": batch, "classes": 2, "accumulated": 4}, {"batch": batch, "classes": 2, "checkpointed": 1}]
    for case in cases:

        def act(case: dict[str, int] = case) -> dict[str, Any]:
            model = plan.make("recurrent", side).train()
            if case.get("checkpointed"):
                _checkpoint(model.get_submodule("encoder"))
            config = contestant_config("recurrent", pixels_first=0.0)
            labels = random_labels([case["classes"]] * case["batch"], side, 21, plan.device)
            images = random_images(case["batch"], side, plan.device)
            if plan.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                idle = torch.cuda.memory_allocated()
            with arithmetic(plan.precisions[0]) as kind:
                for part in torch.arange(case["batch"]).chunk(case.get("accumulated", 1)):
                    rows = slice(int(part[0]), int(part[-1]) + 1)
                    with torch.autocast(plan.device.type, dtype=kind, enabled=kind is not None):
                        share = images[rows], labels[rows], count_classes(labels[rows])
                        terms = compute_loss(model, *share, config)  # type: ignore[arg-type]
                    terms["loss"].backward()
            return {"peak_bytes": torch.cuda.max_memory_allocated() - idle if plan.device.type == "cuda" else None}

        yield {"network": "recurrent", "side": side, **case}, act


def _checkpoint(encoder: nn.Module) -> None:
    """Gradient checkpointing: keep only the encoder's input, and recompute its maps in the backward pass."""
    whole = encoder.forward
    encoder.forward = lambda images: checkpoint(whole, images, use_reentrant=False)


def loader(plan: Plan) -> Iterator[Case]:
    """Crops per second of the loader, to compare with the images per second of `training`: the smaller one decides."""
    for workers in dict.fromkeys((default_workers(), 0)):

        def act(workers: int = workers) -> dict[str, Any]:
            name = "pictograms" if plan.data is None else str(plan.data)
            config = resolve(TrainConfig(name, steps=1, size=plan.sides[0], scale=(0.75, 2.0)))
            stream = batches(training_data(config), plan.batches[0], seed=0, workers=workers)
            next(stream)  # wait for the workers to start
            count, started = 0, time.monotonic()
            while not count or count < 200 and time.monotonic() - started < 60 * plan.least:
                next(stream)
                count += 1
            return {"crops_a_second": round(count * plan.batches[0] / (time.monotonic() - started), 1)}

        yield {"data": "pictograms" if plan.data is None else "pack", "workers": workers}, act


def recipe(plan: Plan) -> Iterator[Case]:
    """Train the published recipe in the remaining time; the weights stay in the folder `run`."""
    if plan.data is None:
        return

    def act() -> dict[str, Any]:
        minutes = (plan.until - time.monotonic() - 15) / 60  # 15 seconds to write
        weights = None if plan.encoder_weights is None else str(plan.encoder_weights)
        config = TrainConfig(str(plan.data), minutes=max(minutes, 0.01), device=str(plan.device), val_split="none")
        config = replace(config, network=replace(config.network, encoder=plan.encoder), encoder_weights=weights)
        config = resolve(config)
        train(config, plan.out / "run", progress=False)
        last = json.loads((plan.out / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        rate = last["step"] * (config.batch_size or 0) / last["seconds"]
        return {"updates": last["step"], "seconds": last["seconds"], "images_a_second": round(rate, 1)}

    yield {"network": "recurrent", "data": plan.data.name, "encoder": plan.encoder}, act


# The most important part first; each with its share of the time, the last with all the remaining time.
PARTS: dict[str, tuple[Callable[[Plan], Iterator[Case]], float]] = {
    "waits": (waits, 0.08),
    "training": (training, 0.2),
    "inference": (inference, 0.15),
    "loader": (loader, 0.06),
    "memory": (memory, 0.08),
    "ways": (ways, 0.2),
    "recipe": (recipe, 1.0),
}
