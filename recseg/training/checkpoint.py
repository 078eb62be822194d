"""The complete training state in one safetensors file: an interrupted run resumes exactly where it stopped.

Tensors (weights, averaged weights, the optimisers' moments, random states) are stored under prefixed names, numbers as
JSON metadata.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError
from recseg.models.model import SegmentationModel
from recseg.training.config import TrainConfig
from recseg.weights.io import save_weights
from recseg.weights.safetensors import write_tensors

FORMAT = "recseg-training-2"


def save_state(
    path: Path,
    model: nn.Module,
    average: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    scaler: GradScaler,
    progress: dict[str, Any],
) -> None:
    """Write everything that the next update depends on.

    Args:
        progress: JSON-serialisable state of the loop: step, elapsed seconds, …
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{index}.{name}": value for name, value in state.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    # Clones: safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = {"format": FORMAT, "progress": json.dumps(progress), "scaler": json.dumps(scaler.state_dict())}
    write_tensors(path, tensors, text)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str], dict[str, Any]]]:
    """Open a checkpoint; yields the file, its metadata and the decoded `progress`."""
    try:
        with safe_open(path, framework="pt") as stream:
            text = stream.metadata() or {}
            if text.get("format") != FORMAT:
                raise RecsegError(f"{path}: not a training checkpoint, expected format {FORMAT!r}")
            yield stream, text, json.loads(text["progress"])
    except RecsegError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise RecsegError(f"{path}: not a readable checkpoint ({error})") from error


def read_progress(path: Path) -> dict[str, Any]:
    """The `progress` of a checkpoint, without its tensors.

    Raises:
        RecsegError: the file is missing or damaged.
    """
    with _opened(path) as (_, _, progress):
        return progress


def load_state(
    path: Path,
    model: nn.Module,
    average: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    scaler: GradScaler,
    check: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Restore a saved state in place; returns its `progress`.

    Args:
        check: called with the progress before anything is changed; raises if the run must not continue.

    Raises:
        RecsegError: the file is missing, damaged or from another network.
    """
    with _opened(path) as (stream, text, progress):
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a dict
    if check is not None:
        check(progress)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    moments: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    for name, value in part("optimiser.").items():
        number, index, key = name.split(".", 2)
        moments[int(number)].setdefault(int(index), {})[key] = value
    try:
        model.load_state_dict(part("model."))
        average.load_state_dict(part("average."))
        for optimiser, state in zip(optimisers, moments, strict=True):
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        if scaling := json.loads(text["scaler"]):  # empty if the checkpoint was saved without loss scaling
            scaler.load_state_dict(scaling)
    except (RuntimeError, ValueError, KeyError) as error:
        raise RecsegError(f"{path}: does not fit the network that the run's config.json describes") from error
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return progress


def save_average(
    path: Path, average: SegmentationModel, config: TrainConfig, dataset: SegmentationFolder, **more: Any
) -> None:
    """Write the averaged weights for inference, with metadata on how they were trained."""
    assert config.image_size is not None  # resolved
    about = {name: value for name, value in asdict(config).items() if value is not None}
    about["data"] = Path(config.data).name  # the name, not the path on this machine
    if config.encoder_weights is not None:
        about["encoder_weights"] = Path(config.encoder_weights).name
    if config.init is not None:
        about["init"] = Path(config.init).name
    if (legend := dataset.legend.to_dict()) is not None:
        about["legend"] = legend
    about |= {"split": dataset.split, "threads": torch.get_num_threads()} | more
    save_weights(path, average, classes=dataset.classes, image_size=config.image_size, metadata=about)
