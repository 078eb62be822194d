"""A network as it is in use: dropout off, batch statistics frozen, no gradients; and left as it was all the while."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from recseg.errors import RecsegError

T = TypeVar("T", bound=nn.Module)


@contextmanager
def inference_mode(model: T) -> Iterator[T]:
    """Yield a network in `eval()` for a block in inference mode, whatever mode it was handed over in.

    The one that was handed over is not touched, so threads may share it, one that trains it included. Where it is in
    training, in whole or in part, the block gets a view (`eval_view`); otherwise it gets the network itself.

    Raises:
        RecsegError: another thread has put the network into training meanwhile.
    """
    with torch.inference_mode():
        if _trains(model):
            yield eval_view(model)
            return
        yield model
        if _trains(model):
            raise RecsegError(
                "the network was put into training mode while it predicted; expected eval() until the end, "
                "or a copy of the network for the thread that trains (copy.deepcopy)"
            )


def eval_view(model: T) -> T:
    """The same network in `eval()`: modules of its own, on the tensors of the one that is given."""
    return _view(model, {})


def _view(module: T, seen: dict[int, nn.Module]) -> T:
    if id(module) not in seen:  # a module may stand in two places
        seen[id(module)] = view = copy.copy(module)
        view.training = False
        view._modules = {name: child and _view(child, seen) for name, child in module._modules.items()}
    return seen[id(module)]  # type: ignore[return-value]


def _trains(model: nn.Module) -> bool:
    return any(module.training for module in model.modules())
