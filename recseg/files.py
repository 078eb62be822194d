"""Files appear whole or not at all: written under a temporary name, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:20]}-", suffix=path.suffix, dir=path.parent)
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
        _sync_folder(path.parent)
    except OSError as error:
        raise RecsegError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        # On a disk that has become read-only it stays, and the error above says why.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk as well, where folders can be opened (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(path: Path) -> None:
    """Remove the temporary files that killed processes left beside `path`; only for who knows that no other writes."""
    for temporary in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# What is checked before the work, so that hours of it are not lost to a misspelt path


def check_folder(path: Path, option: str) -> None:
    """An output folder: absent (made later, when there is something to put in it), or a folder that can be written."""
    for parent in (path, *path.absolute().parents):
        if parent.exists():
            if not parent.is_dir():
                raise RecsegError(
                    f"{option} {path}: {'is' if parent == path else f'{parent} is'} a file, expected a folder"
                )
            if not os.access(parent, os.W_OK):
                raise RecsegError(f"{option} {path}: cannot be written (permission denied)")
            return


def check_new_folder(path: Path, option: str) -> None:
    check_folder(path, option)
    if path.is_dir() and any(path.iterdir()):
        raise RecsegError(f"{option} {path}: is not empty, expected a new or empty folder")


def check_writable(path: Path) -> None:
    """An output file: not a folder, and its folder can be written."""
    if path.is_dir():
        raise RecsegError(f"{path}: is a folder, expected the name of a file")
    check_folder(path.absolute().parent, "folder")
