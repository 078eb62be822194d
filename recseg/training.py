"""The training loop, from top to bottom as a reader would write it.

Chapter 7 of the book explains this file. A run is a folder: `config.json` (what was asked for), `log.jsonl` (a line
every few steps), `checkpoint.safetensors` (to go on from), `weights.safetensors` (the averaged model, to predict
with).
"""

import contextlib
import json
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from tqdm import tqdm

from recseg.checkpoints import save_weights
from recseg.classes import VOC_CLASSES
from recseg.data import open_train
from recseg.data.folder import SegmentationFolder
from recseg.data.stream import Batch, batches
from recseg.data.transforms import train_transform
from recseg.distributed import (
    average_gradients,
    largest,
    main_first,
    mean,
    process_group,
    rank,
    same_start,
    share,
    world_size,
)
from recseg.errors import RecsegError
from recseg.losses import dense_loss, recurrent_loss
from recseg.optimisation import ExponentialMovingAverage, make_optimisers, parameter_groups, schedule, set_learning_rate
from recseg.run_folder import Interrupts, open_log
from recseg.targets import class_areas, to_sequence
from recseg.training_config import TrainConfig as TrainConfig
from recseg.training_config import build_model, load_config, resolve, save_config
from recseg.training_state import load_state, save_state

LOG_EVERY = 20  # steps


def train(config: TrainConfig, out: Path | str, *, progress: bool = True) -> Path:
    """Train a model from the start; started by `torchrun`, together with the other processes (`recseg.distributed`).

    Args:
        config: what to train; open choices are filled in and stored.
        out: folder of the run; new or empty.
        progress: show a bar.

    Returns:
        The weights to predict with, `out/weights.safetensors`.

    Raises:
        RecsegError: bad data or configuration, a folder in use, or a loss that is not finite.
    """
    out = Path(out)
    with process_group(config.device) as device:
        if rank() == 0 and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RecsegError(f"{out}: exists and is not empty; expected a new folder, or --resume {out} to go on")
        config = resolve(replace(config, device=device))
        with main_first():
            dataset = training_data(config)  # before the folder is made: bad data leaves no trace
        trainer = Trainer(config, dataset, out)
        if rank() == 0:
            save_config(out / "config.json", trainer.config)
        return trainer.run(progress)


def resume(run: Path | str, *, progress: bool = True) -> Path:
    """Go on with a run that was interrupted, exactly as if it had not been (with as many processes as before)."""
    run = Path(run)
    config = load_config(run / "config.json")
    with process_group(config.device) as device:
        config = replace(config, device=device)
        with main_first():
            dataset = training_data(config)
        trainer = Trainer(config, dataset, run)
        if (run / "checkpoint.safetensors").exists():
            trainer.restore()
        return trainer.run(progress)


def training_data(config: TrainConfig) -> SegmentationFolder:
    """The split to train on, with its augmentation."""
    assert config.size is not None and config.scale is not None  # resolved
    return open_train(config.data, config.split, transform=train_transform(config.size, scale=config.scale))


def choose_device(name: str | None) -> torch.device:
    """A device by name, or the fastest there is."""
    if name is not None:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise RecsegError(f"device {name!r}: not available here") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(amp: str, device: torch.device, size: int = 256) -> torch.dtype | None:
    """The 16-bit type to compute in, or None for 32 bits: 16 bits only pay where the hardware has them.

    "auto" leaves crops below 64 pixels at 32 bits on a CPU: there PyTorch 2.11's gradients in 16 bits were seen to hold
    memory that nobody had set, for maps of a single cell.
    """
    if amp == "off":
        return None
    if amp == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        capable = device.type == "cpu" and size >= 64 and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if capable else None
    return torch.bfloat16 if amp == "bf16" else torch.float16


def loss_of(model: Any, images: Tensor, labels: Tensor, config: TrainConfig, done: float = 1.0) -> dict[str, Tensor]:
    """Loss terms of a batch: images (B, 3, S, S) in [0, 1], labels (B, S, S); `done`: share of the budget used."""
    assert config.pixels_first is not None  # resolved
    pixels_only = model.kind == "recurrent" and config.head == "embedding" and done < config.pixels_first
    if model.kind == "dense" or pixels_only:
        return dense_loss(model.pixel_logits(images), labels)
    if model.kind == "published":
        from recseg.published import published_loss

        masks, classes = model.forward_all(images)
        sequence = to_sequence(labels, model.max_steps, num_classes=model.num_classes, order="class")
        return published_loss(masks, classes, sequence.masks, sequence.classes, sequence.lengths)
    present = (class_areas(labels, model.num_classes)[:, 1:] > 0).sum(dim=1)  # (B,)
    lengths = present.clamp(max=model.max_steps)
    output = model(images, lengths)
    if config.auxiliary == "none":
        output = output._replace(pixels=None)
    return recurrent_loss(output, labels, num_classes=model.num_classes, max_steps=model.max_steps, order=config.order)


def precision_name(precision: torch.dtype | None) -> str:
    """What `choose_precision` chose, in words: "float32", "bfloat16" or "float16"."""
    return str(precision or torch.float32).removeprefix("torch.")


class Trainer:
    """State of a run between two steps: the models, the optimisers, and how far it got."""

    def __init__(self, config: TrainConfig, dataset: SegmentationFolder, out: Path) -> None:
        self.config, self.dataset, self.out = config, dataset, out
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.amp, self.device, config.size or 0)
        torch.manual_seed(config.seed)
        limit = config.max_steps
        if limit is None:
            limit = 5 if dataset.classes == VOC_CLASSES else max(1, dataset.max_classes_per_image)
        self.model: Any = build_model(config, dataset.classes, limit)
        if world_size() > 1 and self.device.type == "cuda":  # on CPUs each process norms its own share
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]  # what convolutions run fastest in
        same_start(self.model)
        tenth = 0.1 if config.encoder_weights or config.pretrained else 1.0
        assert config.lr is not None and config.optimiser is not None  # resolved
        groups = parameter_groups(self.model, config.lr, tenth * config.lr, config.weight_decay)
        self.optimisers = make_optimisers(config.optimiser, groups)
        self.scaler = GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.average = ExponentialMovingAverage(self.model, config.ema)
        self.step, self.seconds = 0, 0.0

    def done(self) -> float:
        """Share of the budget that is used up."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        assert self.config.minutes is not None
        return self.seconds / (60 * self.config.minutes)

    def run(self, progress: bool = True, until: int | None = None) -> Path:
        """Train until the budget is used up, or pause after step `until`; returns the path of the weights."""
        config = self.config
        assert config.batch_size is not None
        self._check_batch(config.batch_size)
        main = rank() == 0
        workers = config.workers if config.workers is not None else _default_workers()
        stream = batches(
            self.dataset, config.batch_size, seed=config.seed, start=self.step, workers=workers,
            pin=self.device.type == "cuda", part=share(config.batch_size),
        )  # fmt: skip
        total = config.steps
        desc, shown = f"train {config.model}", progress and main
        bar = tqdm(total=total, initial=self.step, unit="step", disable=not shown, desc=desc)
        saved = time.monotonic()
        log_file = open_log(self.out / "log.jsonl", self.step) if main else contextlib.nullcontext()
        with Interrupts() as interrupts, bar, log_file as log:
            self.model.train()
            while self.done() < 1 and (until is None or self.step < until):
                started = time.monotonic()
                terms = self.update(next(stream))
                # All processes end together, whoever's clock or terminal says so.
                self.seconds, asked = largest(self.seconds + time.monotonic() - started, float(interrupts.asked))
                self.step += 1
                bar.update()
                if self.step % LOG_EVERY == 0 or self.done() >= 1:
                    self._write(log, terms, bar)
                if asked or time.monotonic() - saved > config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                if asked:
                    raise KeyboardInterrupt(f"stopped after step {self.step}; go on with --resume {self.out}")
            self.save()
        return self.out / "weights.safetensors"

    def _check_batch(self, batch_size: int) -> None:
        if batch_size < world_size():
            raise RecsegError(f"batch_size {batch_size}: expected one for each of {world_size()} processes")
        size = self.config.size or 0
        cells = math.ceil(size / self.model.encoder.strides[-1]) if hasattr(self.model, "encoder") else 2
        if len(share(batch_size)) * cells**2 < 2:  # a norm over one number has no variance
            raise RecsegError(
                f"batch_size {batch_size} with size {size}: too small for the norms, expected more of one"
            )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of gradient descent; returns the terms of the loss."""
        config = self.config
        images = batch.images.to(self.device, non_blocking=True).float() / 255  # (B, 3, S, S) in [0, 1]
        images = images.contiguous(memory_format=torch.channels_last)
        labels = batch.labels.to(self.device, non_blocking=True)  # (B, S, S)
        factor = schedule(self.step, self.done(), warmup=config.warmup)
        set_learning_rate(self.optimisers, factor)
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            terms = loss_of(self.model, images, labels, config, self.done())
        if not bool(terms["loss"].isfinite()):
            raise RecsegError(
                f"step {self.step}: the loss is not finite; expected a lower --lr than {config.lr} "
                f"(images {', '.join(batch.ids[:4])}, …)"
            )
        self.model.zero_grad(set_to_none=True)
        self.scaler.scale(terms["loss"]).backward()  # type: ignore[no-untyped-call]
        average_gradients(self.model.parameters())
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        self.average.update(self.model, self.step)
        return {name: value.detach() for name, value in terms.items()}

    def save(self) -> None:
        """Write the checkpoint and the averaged weights; the first process does."""
        if rank() > 0:
            return
        progress = {"step": self.step, "seconds": self.seconds}
        save_state(
            self.out / "checkpoint.safetensors", self.model, self.average.model, self.optimisers, self.scaler, progress
        )
        assert self.config.image_size is not None
        config = {name: value for name, value in asdict(self.config).items() if value is not None}
        if self.config.encoder_weights is not None:  # its name is a fact, its place is nobody's business
            config["encoder_weights"] = Path(self.config.encoder_weights).name
        bits = precision_name(self.precision)
        about = config | {"split": self.dataset.split, "threads": torch.get_num_threads(), "precision": bits} | progress
        save_weights(
            self.out / "weights.safetensors",
            self.average.model,
            classes=self.dataset.classes,
            image_size=self.config.image_size,
            metadata=about,
        )

    def restore(self) -> None:
        """Put the last checkpoint back in place."""
        path = self.out / "checkpoint.safetensors"
        progress = load_state(path, self.model, self.average.model, self.optimisers, self.scaler)
        self.step, self.seconds = progress["step"], progress["seconds"]

    def _write(self, log: Any, terms: dict[str, Tensor], bar: "tqdm[Any]") -> None:
        means = mean(*(value.item() for value in terms.values()))
        if log is None:
            return
        values = {name: round(value, 5) for name, value in zip(terms, means, strict=True)}
        entry = {"step": self.step, "seconds": round(self.seconds, 2), "lr": self.optimisers[0].param_groups[0]["lr"]}
        log.write(json.dumps(entry | values) + "\n")
        log.flush()
        left = f"{100 * min(1.0, self.done()):.0f} %" if self.config.steps is None else None
        bar.set_postfix({"loss": f"{values['loss']:.3f}"} | ({"done": left} if left else {}))


def _default_workers() -> int:
    """Readers beside the training: few, since on a CPU they take what the training needs."""
    cores = os.cpu_count() or 1
    return min(8, cores // 2) if torch.cuda.is_available() else min(2, cores // 2)
