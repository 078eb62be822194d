"""One process at a time: whoever comes second waits, and finds done what it wanted to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends; a second process waits.

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
        # While it is held: who waits for a file without a name sees that, and begins anew (since filelock 3.21).
        with suppress(OSError):  # Windows keeps open files; a lock file left over does no harm
            path.unlink()
        lock.release()
