"""Start a training run from a configuration, or resume one from its folder.

Chapter 7 of the book explains this file and the loop, `recseg.training.trainer`.
"""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from recseg.data import NAMED, open_train
from recseg.data.check import examine
from recseg.data.folder import SegmentationFolder
from recseg.data.readers import UnguardedScript, check_main_guard
from recseg.data.transforms import Augmentation, train_transform
from recseg.distributed import from_first, main_first, process_group, rank
from recseg.errors import RecsegError
from recseg.training.checkpoint import read_progress
from recseg.training.config import TrainConfig as TrainConfig
from recseg.training.config import load_config, resolve, save_config, used_up, validation_every, with_whole_paths
from recseg.training.run_folder import CHECKPOINT, locked, remove_run
from recseg.training.trainer import Trainer
from recseg.training.validation import NONE, validation_data


def train(config: TrainConfig, out: Path | str, *, progress: bool = True, augment: Augmentation | None = None) -> Path:
    """Train a model from the start; under `torchrun`, together with the other processes (`recseg.distributed`).

    Args:
        config: what to train; fields that are None are filled in, and the result is stored.
        out: folder of the run; new or empty.
        progress: print a summary of the data and the defaults chosen, and show a progress bar.
        augment: a custom augmentation, applied before the random crop.

    Returns:
        Path of the weights for inference, `out/weights.safetensors`.

    Raises:
        RecsegError: bad data or configuration, a folder in use, or a loss that is not finite.
    """
    out = Path(out)
    check_main_guard()
    with process_group(config.device) as device:
        if rank() == 0 and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RecsegError(f"{out}: exists and is not empty; expected a new folder, or --resume {out} to continue")
        asked = replace(config, device=device, augmentation=None if augment is None else name_of(augment))
        config = resolve(asked)
        trainer = _open(config, out, progress, augment=augment)  # before the folder is made: bad data leave no trace
        if progress and rank() == 0:
            print("\n".join([*trainer.notes, chosen(asked, config)]), flush=True)
        if rank() == 0:
            save_config(out / "config.json", with_whole_paths(trainer.config), new=True)
        try:
            return trainer.run(progress)
        except UnguardedScript:
            remove_run(out)
            raise


def resume(
    run: Path | str, *, progress: bool = True, data: str | None = None, device: str | None = None,
    workers: int | None = None, on_bad_image: str | None = None, steps: int | None = None,
    minutes: float | None = None, lr: float | None = None, augment: Augmentation | None = None,
) -> Path:  # fmt: skip
    """Resume an interrupted run, exactly as if it had not been interrupted (with the same number of processes).

    A new budget or learning rate extends the run instead: see `go_on`. Arguments that are None stay as they were.

    Args:
        run: its folder.
        progress: print a summary of the data, and show a progress bar.
        data: new location of the same data.
        device: device to run on from now on.
        workers: number of worker processes from now on.
        on_bad_image: "skip" or "stop" from now on.
        steps: total number of updates of the run, including those already done.
        minutes: likewise, in minutes.
        lr: peak learning rate from now on.
        augment: the custom augmentation that the run was started with, if any.

    Raises:
        RecsegError: no run in the folder, other data or another augmentation than at the start, a budget that is used
            up, or what `train` raises.
    """
    run = Path(run)
    before = load_config(run / "config.json")
    given: dict[str, Any] = {"data": data, "device": device, "workers": workers, "on_bad_image": on_bad_image}
    config = with_whole_paths(replace(before, **{name: value for name, value in given.items() if value is not None}))
    now = None if augment is None else name_of(augment)
    if now != before.augmentation:
        raise RecsegError(
            f"{run}: was started with {_own(before.augmentation)}, expected the same and not {_own(now)}: "
            "pass it to recseg.training.train.resume as `augment`"
        )
    goes_on = (run / CHECKPOINT).exists()
    done: dict[str, Any] = read_progress(run / CHECKPOINT) if goes_on else {"step": 0, "seconds": 0.0}
    config = go_on(config, done["step"], done["seconds"], steps=steps, minutes=minutes, lr=lr)
    with process_group(config.device) as device:
        settings = replace(config, device=device, val_split=config.val_split or NONE)
        trainer = _open(settings, run, progress, start=not goes_on, augment=augment)
        if goes_on:
            trainer.restore()
        if config != before and rank() == 0:
            with locked(run):
                save_config(run / "config.json", config)
        return trainer.run(progress)


def go_on(
    config: TrainConfig, step: int, seconds: float, *, steps: int | None, minutes: float | None, lr: float | None
) -> TrainConfig:
    """The configuration of a run that continues with another budget or learning rate.

    The learning rate decays to zero over the new budget as if that had been set from the start: if the run had
    finished, it rises again. The phase that trains single pixels still ends at the same update.

    Args:
        config: of the run so far.
        step: number of updates done.
        seconds: time that they took.
        steps: the new budget, in updates from the start.
        minutes: likewise, in minutes from the start.
        lr: the new peak learning rate.

    Raises:
        RecsegError: the budget is used up.
    """
    before = used_up(config, step, seconds)
    if lr is not None:
        config = replace(config, lr=lr)
        if before >= 1 and steps is None and minutes is None:
            raise RecsegError(f"--lr {lr:g}: the run has used up its budget, expected --steps or --minutes with it")
    if steps is None and minutes is None:
        return config
    every = config.val_every
    if config.steps is not None and every == validation_every(config.steps):
        every = None if steps is None else validation_every(steps)
    config = replace(config, steps=steps, minutes=minutes, val_every=every)
    after = used_up(config, step, seconds)
    if after >= 1:
        asked = f"--steps {steps}" if minutes is None else f"--minutes {minutes:g}"
        done = f"{step} steps" if minutes is None else f"{seconds / 60:.1f} minutes"
        raise RecsegError(f"{asked}: the run has already done {done}, expected more, counted from its start")
    if before and config.pixels_first:  # that phase ends at the same update as before
        config = replace(config, pixels_first=min(config.pixels_first * after / before, 0.999999))
    return config


def name_of(augment: Augmentation) -> str:
    """The name under which a run records an augmentation."""
    kind = augment if hasattr(augment, "__qualname__") else type(augment)
    return f"{kind.__module__}.{kind.__qualname__}"


def _own(augmentation: str | None) -> str:
    return f"the augmentation {augmentation}" if augmentation else "no custom augmentation"


def chosen(asked: TrainConfig, resolved: TrainConfig) -> str:
    """One line with the defaults that were filled in."""
    left_open = [field.name for field in fields(TrainConfig) if getattr(asked, field.name) is None]
    filled = {name: getattr(resolved, name) for name in left_open if getattr(resolved, name) is not None}
    return "by default: " + ", ".join(f"{name} {_shown(value)}" for name, value in filled.items())


def _shown(value: object) -> str:
    return " to ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _open(
    config: TrainConfig, out: Path, progress: bool, start: bool = True, augment: Augmentation | None = None
) -> Trainer:
    with main_first():
        dataset = training_data(config, augment)
        held_out = validation_data(config, dataset)
    if config.data not in NAMED:  # the contents of these are known
        skip = config.on_bad_image == "skip"
        for each in (dataset, *([] if held_out is None else [held_out])):
            each.keep_survey(from_first(partial(each.survey, skip=skip)))
        lines = examine(dataset, held_out, skip=skip)
        if progress and rank() == 0:
            print("\n".join(lines), flush=True)
    return Trainer(config, dataset, out, held_out, start=start)


def training_data(config: TrainConfig, augment: Augmentation | None = None) -> SegmentationFolder:
    """The split to train on, with the caller's own augmentation followed by the standard one."""
    assert config.size is not None and config.scale is not None  # resolved
    transform = train_transform(
        config.size, scale=config.scale, jitter=config.colour_jitter, flip=config.flip, augment=augment
    )
    return open_train(config.data, config.split, transform=transform)
