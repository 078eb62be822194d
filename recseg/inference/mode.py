"""A network as it is in use: dropout off, batch statistics frozen, no gradients. Afterwards it is what it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def inference_mode(model: nn.Module) -> Iterator[None]:
    """Run a block with a network in `eval()` and inference mode, whatever mode it was handed over in.

    Each module gets its own mode back, also after an error: a frozen batch norm in a network in training stays frozen.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
