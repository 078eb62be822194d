"""Results as JSON files, with all it takes to repeat them: command, seed, commit, versions, hardware, date.

Paths outside the project are cut to their last component, so that a result does not reveal the folders of a machine.
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
# Start of a path outside the project: the root, a home folder, a parent folder, or a Windows drive.
_START = r"(?:/|~[\w.-]*[/\\]|\.\.[/\\]|[A-Za-z]:[/\\])"
_WHOLE = re.compile(rf"([\w-]+=)?{_START}.*", re.DOTALL)  # a word that is a path, or an option with one
# Within a sentence; neither a URL nor a path inside the project.
_WITHIN = re.compile(rf"(?<![\w.:/~*\\-]){_START}[^\s'\":;,=]*")


def write_result(
    path: Path | str,
    result: dict[str, Any],
    *,
    command: str | Sequence[str] | None = None,
    seed: int | None = None,
    **details: Any,
) -> dict[str, Any]:
    """Write a result with its origin, atomically.

    Args:
        path: the JSON file.
        result: what was measured, e.g. what `evaluate` returns.
        command: command that reproduces the result; by default the command line of this process.
        seed: seed of the random number generator, if one was used.
        details: further entries, such as `data="voc"` and `split="val"`.

    Returns:
        What was written: `result` and `details`, then `command`, `seed`, `commit` (None outside a clone),
        `uncommitted_changes` of the package, `versions`, `hardware`, `date`.

    Raises:
        RecsegError: a value that JSON cannot represent (such as NaN or infinity), or a file that cannot be written.
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
    """`value` with every path outside the project, in any string in it, cut to its last component.

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
    """A word, quoted only if a shell needs it (`shlex.quote` quotes `A=1` too)."""
    return word if re.fullmatch(r"[^\s'\"\\$&|<>;()*?`#!]+", word) else shlex.quote(word)


def versions() -> dict[str, str]:
    """Versions of Python and the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in ("recseg", "torch", "torchvision"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def hardware() -> dict[str, Any]:
    """Processor, number of usable cores, and GPU (None without one)."""
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
