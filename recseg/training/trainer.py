"""The training loop, from top to bottom as a reader would write it.

Chapter 7 of the book explains this file. A run is a folder:

- `config.json`: what was asked for;
- `log.jsonl`: a line every few steps, and one for each validation;
- `checkpoint.safetensors`: to go on from;
- `weights.safetensors`: the averaged network after the last step, to predict with and to publish;
- `best.safetensors`: the averaged network with the highest validation mIoU. It was chosen on the validation images, so
  its score on them flatters it: to report a score on those, take the last;
- `skipped.json`: which images could not be read, where the run was told to go on without them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from recseg.data import NAMED, open_train
from recseg.data.check import examine
from recseg.data.folder import SegmentationFolder
from recseg.data.readers import UnguardedScript, check_main_guard
from recseg.data.stream import Batch
from recseg.data.transforms import train_transform
from recseg.devices import choose_device as choose_device
from recseg.devices import choose_precision as choose_precision
from recseg.devices import precision_name as precision_name
from recseg.distributed import (
    all_gather,
    all_reduce_max,
    average_gradients,
    broadcast_parameters,
    from_first,
    main_first,
    mean,
    process_group,
    rank,
    synchronise_norms,
    world_size,
)
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.models.model import SegmentationModel
from recseg.training.checkpoint import load_state, save_average, save_state
from recseg.training.config import TrainConfig as TrainConfig
from recseg.training.config import (
    build_model,
    check_batch,
    load_config,
    network_for,
    resolve,
    save_config,
    with_whole_paths,
)
from recseg.training.objective import compute_loss as compute_loss
from recseg.training.optim import (
    averaged_model,
    make_optimisers,
    parameter_groups,
    schedule,
    set_learning_rate,
)
from recseg.training.run_folder import BEST, CHECKPOINT, LAST, Log, check_tensorboard, claimed, remove_run
from recseg.training.same_data import check_same_data, describe
from recseg.training.session import Session, open_session
from recseg.training.validation import NONE, Validation, validation_data

LOG_EVERY = 20  # steps


def train(config: TrainConfig, out: Path | str, *, progress: bool = True) -> Path:
    """Train a model from the start; started by `torchrun`, together with the other processes (`recseg.distributed`).

    Args:
        config: what to train; open choices are filled in and stored.
        out: folder of the run; new or empty.
        progress: print what the data hold, and show a bar.

    Returns:
        The weights to predict with, `out/weights.safetensors`.

    Raises:
        RecsegError: bad data or configuration, a folder in use, or a loss that is not finite.
    """
    out = Path(out)
    check_main_guard()
    with process_group(config.device) as device:
        if rank() == 0 and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RecsegError(f"{out}: exists and is not empty; expected a new folder, or --resume {out} to go on")
        config = resolve(replace(config, device=device))
        trainer = _open(config, out, progress)  # before the folder is made: bad data leaves no trace
        if rank() == 0:
            save_config(out / "config.json", with_whole_paths(trainer.config), new=True)
        try:
            return trainer.run(progress)
        except UnguardedScript:
            remove_run(out)
            raise


def resume(
    run: Path | str, *, progress: bool = True, data: str | None = None, device: str | None = None,
    workers: int | None = None, on_bad_image: str | None = None,
) -> Path:  # fmt: skip
    """Go on with a run that was interrupted, exactly as if it had not been (with as many processes as before).

    Args:
        run: its folder.
        progress: print what the data hold, and show a bar.
        data: where the same data are from now on; None: where they were.
        device: where it runs from now on; None: as the run began.
        workers: processes that read images from now on; None: as the run began.
        on_bad_image: "skip" or "stop" from now on; None: as the run began.

    Raises:
        RecsegError: a folder without a run, other data than it began with, or what `train` raises.
    """
    run = Path(run)
    before = load_config(run / "config.json")
    given: dict[str, Any] = {"data": data, "device": device, "workers": workers, "on_bad_image": on_bad_image}
    config = with_whole_paths(replace(before, **{name: value for name, value in given.items() if value is not None}))
    with process_group(config.device) as device:
        goes_on = (run / CHECKPOINT).exists()
        settings = replace(config, device=device, val_split=config.val_split or NONE)
        trainer = _open(settings, run, progress, partial(build_model, start=not goes_on))
        if goes_on:
            trainer.restore()
        if config != before and rank() == 0:
            with claimed(run):
                save_config(run / "config.json", config)
        return trainer.run(progress)


def _open(
    config: TrainConfig, out: Path, progress: bool, build: Callable[[TrainConfig], SegmentationModel] | None = None
) -> "Trainer":
    with main_first():
        dataset = training_data(config)
        held_out = validation_data(config, dataset)
    if config.data not in NAMED:  # what these hold is known
        skip = config.on_bad_image == "skip"
        for each in (dataset, *([] if held_out is None else [held_out])):
            each.keep_survey(from_first(partial(each.survey, skip=skip)))
        lines = examine(dataset, held_out, skip=skip)
        if progress and rank() == 0:
            print("\n".join(lines), flush=True)
    return Trainer(config, dataset, out, held_out, build)


def training_data(config: TrainConfig) -> SegmentationFolder:
    """The split to train on, with its augmentation."""
    assert config.size is not None and config.scale is not None  # resolved
    return open_train(config.data, config.split, transform=train_transform(config.size, scale=config.scale))


class Trainer:
    """State of a run between two steps: the models, the optimisers, and how far it got.

    Args:
        config: what to train, resolved.
        dataset: the images to learn from, with their augmentation.
        out: folder of the run.
        held_out: the images to validate on, without a transform; None: no validation.
        build: makes the network of a configuration; by default `build_model`.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: SegmentationFolder,
        out: Path,
        held_out: SegmentationFolder | None = None,
        build: Callable[[TrainConfig], SegmentationModel] | None = None,
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
        self.model = (build or build_model)(config)
        self.model.classes = dataset.classes
        check_batch(config, self.model)
        if world_size() > 1 and self.device.type == "cuda":  # on CPUs each process norms its own share
            synchronise_norms(self.model)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,unused-ignore]  # what convolutions run fastest in
        broadcast_parameters(self.model)
        tenth = 0.1 if config.encoder_weights or config.pretrained else 1.0
        assert config.lr is not None and config.optimiser is not None  # resolved
        groups = parameter_groups(self.model, config.lr, tenth * config.lr, config.weight_decay)
        self.optimisers = make_optimisers(config.optimiser, groups)
        self.scaler = GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.average = averaged_model(self.model, config.ema)
        self.step, self.seconds = 0, 0.0
        self.skipped: dict[str, str] = {}  # id → why
        self.norm, self.ids = torch.zeros((), device=self.device), [""]  # of the last update's gradient; its images
        self.phase: Literal["rest", "loss", "update", "save"] = "rest"  # where a fault leaves the state whole
        self.batch: Batch | None = None  # of the update at hand

    @property
    def averaged(self) -> SegmentationModel:
        """The averaged network, which is scored, saved and published."""
        assert isinstance(self.average.module, SegmentationModel)
        return self.average.module

    def run(self, progress: bool = True, until: int | None = None) -> Path:
        """Train until the budget is used up, or pause after step `until`; returns the path of the weights."""
        with open_session(self, progress) as session:  # which answers for all that may go wrong
            self.model.train()
            self.validate(session)  # where a fault came before it
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
        """One step of gradient descent; returns the terms of the loss."""
        self.phase, self.batch = "loss", batch
        set_learning_rate(self.optimisers, schedule(self.step, self.done(), warmup=self.config.warmup))
        images, labels = self.on_device(batch)
        with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            terms = compute_loss(self.model, images, labels, batch.lengths, self.config, self.done())
        if not bool(terms["loss"].isfinite() & self.norm.isfinite()):  # one wait for a GPU, not two
            raise RecsegError(f"the loss is not finite; expected a lower --lr than {self.config.lr}")
        self.phase = "update"
        self.model.zero_grad(set_to_none=True)
        self.scaler.scale(terms["loss"]).backward()
        average_gradients(self.model.parameters())
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not self.scaler.is_enabled():  # it looks by itself, and leaves such a step out
            self.norm, self.ids = norm, batch.ids
        for optimiser in self.optimisers:
            self.scaler.step(optimiser)
        self.scaler.update()
        self.average.update_parameters(self.model)
        return {name: value.detach() for name, value in terms.items()}

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) in [0, 1] and labels (B, S, S)."""
        images = batch.images.to(self.device, non_blocking=True).float() / 255
        return images.contiguous(memory_format=torch.channels_last), batch.labels.to(self.device, non_blocking=True)

    def count(self, session: Session, batch: Batch, seconds: float) -> None:
        """One step more. All processes end together, whoever's clock or terminal says so."""
        self.seconds, asked, passed = all_reduce_max(
            self.seconds + seconds, float(session.interrupts.asked), float(len(batch.skipped))
        )
        for others in all_gather(batch.skipped) if passed else ():
            self.skipped |= others
        self.step += 1
        self.phase, session.stopping = "rest", bool(asked)
        session.bar.update()

    def done(self) -> float:
        """Share of the budget that is used up. Validations and checkpoints take nothing of it."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        assert self.config.minutes is not None
        return self.seconds / (60 * self.config.minutes)

    def _write(self, session: Session, terms: dict[str, Tensor]) -> None:
        self.phase = "save"
        means = mean(*torch.stack(list(terms.values())).tolist())  # one wait for a GPU
        session.write(self, dict(zip(terms, means, strict=True)))
        self.phase = "rest"

    def validate(self, session: Session) -> None:
        """Where it is due, score the averaged network on images that it does not learn from, and keep the best."""
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
        """Write the checkpoint and the averaged weights; the first process does."""
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
        """Write the averaged weights."""
        about = {"precision": precision_name(self.precision), "step": self.step, "seconds": self.seconds} | more
        if self.skipped:
            about["skipped"] = list(self.skipped)[:1000]  # all are in skipped.json; no text of weights is endless
        save_average(self.out / name, self.averaged, self.config, self.dataset, **about)

    def restore(self) -> None:
        """Put the last checkpoint back in place."""
        progress = load_state(
            self.out / CHECKPOINT, self.model, self.averaged, self.optimisers, self.scaler,
            check=lambda progress: check_same_data(progress.get("data"), self.data, str(self.dataset.root)),
        )  # fmt: skip
        self.step, self.seconds = progress["step"], progress["seconds"]
        self.average.n_averaged.fill_(self.step + 1)
        self.skipped = progress.get("skipped", {})
        self.validation.restore(progress.get("validation"))

    def check_gradient(self) -> None:
        """Refuse weights whose last gradient was not finite: they are to replace no checkpoint."""
        if not bool(self.norm.isfinite()):
            raise RecsegError(
                f"step {self.step - 1}: the gradient is not finite; expected a lower --lr than {self.config.lr} "
                f"(one of the images {', '.join(self.ids)})"
            )
