"""One process at a time: whoever comes second waits, and finds done what it wanted to do."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends; a second process waits."""
    while True:
        with open(path, "ab") as stream:
            if not _lock(stream, wait=False):
                print(f"waiting for another process that downloads {path.stem}", file=sys.stderr)
                _lock(stream, wait=True)
            # The one before may have deleted the file while we waited: ours is then a lock on nothing, so once more.
            try:
                ours = os.path.samestat(os.fstat(stream.fileno()), path.stat())
            except FileNotFoundError:
                ours = False
            if not ours:
                continue
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps open files; a lock file left over does no harm
                    path.unlink()
            return


def _lock(stream: IO[bytes], *, wait: bool) -> bool:
    """Lock an open file; False if another process has it and `wait` is not set."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
