"""One process at a time: the second waits, and finds the work done."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the system releases however the process ends; a second process waits.

    Raises:
        OSError: the lock file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process that makes {path.stem}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        # While it is held: waiting processes notice that the file has gone, and begin anew (since filelock 3.21).
        with suppress(OSError):  # Windows does not delete open files; one left over does no harm
            path.unlink()
        lock.release()
