"""The processes that read images for a training; if one dies, the error names the image it was reading."""

import contextlib
import errno
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from recseg.errors import RecsegError


def default_workers() -> int:
    """Number of reader processes: few, since on a CPU they compete with the training."""
    cores = os.cpu_count() or 1
    return min(8, cores // 2) if torch.cuda.is_available() else min(2, cores // 2)


GUARD = "a script must call train under `if __name__ == '__main__':`, since its readers import it again"
FULL = (
    "shared memory is full, through which processes pass on the images that they read: expected more of it (docker run "
    "--shm-size 1g; on Linux it is /dev/shm), or --workers 0, which needs none"
)


class UnguardedScript(RecsegError):
    """Readers cannot start, since each would run the script that starts them."""


def check_main_guard() -> None:
    """Refuse a training started in a reader process while it imports the main script."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # set until the script is imported
        raise UnguardedScript(GUARD)


class Readers:
    """Which image each reader process is reading, in shared memory, which outlives the process.

    Args:
        workers: number of reader processes; 0: images are read in the training process.
        ids: of the images, by index.
    """

    def __init__(self, workers: int, ids: Sequence[str]) -> None:
        self.ids = ids
        self.notes = torch.full((workers, 2), -1, dtype=torch.long)  # process id, index of the image
        if workers and (fault := share(self.notes)):
            raise fault

    def note(self, index: int) -> None:
        """Called by a reader before it reads image `index`."""
        if (info := get_worker_info()) is not None:
            self.notes[info.id, 0], self.notes[info.id, 1] = os.getpid(), index

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Turn the error that PyTorch raises when a reader dies into one that names the image.

        Raises:
            RecsegError: names the image that the reader was reading and how it died.
        """
        try:
            yield
        except (RuntimeError, BrokenPipeError) as error:
            method = multiprocessing.get_start_method()
            found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(error))
            silent = len(self.notes) > 0 and bool((self.notes < 0).all())  # no reader has reached an image
            if method != "fork" and silent and (found is not None or isinstance(error, BrokenPipeError)):
                raise UnguardedScript(
                    f"the processes that read images ended before the first image (start method {method}): {GUARD}; "
                    "with workers=0 there are none"
                ) from error
            if found is None:
                raise
            dead = {int(number) for number in found[1].split(",")}
            at = [self.ids[index] for number, index in self.notes.tolist() if number in dead and index >= 0]
            raise RecsegError(
                f"a process that reads images {found[2].split('. ')[0].rstrip('. ')} at image "
                f"{', '.join(at) or '(none yet)'}: out of memory, or a file that crashes a library; "
                "--workers 0 reads without such processes"
            ) from error


def share(*tensors: Tensor) -> RecsegError | None:
    """Move tensors to shared memory; returns the error to report if there is no room.

    PyTorch would do so itself, but in a thread, and a failure there makes the training hang.
    """
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError:
        return RecsegError(FULL)
    return None


def hand_on(*tensors: Tensor) -> RecsegError | None:
    """`share`, in a reader process only."""
    return share(*tensors) if get_worker_info() is not None else None


def begin(loader: "DataLoader[Any]") -> Iterator[Any]:
    """The iterator of a loader; its processes end with the program at the latest.

    Raises:
        RecsegError: no room in shared memory, which also holds the locks of the processes.
    """
    others = set(multiprocessing.active_children())
    try:
        stream = iter(loader)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RecsegError(FULL) from error
        raise
    for process in set(multiprocessing.active_children()) - others:
        # On exit Python sends its processes SIGTERM, which readers ignore, and waits for them: without this, those of
        # an iterator that is still referenced would never end.
        Finalize(stream, process.kill, exitpriority=0)
    return stream


def leave_signals_to_parent(_: int) -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal: the training handles it and ends its readers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
