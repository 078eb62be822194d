"""Files appear whole or not at all: written under a temporary name, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recseg.errors import RecsegError


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block ends without an error.

    A reader sees the old file or the new one, never half of one; after an error the old file is untouched.

    Raises:
        RecsegError: the folder cannot be written or the disk is full; names the file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Same folder, so the rename stays on one file system; same suffix, since writers choose the format by it.
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise RecsegError(f"{path}: cannot be written ({error.strerror or error})") from error
    temporary = Path(name)
    try:
        yield temporary
        # On disk before the name changes, or a power cut leaves an empty file.
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a result is as readable as any other
        os.replace(temporary, path)
    except OSError as error:
        raise RecsegError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
