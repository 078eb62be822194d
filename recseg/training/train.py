"""Begin a training, or go on with one: from a configuration or a run's folder to the loop.

Chapter 7 of the book explains this file and the loop, `recseg.training.trainer`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from recseg.data import NAMED, open_train
from recseg.data.check import examine
from recseg.data.folder import SegmentationFolder
from recseg.data.readers import UnguardedScript, check_main_guard
from recseg.data.transforms import train_transform
from recseg.distributed import main_first, process_group, rank
from recseg.errors import RecsegError
from recseg.training.config import TrainConfig as TrainConfig
from recseg.training.config import load_config, resolve, save_config, with_whole_paths
from recseg.training.run_folder import CHECKPOINT, claimed, remove_run
from recseg.training.trainer import Trainer
from recseg.training.validation import NONE, validation_data


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
        trainer = _open(settings, run, progress, start=not goes_on)
        if goes_on:
            trainer.restore()
        if config != before and rank() == 0:
            with claimed(run):
                save_config(run / "config.json", config)
        return trainer.run(progress)


def _open(config: TrainConfig, out: Path, progress: bool, start: bool = True) -> Trainer:
    with main_first():
        dataset = training_data(config)
        held_out = validation_data(config, dataset)
    if config.data not in NAMED:  # what these hold is known
        lines = examine(dataset, held_out, skip=config.on_bad_image == "skip")
        if progress and rank() == 0:
            print("\n".join(lines), flush=True)
    return Trainer(config, dataset, out, held_out, start=start)


def training_data(config: TrainConfig) -> SegmentationFolder:
    """The split to train on, with its augmentation."""
    assert config.size is not None and config.scale is not None  # resolved
    return open_train(config.data, config.split, transform=train_transform(config.size, scale=config.scale))
