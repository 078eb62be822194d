"""Trained networks as folders, and from the Hugging Face Hub: `save_pretrained` and `from_pretrained`.

The folder has `weights.safetensors`, which includes the configuration and is the only file read, and `config.json`, the
same description for people and for the Hub's pages.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recseg.errors import RecsegError, one_line
from recseg.files import atomic_write
from recseg.models.model import SegmentationModel
from recseg.weights.io import load, save_weights
from recseg.weights.registry import RUN_WEIGHTS
from recseg.weights.safetensors import open_tensors


def save_pretrained(
    model: SegmentationModel,
    folder: Path | str,
    *,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a network to a folder for `from_pretrained`, `recseg.load`, or upload to the Hub.

    Args:
        model: a network of this package.
        folder: created if missing; existing files are replaced.
        classes: names of its labels, background first. None: those of the loaded network.
        image_size: short side, in pixels, of the images that it was trained for. None: that of the loaded network.
        metadata: anything JSON-able: data, score, command … None: that of the loaded network, if any.

    Returns:
        The folder.

    Raises:
        RecsegError: classes or image size are neither given nor known, or the folder cannot be written.
    """
    folder = Path(folder)
    about: dict[str, Any] = {"classes": classes, "image_size": image_size, "metadata": metadata}
    for name in about:
        if about[name] is None:
            about[name] = getattr(model, name)
        if not about[name] and name != "metadata":
            raise RecsegError(f"{folder}: this network was not loaded from a file and has no {name}: expected {name}=…")
    weights = folder / RUN_WEIGHTS
    save_weights(weights, model, **about)
    with open_tensors(weights) as file:
        text = file.text
    description = {key: value if key in ("format", "kind") else json.loads(value) for key, value in text.items()}
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps({"library_name": "recseg", **description}, indent=2) + "\n", encoding="utf-8")
    return folder


def from_pretrained(
    source: Path | str, *, revision: str | None = None, device: str | torch.device = "cpu"
) -> SegmentationModel:
    """Load a trained network in `eval()` mode, as `recseg.load` does, or from the Hugging Face Hub.

    Args:
        source: a folder or file, the name of published weights, or `"user/repository"` on the Hub, which is used only
            if there is no such local folder (extra `[hub]`).
        revision: branch, tag or commit of the Hub repository. None: the latest.
        device: device of the network.

    Raises:
        RecsegError: no such name locally or on the Hub, or a file that does not fit.
    """
    name = str(source)
    if Path(source).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return load(source, device)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise RecsegError(f"{name}: no such folder; to ask the Hugging Face Hub, install recseg[hub]") from error
    try:
        path = hf_hub_download(name, RUN_WEIGHTS, revision=revision)
    except Exception as error:  # network, disk, names, permissions: no common base class
        message = one_line(str(error)) or type(error).__name__
        raise RecsegError(
            f"{name}: no such folder, and {RUN_WEIGHTS} could not be fetched from the Hugging Face Hub ({message})"
        ) from error
    return load(Path(path), device)
