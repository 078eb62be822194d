"""The folder of a run: its lock, its log and TensorBoard events; and stopping cleanly on Ctrl-C."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any

from recseg.errors import RecsegError
from recseg.files import atomic_write, sweep

LAST = "weights.safetensors"  # averaged weights after the last update
BEST = "best.safetensors"  # averaged weights that scored best on the validation images
CHECKPOINT = "checkpoint.safetensors"  # to resume from
FILES = ("config.json", "log.jsonl", CHECKPOINT, LAST, BEST, "skipped.json")


class Interrupts:
    """Make Ctrl-C and SIGTERM end a run between two updates, when its state is consistent."""

    def __enter__(self) -> "Interrupts":
        self.asked = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # only it may set signal handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self.previous[signal.SIGINT])  # a second Ctrl-C ends it at once

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock a run for this process, and remove temporary files that a killed process left behind.

    The lock is on `config.json` and is released when the process ends, however it ends. Where such locks do not exist
    (Windows, some network disks), the run is not locked.

    Raises:
        RecsegError: another process is working on this run.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # a folder that cannot be written is reported by the log
            import fcntl

            config = stack.enter_context(open(run / "config.json", "rb+"))
            # lockf locks per process, not per open file: worker processes that outlive a killed run do not hold it.
            try:
                fcntl.lockf(config, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RecsegError(f"{run}: another process is working on this run; wait for it or end it") from error
        for name in FILES:
            sweep(run / name)
        yield


def remove_run(run: Path) -> None:
    """Delete the files of a run that could not start, and its folder if nothing else is in it."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        run.rmdir()


class Log:
    """The log: lines of JSON, each written immediately and unbuffered, so that a kill loses none.

    A line describes a training batch (`step`, `seconds`, `lr`, `loss` and its terms) or a validation (names that begin
    with `val_`). Terms that are not part of the current loss are left out. `pandas.read_json(path, lines=True)` reads
    the log as a table.
    """

    def __init__(self, path: Path, stream: IO[bytes], events: "Events | None" = None) -> None:
        self.path, self.stream, self.events = path, stream, events

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line.

        Raises:
            RecsegError: the line cannot be written, for example because the disk is full.
        """
        line = json.dumps(entry).encode() + b"\n"
        try:
            written = self.stream.write(line)
            if written < len(line):  # a short write: the next one raises the actual error
                self.stream.write(line[written:])
        except OSError as error:
            raise RecsegError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        if self.events is not None:
            self.events.write(entry)

    def sync(self) -> None:
        """Flush the log to disk, so that no checkpoint is ahead of it after a power cut."""
        os.fsync(self.stream.fileno())


@contextlib.contextmanager
def open_log(path: Path, step: int, events: "Events | None" = None) -> Iterator[Log]:
    """Open the log for appending, without the lines after `step`: those updates are about to be repeated."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a truncated line
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    with open(path, "ab", buffering=0) as stream:
        yield Log(path, stream, events)


class Events:
    """The log in TensorBoard's format, written with tensorboardX, which does not need TensorBoard itself.

    Raises:
        RecsegError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        writer = check_tensorboard()
        # Events after `step` are hidden: those updates are about to be repeated.
        self.writer = writer(str(folder), purge_step=step + 1 if step else None)

    def write(self, entry: dict[str, Any]) -> None:
        """Add the numbers of a log line, as `train/loss` or `val/miou`."""
        for name, value in entry.items():
            if name not in ("step", "seconds") and value is not None:
                tag = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                self.writer.add_scalar(tag, value, entry["step"])

    def close(self) -> None:
        """Flush what is still in memory to disk."""
        self.writer.close()


def check_tensorboard() -> Any:
    """The class that writes event files.

    Raises:
        RecsegError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise RecsegError('--tensorboard: tensorboardX is not installed: pip install "recseg[tensorboard]"') from error
    return SummaryWriter
