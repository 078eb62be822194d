"""Images given on the command line as files, folders and patterns, and names for their outputs."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from recseg.errors import RecsegError


class Input(NamedTuple):
    """An image to read.

    Attributes:
        path: path of the file.
        relative: path relative to the folder that was given, or the name of a file given itself.
    """

    path: Path
    relative: Path


def find_images(named: Sequence[Path], out: Path) -> list[Input]:
    """The images given by files, folders and patterns, in that order; those of a folder are sorted.

    A folder is searched recursively for files with the suffix of an image, except for hidden ones and `out`. A pattern
    (`**` for any folders) is expanded as a shell would.

    Raises:
        RecsegError: no such file, a folder without images, or a folder that is `out` itself.
    """
    return [image for path in named for each in _matches(path) for image in _images(each, out)]


def _matches(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    found = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
    if not found:
        raise RecsegError(f"{path}: no such file")
    return [Path(each) for each in found]


def _images(path: Path, out: Path) -> list[Input]:
    if not path.is_dir():
        return [Input(path, Path(path.name))]
    if _same(path, out):
        raise RecsegError(
            f"--out {out}: is the folder of the images; expected another one, since outputs would be read as images"
        )
    found = [Input(file, file.relative_to(path)) for file in _below(path, out)]
    if not found:
        raise RecsegError(f"{path}: is a folder without images")
    return found


def _below(folder: Path, out: Path) -> Iterator[Path]:
    from recseg.data.images import SUFFIXES  # imports NumPy: check that paths exist first

    def complain(error: OSError) -> None:
        raise RecsegError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for current, folders, files in os.walk(folder, onerror=complain):
        folders[:] = sorted(name for name in folders if name[0] != "." and not _same(Path(current, name), out))
        for name in sorted(files):
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                yield Path(current, name)


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def unique_names(paths: Iterable[Path]) -> list[Path]:
    """Output names: relative paths without the suffix, with -2, -3 … where two would clash."""
    taken: set[str] = set()
    names: list[Path] = []
    for path in paths:
        first = name = path.with_name(path.stem)
        number = 1
        while str(name).casefold() in taken:  # some file systems ignore case
            number += 1
            name = first.with_name(f"{first.name}-{number}")
        taken.add(str(name).casefold())
        names.append(name)
    return names
