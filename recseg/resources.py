"""Locations of the project's own files: `data/` in a clone, `recseg/_data` in a wheel; one function for both."""

import os
from pathlib import Path

from recseg.errors import RecsegError

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """Path of a file or folder under the project's `data/`, e.g. `resource("results", "voc.json")`.

    Raises:
        RecsegError: neither a clone nor the installed package has it.
    """
    for root in (_PACKAGE.parent / "data", _PACKAGE / "_data"):
        path = root.joinpath(*parts)
        # Not an unrelated `data/` folder next to an installed package: pyproject.toml marks a clone.
        if path.exists() and (root.name == "_data" or (root.parent / "pyproject.toml").is_file()):
            return path
    raise RecsegError(f"data/{'/'.join(parts)}: not part of this installation of recseg")


def cache_dir() -> Path:
    """Folder for files that can be recreated (generated images, downloads): `$RECSEG_CACHE` or `~/.cache/recseg`."""
    return Path(os.environ.get("RECSEG_CACHE") or Path.home() / ".cache" / "recseg")


def small_mode() -> bool:
    """Whether chapters should run at a small scale (`RECSEG_SMALL=1`, as in builds and tests)."""
    return os.environ.get("RECSEG_SMALL", "").lower() in {"1", "true"}
