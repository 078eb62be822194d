"""A lock between processes: the second waits until the first has done the work."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the system releases however the process ends; other processes wait.

    Raises:
        OSError: the lock file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process to make {path.stem}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        # While it is held: waiting processes notice that the file is gone and retry (since filelock 3.21).
        with suppress(OSError):  # Windows does not delete open files; a leftover is harmless
            path.unlink()
        lock.release()
