"""A trained network as a folder, and networks from the Hugging Face Hub: `save_pretrained` and `from_pretrained`.

The folder holds `weights.safetensors`, which says by itself what network it holds and is all that is read, and
`config.json`, the same description for people and for the Hub's pages.
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
    """Write a network to a folder that `from_pretrained` and `recseg.load` read, and that can be uploaded to the Hub.

    Args:
        model: a network of this package.
        folder: made where it is missing; files of an earlier call are replaced.
        classes: names of its labels, the background first. None: those that a loaded network carries.
        image_size: short side, in pixels, of the images that it was trained for. None: likewise.
        metadata: anything JSON can hold: data, score, command … None: what the network carries, if anything.

    Returns:
        The folder.

    Raises:
        RecsegError: neither given nor carried are classes or image size; or the folder cannot be written.
    """
    folder = Path(folder)
    about: dict[str, Any] = {"classes": classes, "image_size": image_size, "metadata": metadata}
    for name in about:
        if about[name] is None:
            about[name] = getattr(model, name)
        if not about[name] and name != "metadata":
            raise RecsegError(f"{folder}: this network was not loaded and carries no {name}: expected {name}=…")
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
    """A trained network in `eval()` mode, as `recseg.load` gives it, also from the Hugging Face Hub.

    Args:
        source: a folder or file, the name of published weights, or `"user/repository"` on the Hub, which is asked only
            where no such folder is here (extra `[hub]`).
        revision: branch, tag or commit of the repository on the Hub. None: its newest state.
        device: where the network goes.

    Raises:
        RecsegError: nothing of that name here or there, or a file that does not fit.
    """
    name = str(source)
    if Path(source).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return load(source, device)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise RecsegError(f"{name}: no such folder; to ask the Hugging Face Hub for it, install recseg[hub]") from error
    try:
        path = hf_hub_download(name, RUN_WEIGHTS, revision=revision)
    except Exception as error:  # network, disk, names and permissions: these have no common class
        message = one_line(str(error)) or type(error).__name__
        raise RecsegError(
            f"{name}: no such folder, and {RUN_WEIGHTS} could not be fetched from the Hugging Face Hub ({message})"
        ) from error
    return load(Path(path), device)
