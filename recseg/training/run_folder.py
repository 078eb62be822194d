"""What a run does to its folder and its terminal between two steps: the log, and an end that was asked for."""

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

LAST = "weights.safetensors"  # averaged weights after the last step
BEST = "best.safetensors"  # averaged weights that scored best on the validation images
CHECKPOINT = "checkpoint.safetensors"  # to go on from
FILES = ("config.json", "log.jsonl", CHECKPOINT, LAST, BEST, "skipped.json")


class Interrupts:
    """Ctrl-C and a polite kill end a run between two steps, where its state is whole."""

    def __enter__(self) -> "Interrupts":
        self.asked = False
        self.previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # signals are the main thread's alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self.previous[signal.SIGINT])  # a second Ctrl-C does not wait

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """A run for this process alone, tidied of what a killed one had begun to write.

    The lock is one on `config.json` that ends with the process, however that ends. Where there are no such locks
    (Windows, some network disks) nobody is turned away.

    Raises:
        RecsegError: another process is at work on this run.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # a folder that cannot be written will be named by the log
            import fcntl

            config = stack.enter_context(open(run / "config.json", "rb+"))
            # Of the process, not of the open file: reader processes that outlive a killed run do not keep it.
            try:
                fcntl.lockf(config, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RecsegError(f"{run}: another process is at work on this run; wait for it, or end it") from error
        for name in FILES:
            sweep(run / name)
        yield


def remove_run(run: Path) -> None:
    """Take away the folder of a run that could not begin, and nothing in it that is not the run's."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        run.rmdir()


class Log:
    """Lines of JSON, each written at once and whole: nothing waits in memory that a kill could take.

    A line describes a batch of the training (`step`, `seconds`, `lr`, `loss` and its terms), or, by names that begin
    with `val_`, of a validation. A term has one name throughout, and is missing where it is no part of the loss:
    `pandas.read_json(path, lines=True)` is a table.
    """

    def __init__(self, path: Path, stream: IO[bytes], events: "Events | None" = None) -> None:
        self.path, self.stream, self.events = path, stream, events

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line.

        Raises:
            RecsegError: the disk is full.
        """
        line = json.dumps(entry).encode() + b"\n"
        try:
            written = self.stream.write(line)
            if written < len(line):  # the disk took a part, and will say at the next byte what is wrong
                self.stream.write(line[written:])
        except OSError as error:
            raise RecsegError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        if self.events is not None:
            self.events.write(entry)

    def sync(self) -> None:
        """Bring the lines to the disk: a checkpoint after a power cut is of no step that the log does not know."""
        os.fsync(self.stream.fileno())


@contextlib.contextmanager
def open_log(path: Path, step: int, events: "Events | None" = None) -> Iterator[Log]:
    """The log, open to append, without the lines after `step`: those steps are about to be done again."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off while being written
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    with open(path, "ab", buffering=0) as stream:
        yield Log(path, stream, events)


class Events:
    """The log in TensorBoard's format. By tensorboardX, which needs no more than protobuf: TensorBoard only reads.

    Raises:
        RecsegError: it is not installed.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        writer = check_tensorboard()
        # What was written after `step` is hidden: those steps are about to be done again.
        self.writer = writer(str(folder), purge_step=step + 1 if step else None)

    def write(self, entry: dict[str, Any]) -> None:
        """Add the numbers of a line of the log, as `train/loss` or `val/miou`."""
        for name, value in entry.items():
            if name not in ("step", "seconds") and value is not None:
                tag = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                self.writer.add_scalar(tag, value, entry["step"])

    def close(self) -> None:
        """Bring to the disk what still waits in memory."""
        self.writer.close()


def check_tensorboard() -> Any:
    """What writes event files.

    Raises:
        RecsegError: it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise RecsegError('--tensorboard: tensorboardX is not installed: pip install "recseg[tensorboard]"') from error
    return SummaryWriter
