"""Fine-tuning: start from trained weights, matched by tensor name and shape, and by class name.

Chapter 7 of the book explains the training loop. As with any pretrained weights, a torchvision or timm encoder is
trained at a tenth of the learning rate, everything else (a plain encoder included) at the full rate.
"""

from dataclasses import dataclass, fields

import torch

from recseg.classes import BACKGROUND, NO_BACKGROUND
from recseg.errors import RecsegError, some
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.encoders import COUNTER
from recseg.models.model import SegmentationModel
from recseg.weights.io import load, network_config

SHOWN = 8  # names listed in a message


@dataclass(frozen=True)
class Copied:
    """What `copy_weights` has copied.

    Attributes:
        whole: names of the tensors that were copied in full.
        rows: names of the tensors of which only the rows of `classes` were copied.
        fresh: names of the parameters that keep their initial values, in whole or in part.
        classes: class names that both networks have.
    """

    whole: tuple[str, ...]
    rows: tuple[str, ...]
    fresh: tuple[str, ...]
    classes: tuple[str, ...]

    def __str__(self) -> str:
        parts = list(dict.fromkeys(name.rpartition(".")[0] for name in self.fresh if name not in self.rows))
        rows = f", and the classifier rows of {some(self.classes, SHOWN) or 'no class'}" if self.rows else ""
        return f"{len(self.whole)} tensors copied{rows}; new: {some(parts, SHOWN) or 'nothing else'}"


def network_of(source: str) -> RecurrentUNetConfig:
    """The configuration of the network in a weight file, for a new network that starts from it.

    Args:
        source: as for `recseg.load`.

    Raises:
        RecsegError: nothing of that name, or a file that describes no network.
    """
    config = network_config(source)
    names = {field.name for field in fields(RecurrentUNetConfig)}
    known = {field.name for field in fields(config)} & names if isinstance(config, UNetConfig) else set()
    return RecurrentUNetConfig(**{name: getattr(config, name) for name in known})


@torch.no_grad()
def copy_weights(model: SegmentationModel, source: SegmentationModel) -> Copied:
    """Copy the tensors that fit from one network to another, in place: by name and shape, classifier rows by class.

    Each classifier row belongs to a class (`SegmentationModel.class_rows`) and is copied if both networks have a class
    of that name. The background is the same class whatever its name. Between a dense and a recurrent network, encoder,
    decoder and classifier are copied.

    Args:
        model: the network to start, with its `classes`.
        source: a trained network, with its `classes`.
    """
    target, given = model.state_dict(), source.state_dict()
    old = {name: label for label, name in enumerate(_names(source))}
    pairs = [(label, old[name]) for label, name in enumerate(_names(model)) if name in old]
    whole, rows = list[str](), list[str]()
    for name, tensor in target.items():
        other = given.get(name)
        if other is None or name.endswith(COUNTER):
            continue
        if name in model.class_rows:
            first = model.class_rows[name]  # label of row 0
            here = [(label - first, before - first) for label, before in pairs if min(label, before) >= first]
            if here and other.shape[1:] == tensor.shape[1:]:
                to, of = map(list, zip(*here, strict=True))
                tensor[to] = other[of].to(tensor)
                (whole if len(here) == len(tensor) else rows).append(name)
        elif other.shape == tensor.shape:
            tensor.copy_(other)
            whole.append(name)
    fresh = tuple(name for name, _ in model.named_parameters() if name not in whole)
    return Copied(tuple(whole), tuple(rows), fresh, tuple(filter(None, (model.classes[label] for label, _ in pairs))))


def _names(model: SegmentationModel) -> list[str | int]:
    """The key that each label is matched by; label 0 matches only if both networks have a background, or neither."""
    first = BACKGROUND if model.has_background else NO_BACKGROUND
    return [first, *model.classes[1:]]


def start_from(model: SegmentationModel, source: str) -> Copied:
    """Initialise a network from trained weights.

    Args:
        model: with its `classes`.
        source: as for `recseg.load`.

    Raises:
        RecsegError: what `recseg.load` raises; a different encoder; or no tensor fits.
    """
    other = load(source)
    one, two = (getattr(network.config, "encoder", None) for network in (model, other))
    if one != two:
        raise RecsegError(
            f"--init {source}: its encoder is {two or 'that of the published network'}, expected {one}; "
            "leave --encoder out to take that of the weights"
        )
    found = copy_weights(model, other)
    if not found.whole:
        raise RecsegError(f"--init {source}: no tensor has a name and a shape of this network, expected one that fits")
    return found
