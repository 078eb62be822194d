"""Trained weights: one self-contained safetensors file.

Its header has the network's configuration, the class names and the origin of its score, so that loading needs no other
file. Unlike a pickle, it cannot execute code: it is safe to open files from untrusted sources.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recseg.classes import VOID, Legend, check_names
from recseg.errors import RecsegError, counted, one_line
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.weights.registry import locate
from recseg.weights.safetensors import TensorFile, open_tensors, write_tensors

FORMAT = "recseg-2"
FIRST_EDITION = "recseg-1"

# Network and configuration class of each kind: a file names a kind, never a class to import.
_KINDS: dict[str, tuple[Callable[[Any], SegmentationModel], type]] = {
    "recurrent": (RecurrentUNet, RecurrentUNetConfig),
    "dense": (UNet, UNetConfig),
    "published": (PublishedNetwork, PublishedConfig),
}
_PICKLE = "a torch.save file, which could execute code and is not opened"
_FOREIGN = {
    ".onnx": "an exported network, which only recseg predict and recseg evaluate can run",
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _PICKLE),
}
_LONGEST_TEXT = 1 << 20  # characters of one entry of a file's metadata
_MOST_STAGES = 16


def save_weights(
    path: Path | str,
    model: SegmentationModel,
    *,
    classes: Sequence[str],
    image_size: int,
    metadata: dict[str, Any],
    half: bool = False,
) -> None:
    """Write a network's weights and everything that `load` needs to rebuild it.

    Args:
        path: a `.safetensors` file, replaced only when the new one is complete.
        model: a network with `kind` and `config`.
        classes: names of its labels, background first.
        image_size: short side, in pixels, of the images that it was trained for.
        metadata: anything JSON-able: data, score, command …
        half: store floating-point tensors as float16, which halves the file; `load` converts to float32.

    Raises:
        RecsegError: a weight overflows float16, `load` would refuse the names or the metadata, or the file cannot be
            written.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        kept = tensor.detach().to("cpu", copy=True).contiguous()
        if half and kept.is_floating_point():
            kept = kept.half()
            if not kept.isfinite().all():
                raise RecsegError(f"{path}: tensor {name} does not fit into 16 bits; save it with half=False")
        tensors[name] = kept
    text = {
        "format": FORMAT,
        "kind": model.kind,
        "config": json.dumps(asdict(model.config)),
        "classes": json.dumps(check_names(classes, str(path))),
        "image_size": str(image_size),
        "metadata": json.dumps(metadata),
    }
    _check_text(Path(path), text)
    write_tensors(Path(path), tensors, text)


def load(source: str | Path, device: str | torch.device = "cpu") -> SegmentationModel:
    """Load a trained network in `eval()` mode, in float32.

    It has the attributes `classes` (names, background first), `image_size` (short side of its input) and `metadata`.
    The state of the global random number generator is not changed.

    Args:
        source: the name of published weights (see `recseg weights`), a `.safetensors` file, or the folder of a run.
            A published name takes precedence over a file of that name: write `./NAME` for the file.
        device: device of the network.

    Raises:
        RecsegError: no such name, a damaged file, or tensors that do not match the file's configuration.
    """
    with open_tensors(_weight_file(source)) as file:
        return _build(file).to(device).eval()


def network_config(source: Path | str) -> Any:
    """The configuration of the network in a weight file, without reading its tensors.

    Args:
        source: as for `load`.

    Raises:
        RecsegError: no such name, or a file without a valid configuration.
    """
    with open_tensors(_weight_file(source)) as file:
        return _header(file).config


def _weight_file(source: Path | str) -> Path:
    path = locate(source)
    if path.suffix in _FOREIGN:
        raise RecsegError(f"{path}: {_FOREIGN[path.suffix]}; expected a .safetensors file or the folder of a run")
    return path


class _Header(NamedTuple):
    """The checked header of a weight file."""

    build: Callable[[Any], SegmentationModel]
    config: Any
    classes: tuple[str, ...]
    image_size: int
    metadata: dict[str, Any]


def _header(file: TensorFile) -> _Header:
    path, text = file.path, file.text
    if text.get("format") == FIRST_EDITION and text.get("kind") == "recurrent":
        raise RecsegError(
            f"{path}: a recurrent network of recseg 0.1, which this version does not support; to read it: "
            "pip install recseg==0.1.0"
        )
    if text.get("format") not in (FORMAT, FIRST_EDITION):  # dense networks have not changed
        raise RecsegError(f"{path}: not recseg weights: format {text.get('format')!r}, expected {FORMAT!r}")
    _check_text(path, text)
    kind = text.get("kind", "")
    if kind not in _KINDS:
        raise RecsegError(f"{path}: unknown kind of network {kind!r}, expected one of {', '.join(_KINDS)}")
    build, make_config = _KINDS[kind]
    config = config_from_json(path, make_config, _json(path, text, "config", dict))
    _check_extent(path, asdict(config))
    classes = check_names(_json(path, text, "classes", list), f"{path}: its classes")
    image_size = _json(path, text, "image_size", int)
    metadata = _json(path, text, "metadata", dict)
    Legend.from_dict(classes, metadata.get("legend"), str(path))
    if isinstance(image_size, bool) or not 1 <= image_size <= 8192:
        raise RecsegError(f"{path}: image size {image_size} is not within 1 … 8192 pixels")
    if config.num_classes != len(classes):
        raise RecsegError(
            f"{path}: {counted(len(classes), 'class name')} for a network of {config.num_classes} classes"
        )
    return _Header(build, config, classes, image_size, metadata)


def _build(file: TensorFile) -> SegmentationModel:
    path = file.path
    build, config, classes, image_size, metadata = _header(file)
    try:
        with torch.device("meta"):  # shapes without memory: a forged configuration cannot allocate a terabyte
            file.check(build(config).state_dict())
        with torch.random.fork_rng(devices=[]):  # the initial weights are discarded: keep the random state
            model = build(config)
    except RecsegError as error:
        raise error if str(path) in str(error) else RecsegError(f"{path}: {one_line(str(error))}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise RecsegError(f"{path}: no network has this configuration ({one_line(str(error))})") from error
    model.load_state_dict({name: file.read(name) for name in file.shapes})
    model.classes, model.image_size, model.metadata = classes, image_size, metadata
    return model


def _check_text(path: Path, text: dict[str, str]) -> None:
    """Limit the header's entries; also before writing, so that `load` accepts what `save_weights` writes."""
    for key, value in text.items():
        if len(value) > _LONGEST_TEXT:
            raise RecsegError(f"{path}: its {key!r} is longer than {_LONGEST_TEXT} characters")


def _check_extent(path: Path, config: dict[str, Any]) -> None:
    """Limit the number of stages and steps, which the tensors' shapes do not limit."""
    for name, value in config.items():
        if isinstance(value, tuple) and len(value) > _MOST_STAGES:
            raise RecsegError(f"{path}: configuration {name} has {len(value)} entries, expected {_MOST_STAGES} at most")
        if name in ("num_classes", "max_steps") and value > VOID:  # label maps are uint8
            raise RecsegError(f"{path}: configuration {name} = {value}, expected {VOID} at most")


def _json(path: Path, text: dict[str, str], key: str, kind: type) -> Any:
    try:
        value = json.loads(text[key])
    except (KeyError, ValueError, RecursionError) as error:
        raise RecsegError(f"{path}: its {key!r} is missing or not JSON") from error
    if not isinstance(value, kind):
        raise RecsegError(f"{path}: its {key!r} is {type(value).__name__}, expected {kind.__name__}")
    return value


def config_from_json(path: Path, kind: type, values: dict[str, Any]) -> Any:
    """A configuration from JSON values, each of the type of its field's default; tuples are of integers."""
    defaults = vars(kind())
    unknown = sorted(values.keys() - defaults.keys())
    if unknown:
        raise RecsegError(f"{path}: its configuration has unknown field {unknown[0]!r}: made by a newer recseg?")
    fitted = {}
    for name, value in values.items():
        expected = type(defaults[name])
        if expected is tuple and type(value) is list and all(type(item) is int for item in value):
            value = tuple(value)
        elif expected is float and type(value) is int:
            value = float(value)
        if type(value) is not expected:
            raise RecsegError(f"{path}: configuration {name} = {value!r} is not of type {expected.__name__}")
        fitted[name] = value
    try:
        return kind(**fitted)
    except (TypeError, ValueError) as error:
        raise RecsegError(f"{path}: no network has this configuration ({one_line(str(error))})") from error
