"""A measurement and all it takes to repeat it: command, seed, commit, versions, hardware, date. One JSON file each.

A result does not say where the folders of a machine are: paths from outside the project are cut to their last name.
"""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from recseg.errors import RecsegError
from recseg.files import atomic_write

_CLONE = Path(__file__).resolve().parents[2]
# Where a path from outside the project begins: at the root, at home, above this folder, on a drive of Windows.
_START = r"(?:/|~[\w.-]*[/\\]|\.\.[/\\]|[A-Za-z]:[/\\])"
_WHOLE = re.compile(rf"([\w-]+=)?{_START}.*", re.DOTALL)  # a word that is a path, or an option with one
# In a sentence; neither a URL nor a path in the project.
_WITHIN = re.compile(rf"(?<![\w.:/~*\\-]){_START}[^\s'\":;,=]*")


def write_result(
    path: Path | str,
    result: dict[str, Any],
    *,
    command: str | Sequence[str] | None = None,
    seed: int | None = None,
    **details: Any,
) -> dict[str, Any]:
    """Write a result with its origin; an older file is replaced only by a whole new one.

    Args:
        path: the JSON file.
        result: what was measured, e.g. what `evaluate` returns.
        command: what a reader types to get it again; by default the command line of this process.
        seed: of the random number generator, where one took part.
        details: further entries, such as `data="voc"` and `split="val"`.

    Returns:
        What was written: `result` and `details`, then `command`, `seed`, `commit` (None outside a clone),
        `uncommitted_changes` of the package, `versions`, `hardware`, `date`.

    Raises:
        RecsegError: a value that JSON cannot hold (NaN and infinity among them), or a file that cannot be written.
    """
    if command is None:
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    words = shlex.split(command) if isinstance(command, str) else command
    commit, changed = commit_of_clone()
    complete = {
        **without_paths({**result, **details}),
        "command": " ".join(_quoted(without_paths(word)) for word in words),
        "seed": seed,
        "commit": commit,
        "uncommitted_changes": changed,
        "versions": versions(),
        "hardware": hardware(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    try:
        text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise RecsegError(f"{path}: this result cannot be written as JSON ({error})") from error
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return complete


def without_paths(value: Any) -> Any:
    """`value` with every path from outside the project, in any string within, cut down to its last name.

    >>> without_paths({"weights": "/home/me/run", "json": "data/results/voc.json"})
    {'weights': 'run', 'json': 'data/results/voc.json'}
    """
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    if isinstance(value, os.PathLike):
        return without_paths(os.fspath(value))
    if not isinstance(value, str):
        return value
    if match := _WHOLE.fullmatch(value):
        return (match[1] or "") + PureWindowsPath(value).name  # knows both kinds of slash
    return _WITHIN.sub(lambda match: PureWindowsPath(match[0]).name, value)


def _quoted(word: str) -> str:
    """A word as one types it: quoted only where a shell needs it (`shlex.quote` quotes `A=1` too)."""
    return word if re.fullmatch(r"[^\s'\"\\$&|<>;()*?`#!]+", word) else shlex.quote(word)


def versions() -> dict[str, str]:
    """Versions that a figure may depend on."""
    found = {"python": platform.python_version()}
    for package in ("recseg", "torch", "torchvision"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def hardware() -> dict[str, Any]:
    """Processor, number of its cores that may be used, and GPU (None without one)."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _processor(), "cores": usable, "gpu": gpu}


def _processor() -> str:
    try:
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        models = []
    return models[0].strip() if models else platform.processor() or platform.machine()


def commit_of_clone() -> tuple[str | None, bool | None]:
    """Commit of the clone that this package runs from, and whether the package's files differ from it."""
    if not (_CLONE / ".git").exists():
        return None, None
    try:
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--", "recseg"))
    except (OSError, subprocess.SubprocessError):
        return None, None  # no git, or no commit yet


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=_CLONE, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
