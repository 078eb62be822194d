"""Everything around the training loop that would clutter the loop itself.

A session opens what the loop reads and writes, and handles what can go wrong: an image that cannot be read, a
non-finite loss, a worker process that dies, Ctrl-C, another process working on the same run.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from recseg.data.readers import Readers, default_workers
from recseg.data.stream import Batch, batches, rarity_weights
from recseg.distributed import rank, shard
from recseg.errors import RecsegError
from recseg.training.bad_samples import explained
from recseg.training.run_folder import Events, Interrupts, Log, locked, open_log

if TYPE_CHECKING:
    from recseg.training.trainer import Trainer


@dataclass
class Session:
    """What is open while the loop runs.

    Attributes:
        stream: endless batches, starting at the run's current step.
        bar: progress bar.
        log: of the run; None in all processes but the first.
        interrupts: whether this process was asked to stop.
        checkpoint_seconds: time between checkpoints.
        stopping: whether all processes have agreed to stop.
        saved: when the last checkpoint was written (`time.monotonic`).
        shown: values that the progress bar shows.
        terms: loss terms when they were last logged.
    """

    stream: Iterator[Batch]
    bar: "tqdm[Any]"
    log: Log | None
    interrupts: Interrupts
    checkpoint_seconds: float
    stopping: bool = False
    saved: float = field(default_factory=time.monotonic)
    shown: dict[str, str] = field(default_factory=dict)
    terms: dict[str, float] = field(default_factory=dict)

    def write(self, trainer: "Trainer", terms: dict[str, float]) -> None:
        """Log the loss of a batch, and show it."""
        if self.log is None:
            return
        entry = {"step": trainer.step, "seconds": round(trainer.seconds, 2)}
        rate = trainer.optimisers[0].param_groups[0]["lr"]
        self.log.write(entry | {"lr": rate} | {name: round(value, 5) for name, value in terms.items()})
        if joined := [name for name in terms if name not in self.terms] if self.terms else []:
            self.say(
                f"step {trainer.step}: from here on the recurrence is trained too; the loss now includes the terms "
                f"{', '.join(joined)} and cannot be compared with the earlier loss of single pixels"
            )
        self.terms = terms
        self._show(loss=f"{terms['loss']:.3f}")
        if trainer.config.minutes is not None:
            left = max(0.0, 60 * trainer.config.minutes - trainer.seconds)
            self._show(done=f"{100 * min(1.0, trainer.done()):.0f} %", left=tqdm.format_interval(left))

    def say(self, line: str) -> None:
        """Print a line above the bar, if there is one."""
        if not self.bar.disable:
            self.bar.write(line)

    def write_validation(self, trainer: "Trainer", scores: dict[str, Any]) -> None:
        """Log the scores of a validation, and show them."""
        if self.log is None:
            return
        self.log.write({"step": trainer.step, "seconds": round(trainer.seconds, 2)} | scores)
        miou, count = (f"{100 * (scores[f'val_{name}'] or 0):.1f} %" for name in ("miou", "count_accuracy"))
        self._show(val_loss=f"{scores['val_loss']:.3f}", val_mIoU=miou, val_count=count)

    def _show(self, **words: str) -> None:
        self.shown |= words
        self.bar.set_postfix(self.shown)

    def checkpoint_due(self) -> bool:
        """Whether a checkpoint is due; True restarts the timer."""
        if time.monotonic() - self.saved <= self.checkpoint_seconds:
            return False
        self.saved = time.monotonic()
        return True


@contextlib.contextmanager
def open_session(trainer: "Trainer", progress: bool) -> Iterator[Session]:
    """Open a session for the loop of a trainer.

    Args:
        trainer: at the step where the loop starts.
        progress: show a progress bar.

    Raises:
        RecsegError: the loop failed (the message names the image responsible, if any), or another process is working on
            the run.
        KeyboardInterrupt: the loop was asked to stop.
    """
    config, skip = trainer.config, trainer.config.on_bad_image == "skip"
    assert config.batch_size is not None  # resolved
    workers = config.workers if config.workers is not None else default_workers()
    readers = Readers(workers, trainer.dataset.ids)
    stream = batches(
        trainer.dataset, config.batch_size, seed=config.seed, start=trainer.step, workers=workers,
        pin=trainer.device.type == "cuda", part=shard(config.batch_size), skip=skip, readers=readers,
        weights=rarity_weights(trainer.dataset, skip=skip) if config.balance else None,
    )  # fmt: skip
    shown = progress and rank() == 0
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        bar = stack.enter_context(
            tqdm(total=config.steps, initial=trainer.step, unit="step", disable=not shown, desc=f"train {config.model}")
        )
        stack.enter_context(readers.named())
        log = None
        if rank() == 0:  # one process writes
            stack.enter_context(locked(trainer.out))
            events = Events(trainer.out / "tensorboard", trainer.step) if config.tensorboard else None
            if events is not None:
                stack.callback(events.close)
            log = stack.enter_context(open_log(trainer.out / "log.jsonl", trainer.step, events))
        session = Session(stream, bar, log, interrupts, config.checkpoint_seconds)
        try:
            yield session
        except (RecsegError, RuntimeError) as error:
            if trainer.phase == "rest" and trainer.step:  # an image or a worker failed: save progress
                trainer.save(log)
            elif trainer.phase == "loss" and isinstance(error, RecsegError):
                raise explained(trainer, error) from error
            raise
        if session.stopping:
            raise KeyboardInterrupt(f"stopped after step {trainer.step}; continue with --resume {trainer.out}")
