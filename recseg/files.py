"""All output goes through `atomic_write`: a file appears complete or not at all.

It is written under a temporary name, then renamed. Links are followed. Anything but a regular file (a device, a pipe,
the terminal) is written to directly.
"""

import os
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recseg.errors import RecsegError

STDOUT = Path("/dev/stdout")  # standard output on every system; `-` on the command line


@contextmanager
def atomic_write(path: Path | str, *, new: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path; if the block ends without an error, its content goes to `path`.

    A reader sees the old file or the new one, never part of one; after an error the old file is untouched. A link stays
    a link, and its target is replaced. A device, a pipe or a file that this process prints to is written to in place.

    Args:
        path: the output; `STDOUT` is standard output.
        new: fail if the name is taken; of two processes that race for it, one gets it.
        sync: wait until the file is on disk; otherwise a power cut may leave an empty file.

    Raises:
        RecsegError: the folder cannot be written or the disk is full; names the file.
        FileExistsError: with `new`, the name is taken.
    """
    path = Path(path)
    into = _written_into(path)
    target = path if into else followed(path)
    with write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Same folder, so the rename stays on one file system; same suffix, since writers choose the format by it.
        folder = None if into else target.parent
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:20]}-", suffix=path.suffix, dir=folder)
        os.close(handle)
    temporary = Path(name)
    try:
        # Callers handle a taken name and a closed standard output themselves.
        with write_errors(path, FileExistsError if new else BrokenPipeError if path == STDOUT else ()):
            yield temporary
            if into:
                _copy_into(temporary, path)
                return
            if sync:  # on disk before the rename
                with open(temporary, "rb+") as stream:
                    os.fsync(stream.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; outputs follow the umask
            if new:
                _name_once(temporary, target)
            else:
                os.replace(temporary, target)
            if sync:
                _sync_folder(target.parent)
    finally:
        with suppress(OSError):  # it stays if the disk has become read-only
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder; if the block ends without an error, it becomes `path`, which must be absent or empty.

    Raises:
        RecsegError: the folder cannot be written, the disk is full, or `path` is not empty.
    """
    check_new_folder(path, "folder")
    target = followed(path).absolute()
    with write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:20]}-", dir=target.parent) as scratch:
            temporary = Path(scratch, "new")  # the scratch folder itself is private
            temporary.mkdir()
            yield temporary
            if target.is_dir() and os.name == "nt":  # elsewhere rename replaces an empty folder
                target.rmdir()
            os.rename(temporary, target)


@contextmanager
def write_errors(path: Path, unchanged: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn an OSError into a RecsegError that names the file; those of type `unchanged` pass through."""
    try:
        yield
    except unchanged:
        raise
    except OSError as error:
        raise RecsegError(f"{path}: cannot be written ({error.strerror or error})") from error


def followed(path: Path) -> Path:
    """The target of a path, with links followed; it need not exist."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise RecsegError(f"{path}: is a link that leads back to itself")
    return target


def _written_into(path: Path) -> bool:
    """Whether a path is a device, a pipe or this process's own output, which no file may replace."""
    if path == STDOUT:
        return True
    try:
        status = path.stat()
    except OSError:
        return False
    regular = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return not regular or _own_descriptor(status) is not None


def _own_descriptor(status: os.stat_result) -> int | None:
    """Descriptor of this process's standard output or error, if the file is one of them."""
    for number in (1, 2):
        with suppress(OSError):  # it may be closed
            if os.path.samestat(os.fstat(number), status):
                return number
    return None


def _copy_into(temporary: Path, path: Path) -> None:
    """Write a finished file to a device, a pipe or standard output."""
    content = temporary.read_bytes()
    sys.stdout.flush()
    if path == STDOUT:
        if (buffer := getattr(sys.stdout, "buffer", None)) is not None:
            buffer.write(content)
            buffer.flush()
        else:  # a notebook's
            sys.stdout.write(content.decode("utf-8", errors="replace"))
        return
    number = _own_descriptor(path.stat())
    # Through the descriptor, which keeps its position; reopening the file would overwrite it.
    with open(path if number is None else number, "wb", closefd=number is None) as stream:
        stream.write(content)


def _name_once(temporary: Path, path: Path) -> None:
    """Rename a file to a name that must be free; FileExistsError if it is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    """Sync the new name to disk too, where folders can be opened (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def one_spelling(name: str) -> str:
    """A name with its accents normalised: file systems and editors compose them differently."""
    return unicodedata.normalize("NFC", name)


def read_lines(path: Path) -> list[str]:
    """The non-blank lines of a text file, stripped, without a byte order mark.

    Raises:
        RecsegError: it cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecsegError(f"{path}: is not UTF-8 text") from error
    except OSError as error:
        raise RecsegError(f"{path}: cannot be read ({error.strerror or error})") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def sweep(path: Path) -> None:
    """Remove the temporary files that killed processes left next to `path`; no other process may be writing there."""
    for temporary in followed(path).parent.glob(f".{path.stem}-????????{path.suffix}"):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# Checks made before the work, so that a misspelt path does not cost hours of it


def check_folder(path: Path, option: str) -> None:
    """Check an output folder: either absent (it is made later, when needed) or writable."""
    for parent in (path, *path.absolute().parents):
        if parent.exists():
            if not parent.is_dir():
                raise RecsegError(
                    f"{option} {path}: {'is' if parent == path else f'{parent} is'} a file, expected a folder"
                )
            if not os.access(parent, os.W_OK):
                raise RecsegError(f"{option} {path}: cannot be written (permission denied)")
            return
        if parent.is_symlink():
            raise RecsegError(f"{option} {path}: {parent} is a link to {os.readlink(parent)}, which does not exist")


def check_new_folder(path: Path, option: str) -> None:
    check_folder(path, option)
    if path.is_dir() and any(path.iterdir()):
        raise RecsegError(f"{option} {path}: is not empty, expected a new or empty folder")


def check_writable(*outputs: Path, reads: Iterable[Path] = ()) -> None:
    """Check output files: not folders, each in a writable folder, no two the same, none of them an input.

    Args:
        outputs: files to write.
        reads: input files of the same command; compared as files, not by name.
    """
    seen = set[str]()
    inputs: list[os.stat_result] | None = None  # looked up only if an output exists: there may be thousands
    for path in outputs:
        if path.is_dir():
            raise RecsegError(f"{path}: is a folder, expected the name of a file")
        if _written_into(path):
            if path != STDOUT and not os.access(path, os.W_OK):
                raise RecsegError(f"{path}: cannot be written (permission denied)")
            continue
        check_folder(followed(path).absolute().parent, "folder")
        if (real := os.path.normcase(os.path.realpath(path))) in seen:
            raise RecsegError(f"{path}: is given for two outputs, expected a file for each")
        seen.add(real)
        if path.exists():
            if inputs is None:
                inputs = [each.stat() for each in reads if each.exists()]
            if any(os.path.samestat(path.stat(), each) for each in inputs):
                raise RecsegError(f"{path}: is read from and would be overwritten; expected another name")
