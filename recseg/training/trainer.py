"""The training loop, from top to bottom as a reader would write it.

Chapter 7 of the book explains this file. A run is a folder: `config.json` (what was asked for), `log.jsonl` (a line
every few steps), `checkpoint.safetensors` (to go on from), `weights.safetensors` (the averaged model, to predict
with), and `skipped.json` where pictures could not be read and the run was told to go on without them.
"""

import contextlib
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from tqdm import tqdm

from recseg.classes import VOC_CLASSES
from recseg.data import open_train
from recseg.data.folder import SegmentationFolder
from recseg.data.readers import Readers, default_workers
from recseg.data.stream import Batch, batches, count_classes
from recseg.data.transforms import train_transform
from recseg.devices import choose_device as choose_device
from recseg.devices import choose_precision as choose_precision
from recseg.devices import precision_name as precision_name
from recseg.distributed import (
    average_gradients,
    collect,
    largest,
    main_first,
    mean,
    process_group,
    rank,
    same_start,
    share,
    synchronise_norms,
    world_size,
)
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.training.bad_samples import suspects
from recseg.training.checkpoint import load_state, save_state
from recseg.training.config import TrainConfig as TrainConfig
from recseg.training.config import build_model, load_config, resolve, save_config
from recseg.training.objective import loss_of as loss_of
from recseg.training.optim import (
    ExponentialMovingAverage,
    make_optimisers,
    parameter_groups,
    schedule,
    set_learning_rate,
)
from recseg.training.run_folder import Interrupts, Log, claimed, open_log
from recseg.weights.io import save_weights

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
        trainer.check_batch()
        if rank() == 0:
            save_config(out / "config.json", trainer.config)
        return trainer.run(progress)


def resume(run: Path | str, *, progress: bool = True, on_bad_image: str | None = None) -> Path:
    """Go on with a run that was interrupted, exactly as if it had not been (with as many processes as before).

    Args:
        run: its folder.
        progress: show a bar.
        on_bad_image: "skip" or "stop" from now on; None: as the run began.
    """
    run = Path(run)
    config = load_config(run / "config.json")
    with process_group(config.device) as device:
        if on_bad_image not in (None, config.on_bad_image):
            config = replace(config, on_bad_image=on_bad_image)
            if rank() == 0:
                save_config(run / "config.json", config)
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


class Trainer:
    """State of a run between two steps: the models, the optimisers, and how far it got."""

    def __init__(self, config: TrainConfig, dataset: SegmentationFolder, out: Path) -> None:
        self.config, self.dataset, self.out = config, dataset, out
        self.skip = config.on_bad_image == "skip"
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.amp, self.device, config.size or 0)
        torch.manual_seed(config.seed)
        limit = config.max_steps
        if limit is None:
            limit = 5 if dataset.classes == VOC_CLASSES else max(1, dataset.most_classes(skip=self.skip))
        network = replace(config.network, num_classes=dataset.num_classes, max_steps=limit)
        self.config = config = replace(config, network=network)
        self.model: Any = build_model(config)
        if world_size() > 1 and self.device.type == "cuda":  # on CPUs each process norms its own share
            self.model = synchronise_norms(self.model)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]  # what convolutions run fastest in
        same_start(self.model)
        tenth = 0.1 if config.encoder_weights or config.pretrained else 1.0
        assert config.lr is not None and config.optimiser is not None  # resolved
        groups = parameter_groups(self.model, config.lr, tenth * config.lr, config.weight_decay)
        self.optimisers = make_optimisers(config.optimiser, groups)
        self.scaler = GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.average = ExponentialMovingAverage(self.model, config.ema)
        self.step, self.seconds = 0, 0.0
        self.skipped: dict[str, str] = {}  # id → why
        self.norm, self.ids = torch.zeros((), device=self.device), [""]  # of the last update's gradient; its pictures

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
        self.check_batch()
        main = rank() == 0
        workers = config.workers if config.workers is not None else default_workers()
        readers = Readers(workers, self.dataset.ids)
        stream = batches(
            self.dataset, config.batch_size, seed=config.seed, start=self.step, workers=workers,
            pin=self.device.type == "cuda", part=share(config.batch_size), skip=self.skip, readers=readers,
        )  # fmt: skip
        desc, shown = f"train {config.model}", progress and main
        bar = tqdm(total=config.steps, initial=self.step, unit="step", disable=not shown, desc=desc)
        saved = time.monotonic()
        claim = claimed(self.out) if main else contextlib.nullcontext()
        log_file = open_log(self.out / "log.jsonl", self.step) if main else contextlib.nullcontext()
        with Interrupts() as interrupts, bar, readers.named(), claim, log_file as log:
            self.model.train()
            while self.done() < 1 and (until is None or self.step < until):
                started = time.monotonic()
                try:
                    batch = next(stream)
                except (
                    RecsegError,
                    RuntimeError,
                ):  # of a picture or its reader: the state is whole
                    if self.step:
                        self.save(log)
                    raise
                terms = self.update(batch)
                # All processes end together, whoever's clock or terminal says so.
                self.seconds, asked, passed = largest(
                    self.seconds + time.monotonic() - started, float(interrupts.asked), float(len(batch.skipped))
                )
                for others in collect(batch.skipped) if passed else ():
                    self.skipped |= others
                self.step += 1
                bar.update()
                if self.step % LOG_EVERY == 0 or self.done() >= 1:
                    self._write(log, terms, bar)
                if asked or time.monotonic() - saved > config.checkpoint_seconds:
                    self.save(log)
                    saved = time.monotonic()
                if asked:
                    raise KeyboardInterrupt(f"stopped after step {self.step}; go on with --resume {self.out}")
            self.save(log)
        return self.out / "weights.safetensors"

    def check_batch(self) -> None:
        """Refuse a batch that has fewer pictures than processes, or too few numbers for a norm."""
        batch_size, size = self.config.batch_size or 0, self.config.size or 0
        if batch_size < world_size():
            raise RecsegError(f"batch_size {batch_size}: expected one for each of {world_size()} processes")
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
        try:
            with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
                terms = loss_of(self.model, images, labels, batch.lengths, config, self.done())
            if not bool(terms["loss"].isfinite() & self.norm.isfinite()):  # one wait for a GPU, not two
                raise RecsegError(f"the loss is not finite; expected a lower --lr than {config.lr}")
        except RecsegError as error:
            self.check_gradient()  # which may be what is to blame

            def alone(image: Tensor, label: Tensor) -> Tensor:
                lengths = count_classes(label)
                return loss_of(self.average.model, image, label, lengths, config, self.done())["loss"]

            who = suspects(alone, images, labels, batch.ids)
            raise RecsegError(f"step {self.step}: {error} ({who})") from error
        self.model.zero_grad(set_to_none=True)
        self.scaler.scale(terms["loss"]).backward()  # type: ignore[no-untyped-call]
        average_gradients(self.model.parameters())
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if not self.scaler.is_enabled():  # it looks by itself, and leaves such a step out
            self.norm, self.ids = norm, batch.ids
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        self.average.update(self.model, self.step)
        return {name: value.detach() for name, value in terms.items()}

    def check_gradient(self) -> None:
        """Refuse weights whose last gradient was not finite: they are to replace no checkpoint."""
        if not bool(self.norm.isfinite()):
            raise RecsegError(
                f"step {self.step - 1}: the gradient is not finite; expected a lower --lr than {self.config.lr} "
                f"(one of the pictures {', '.join(self.ids)})"
            )

    def save(self, log: Log | None = None) -> None:
        """Write the checkpoint and the averaged weights; the first process does."""
        if rank() > 0:
            return
        self.check_gradient()
        if log is not None:
            log.sync()
        progress: dict[str, Any] = {"step": self.step, "seconds": self.seconds}
        if self.skipped:
            with atomic_write(self.out / "skipped.json") as temporary:
                temporary.write_text(json.dumps(self.skipped, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        path = self.out / "checkpoint.safetensors"
        state = progress | {"skipped": self.skipped}
        save_state(path, self.model, self.average.model, self.optimisers, self.scaler, state)
        assert self.config.image_size is not None
        config = {name: value for name, value in asdict(self.config).items() if value is not None}
        if self.config.encoder_weights is not None:  # its name is a fact, its place is nobody's business
            config["encoder_weights"] = Path(self.config.encoder_weights).name
        bits = precision_name(self.precision)
        about = config | {"split": self.dataset.split, "threads": torch.get_num_threads(), "precision": bits} | progress
        if self.skipped:
            about["skipped"] = list(self.skipped)
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
        self.skipped = progress.get("skipped", {})

    def _write(self, log: Log | None, terms: dict[str, Tensor], bar: "tqdm[Any]") -> None:
        means = mean(*(value.item() for value in terms.values()))
        if log is None:
            return
        values = {name: round(value, 5) for name, value in zip(terms, means, strict=True)}
        entry = {"step": self.step, "seconds": round(self.seconds, 2), "lr": self.optimisers[0].param_groups[0]["lr"]}
        log.write(entry | values)
        left = f"{100 * min(1.0, self.done()):.0f} %" if self.config.steps is None else None
        bar.set_postfix({"loss": f"{values['loss']:.3f}"} | ({"done": left} if left else {}))
