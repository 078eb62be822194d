"""The training loop.

Chapter 7 of the book explains this file. A run is a folder:

- `config.json`: the configuration;
- `log.jsonl`: a line every few updates, and one for each validation;
- `checkpoint.safetensors`: to resume from;
- `weights.safetensors`: the averaged network after the last update, for inference and for publication;
- `best.safetensors`: the averaged network with the highest validation mIoU. It was chosen on the validation images, so
  its score on them is biased upwards: to report a score on those images, use `weights.safetensors`;
- `skipped.json`: images that could not be read and were skipped (`--on-bad-image skip`).
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from recseg.data.folder import SegmentationFolder
from recseg.data.stream import Batch
from recseg.devices import choose_device, choose_precision, compile_parts, depthwise_in_float32, precision_name
from recseg.distributed import all_gather, all_reduce_max, data_parallel, mean, rank, synchronise_norms, world_size
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.models.model import SegmentationModel
from recseg.training.checkpoint import load_state, save_average, save_state
from recseg.training.config import TrainConfig, build_model, check_batch, network_for, used_up
from recseg.training.initial import start_from
from recseg.training.objective import Objective
from recseg.training.optim import averaged_model, make_optimisers, parameter_groups, schedule, set_learning_rate
from recseg.training.run_folder import BEST, CHECKPOINT, LAST, Log, check_tensorboard
from recseg.training.same_data import check_same_data, describe
from recseg.training.session import Session, open_session
from recseg.training.validation import NONE, Validation

LOG_EVERY = 20  # updates


class Trainer:
    """State of a run between two updates: the models, the optimisers and the progress so far.

    Args:
        config: what to train, resolved.
        dataset: the training images, with their augmentation.
        out: folder of the run.
        held_out: the validation images, without a transform; None: no validation.
        build: builds the network from a configuration; by default `build_model`.
        start: load the weights that the network starts from; not needed to resume: the checkpoint has all weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: SegmentationFolder,
        out: Path,
        held_out: SegmentationFolder | None = None,
        build: Callable[[TrainConfig], SegmentationModel] | None = None,
        start: bool = True,
    ) -> None:
        self.dataset, self.out = dataset, out
        if config.tensorboard:
            check_tensorboard()
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.amp, self.device, config.size or 0)
        torch.manual_seed(config.seed)
        split = NONE if held_out is None else held_out.split
        config = replace(config, network=network_for(config, dataset), split=dataset.split, val_split=split)
        self.config, self.data = config, describe(dataset, held_out, config.network.max_steps)
        self.validation = Validation(config, held_out)
        self.model = build(config) if build else build_model(config, start=start)
        self.model.classes = dataset.classes
        self.notes: list[str] = []  # lines to print
        if config.init and start:
            self.notes.append(f"init {config.init}: {start_from(self.model, config.init)}")
        check_batch(config, self.model)
        if world_size() > 1 and self.device.type == "cuda":  # on CPUs each process normalises its own shard
            synchronise_norms(self.model)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]  # the fastest layout for convolutions
        if self.device.type == "cpu" and self.precision is not None:
            depthwise_in_float32(self.model)
        if config.compile:
            compile_parts(self.model)
        self.objective = data_parallel(Objective(self.model, config))
        assert config.lr is not None and config.optimiser is not None  # resolved
        encoder_lr = 0.1 * config.lr if config.has_pretrained_encoder else config.lr
        groups = parameter_groups(self.model, config.lr, encoder_lr, config.weight_decay)
        self.optimisers = make_optimisers(config.optimiser, groups)
        self.scaler = GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.average = averaged_model(self.model, config.ema)
        self.step, self.seconds = 0, 0.0
        self.skipped: dict[str, str] = {}  # id → reason
        self.norm, self.ids = torch.zeros((), device=self.device), [""]  # of the last update's gradient; its images
        self.phase: Literal["rest", "loss", "update", "save"] = "rest"  # "rest": the state is consistent
        self.batch: Batch | None = None  # of the current update

    @property
    def averaged(self) -> SegmentationModel:
        """The averaged network, which is scored, saved and published."""
        assert isinstance(self.average.module, SegmentationModel)
        return self.average.module

    def run(self, progress: bool = True, until: int | None = None) -> Path:
        """Train until the budget is used up, or pause after update `until`; returns the path of the weights."""
        with open_session(self, progress) as session:  # handles errors and Ctrl-C
            self.model.train()
            self.validate(session)  # if the run was interrupted just before one
            while self.done() < 1 and (until is None or self.step < until) and not session.stopping:
                started = time.monotonic()
                batch = next(session.stream)
                terms = self.update(batch)
                self.count(session, batch, time.monotonic() - started)
                if self.step % LOG_EVERY == 0 or self.done() >= 1:
                    self._write(session, terms)
                self.validate(session)
                if session.checkpoint_due():
                    self.save(session.log)
            self.save(session.log)
        return self.out / LAST

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the weights; returns the terms of the loss."""
        self.phase, self.batch = "loss", batch
        set_learning_rate(self.optimisers, schedule(self.step, self.done(), warmup=self.config.warmup))
        images, labels = self.on_device(batch)
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            terms = self.objective(images, labels, batch.lengths, self.done())
        if not bool(terms["loss"].isfinite() & self.norm.isfinite()):  # one GPU sync, not two
            raise RecsegError(f"the loss is not finite; expected a lower --lr than {self.config.lr}")
        self.phase = "update"
        self.model.zero_grad(set_to_none=True)
        self.scaler.scale(terms["loss"]).backward()
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not self.scaler.is_enabled():  # the scaler checks this itself, and skips such updates
            self.norm, self.ids = norm, batch.ids
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        self.average.update_parameters(self.model)
        return {name: value.detach() for name, value in terms.items()}

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) in [0, 1] and labels (B, S, S), on the device."""
        images = batch.images.to(self.device, non_blocking=True).float() / 255
        return images.contiguous(memory_format=torch.channels_last), batch.labels.to(self.device, non_blocking=True)

    def count(self, session: Session, batch: Batch, seconds: float) -> None:
        """Count an update. All processes stop together, whichever of them runs out of time or is interrupted."""
        self.seconds, asked, passed = all_reduce_max(
            self.seconds + seconds, float(session.interrupts.asked), float(len(batch.skipped))
        )
        for others in all_gather(batch.skipped) if passed else ():
            self.skipped |= others
        self.step += 1
        self.phase, session.stopping = "rest", bool(asked)
        session.bar.update()

    def done(self) -> float:
        """Share of the budget that is used up; validations and checkpoints do not count."""
        return used_up(self.config, self.step, self.seconds)

    def _write(self, session: Session, terms: dict[str, Tensor]) -> None:
        self.phase = "save"
        means = mean(*torch.stack(list(terms.values())).tolist())  # one GPU sync
        session.write(self, dict(zip(terms, means, strict=True)))
        self.phase = "rest"

    def validate(self, session: Session) -> None:
        """If a validation is due, score the averaged network on held-out images, and keep the best weights."""
        if not self.validation.due(self.step, self.done()):
            return
        self.check_gradient()
        found, best = self.validation.run(self.averaged, self.step, self.done())
        self.phase = "save"
        if best and rank() == 0:
            self.save_average(BEST, validation=found)
        session.write_validation(self, found)
        self.phase = "rest"

    def save(self, log: Log | None = None) -> None:
        """Write the checkpoint and the averaged weights (first process only)."""
        if rank() > 0:
            return
        self.phase = "save"
        self.check_gradient()
        if log is not None:
            log.sync()
        if self.skipped:
            with atomic_write(self.out / "skipped.json") as temporary:
                temporary.write_text(json.dumps(self.skipped, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        progress = {"step": self.step, "seconds": self.seconds, "skipped": self.skipped}
        progress |= {"validation": self.validation.state(), "data": self.data}
        save_state(self.out / CHECKPOINT, self.model, self.averaged, self.optimisers, self.scaler, progress)
        self.save_average(LAST)
        self.phase = "rest"

    def save_average(self, name: str, **more: Any) -> None:
        """Write the averaged weights, with metadata."""
        about = {"precision": precision_name(self.precision), "step": self.step, "seconds": self.seconds} | more
        if self.skipped:
            about["skipped"] = list(self.skipped)[:1000]  # all are in skipped.json; metadata stay small
        save_average(self.out / name, self.averaged, self.config, self.dataset, **about)

    def restore(self) -> None:
        """Restore the last checkpoint."""
        progress = load_state(
            self.out / CHECKPOINT, self.model, self.averaged, self.optimisers, self.scaler,
            check=lambda progress: check_same_data(progress["data"], self.data, str(self.dataset.root)),
        )  # fmt: skip
        self.step, self.seconds = progress["step"], progress["seconds"]
        self.average.n_averaged.fill_(self.step + 1)
        self.skipped = progress["skipped"]
        self.validation.restore(progress["validation"], self.done())

    def check_gradient(self) -> None:
        """Refuse weights whose last gradient was not finite: they must not overwrite a checkpoint."""
        if not bool(self.norm.isfinite()):
            raise RecsegError(
                f"step {self.step - 1}: the gradient is not finite; expected a lower --lr than {self.config.lr} "
                f"(one of the images {', '.join(self.ids)})"
            )
