"""Run a network in evaluation mode and without gradients, without changing the network itself."""

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
    """Run a block in inference mode, and yield the network in `eval()`, whatever mode it is in.

    The network itself is not changed, so threads may share it, even with one that trains it. If any part of it is in
    training mode, the block gets a view (`eval_view`); otherwise it gets the network itself.

    Raises:
        RecsegError: another thread has put the network into training mode in the meantime.
    """
    with torch.inference_mode():
        if _trains(model):
            yield eval_view(model)
            return
        yield model
        if _trains(model):
            raise RecsegError(
                "the network was put into training mode while it predicted; expected eval() until the end, "
                "or a copy of the network (copy.deepcopy) for the thread that trains"
            )


def eval_view(model: T) -> T:
    """The same network in `eval()`: a copy of its modules that shares its tensors."""
    return _view(model, {})


def _view(module: T, seen: dict[int, nn.Module]) -> T:
    if id(module) not in seen:  # a module may be used in two places
        seen[id(module)] = view = copy.copy(module)
        view.training = False
        view._modules = {name: child and _view(child, seen) for name, child in module._modules.items()}
    return seen[id(module)]  # type: ignore[return-value]


def _trains(model: nn.Module) -> bool:
    return any(module.training for module in model.modules())
