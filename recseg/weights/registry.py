"""The registry of published weights, and the verification of their checksums.

`data/weights/registry.json` has, for each name, the file, its sha256 and the result that it is published with. A clone
includes every file; a wheel includes some, and the others are downloaded to the cache on demand.
"""

import hashlib
import importlib.metadata
import json
import re
import shutil
from pathlib import Path
from typing import Any

from recseg.data.download import download
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.resources import cache_dir, resource

_CLONE = Path(__file__).resolve().parents[2]
RUN_WEIGHTS = "weights.safetensors"  # in a run folder: the averaged (EMA) weights
_NEEDED = ("data", "split", "miou", "images")
_KEPT = (*_NEEDED, "slot_accuracy", "slot_iou", "label_set_f1", "count_accuracy", "command", "seed", "commit", "date")


def published_weights() -> list[dict[str, Any]]:
    """Entries of the registry, sorted by name: `name`, `file`, `sha256`, `bytes`, `kind`, `data`, `split`, `miou`, …

    Raises:
        RecsegError: the registry is damaged.
    """
    try:
        path = resource("weights", "registry.json")
    except RecsegError:
        return []  # an installation without published weights can still load files and runs
    return [{"name": name, **entry} for name, entry in sorted(_read(path).items())]


def find(name: str) -> Path | None:
    """The file of published weights, its checksum verified; None if nothing is published under that name.

    Raises:
        RecsegError: the file is not the one that was published, or is missing and could not be downloaded.
    """
    for entry in published_weights():
        if entry["name"] == name:
            try:
                path = resource("weights", entry["file"])
            except RecsegError:
                return _fetch(entry)
            digest = _sha256(path)
            if digest != entry["sha256"]:
                raise RecsegError(f"{path}: damaged or replaced: sha256 {digest}, expected {entry['sha256']}")
            return path
    return None


def locate(source: str | Path) -> Path:
    """The weight file for a published name, a file, or the folder of a run.

    A published name takes precedence over a file of that name: write `./NAME` for the file.

    Raises:
        RecsegError: no such name, file or run.
    """
    path = find(source) if isinstance(source, str) else None
    if path is not None:
        return path
    path = Path(source)
    if path.is_dir():
        path = path / RUN_WEIGHTS
        if not path.is_file():
            raise RecsegError(f"{source}: no {RUN_WEIGHTS} in this folder: not the folder of a training run")
    elif not path.is_file():
        known = ", ".join(entry["name"] for entry in published_weights()) or "none"
        raise RecsegError(f"{source}: no such file or run, nor published weights (published: {known})")
    return path


def addresses(file: str) -> list[str]:
    """URLs of a published file: the release of this version, then the current state of the repository.

    The repository's URL is from the package metadata. Weights in the repository may have been retrained since; then the
    checksum differs.
    """
    try:
        about = importlib.metadata.metadata("recseg")
    except importlib.metadata.PackageNotFoundError:
        return []
    links = dict(line.split(", ", 1) for line in about.get_all("Project-URL", []))
    base = links["Repository"]
    return [f"{base}/releases/download/v{about['Version']}/{file}", f"{base}/raw/main/data/weights/{file}"]


def _fetch(entry: dict[str, Any]) -> Path:
    file, checksum = Path(entry["file"]), entry["sha256"]
    path = cache_dir() / "weights" / f"{file.stem}-{checksum[:8]}{file.suffix}"  # versions differ in their weights
    if path.is_file() and _sha256(path) == checksum:  # works with a read-only cache
        return path
    try:
        return download(addresses(file.name), checksum, path, expected_size=entry.get("bytes"))
    except RecsegError as error:
        raise RecsegError(
            f"{entry['name']}: {file.name} is not part of this installation and could not be fetched ({error}): "
            "run it again with a network connection, or give the path of a copy of the file"
        ) from error


def register(name: str, file: Path | str, result: dict[str, Any], *, folder: Path | None = None) -> dict[str, Any]:
    """Copy a weight file to `data/weights` of the clone as `NAME.safetensors`, and add it to the registry.

    Args:
        name: lower-case letters, digits, `.`, `_` and `-`; an entry of that name is replaced.
        file: the weights.
        result: the measurement that it is published with; needs `data`, `split`, `miou` and `images`.
        folder: folder to use instead of `data/weights` of this clone.

    Returns:
        The entry written.

    Raises:
        RecsegError: the file does not load, the name is invalid, the result lacks these keys, or this is not a clone.
    """
    from recseg.weights.io import load  # here, since it imports this module

    model = load(Path(file))
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise RecsegError(f"{name!r}: expected a name of lower-case letters, digits, '.', '_' and '-'")
    missing = [key for key in _NEEDED if key not in result]
    if missing:
        raise RecsegError(f"{name}: the result to publish it with lacks {', '.join(missing)}")
    if folder is None:
        if not (_CLONE / "pyproject.toml").is_file():
            raise RecsegError("weights are published from a clone of the project, but this is an installed package")
        folder = _CLONE / "data" / "weights"
    path = folder / "registry.json"
    registry = _read(path) if path.exists() else {}  # read before the weights are replaced: it may be damaged
    target = folder / f"{name}.safetensors"
    if not (target.exists() and target.samefile(file)):
        with atomic_write(target) as temporary:
            shutil.copyfile(file, temporary)
    entry = {
        "file": target.name,
        "sha256": _sha256(target),
        "bytes": target.stat().st_size,
        "kind": model.kind,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "classes": len(model.classes),
        "image_size": model.image_size,
        **{key: result[key] for key in _KEPT if key in result},
    }
    registry[name] = entry
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(registry, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return entry


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        registry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecsegError(f"{path}: not a readable registry of weights ({error})") from error
    if not isinstance(registry, dict):
        raise RecsegError(f"{path}: not a registry of weights: expected an object with an entry for each name")
    for name, entry in registry.items():
        file = entry.get("file") if isinstance(entry, dict) else None
        # A plain name: an entry must not point outside the folder of weights.
        if not isinstance(file, str) or not file or Path(file).name != file or not isinstance(entry.get("sha256"), str):
            raise RecsegError(f"{path}: entry {name!r} needs 'file', a plain file name, and 'sha256'")
    return registry


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RecsegError(f"{path}: cannot be read ({error.strerror or error})") from error
