"""The parts around a gradient step: who is decayed, how the learning rate moves, the averaged model to publish.

Chapter 7 of the book explains this file. AdamW: Loshchilov and Hutter, ICLR 2019. The poly schedule: Chen et al.,
"DeepLab", 2017. Averaging weights: Polyak and Juditsky, 1992.
"""

import copy

import torch
from torch import Tensor, nn


def parameter_groups(model: nn.Module, lr: float, encoder_lr: float, weight_decay: float) -> list[dict[str, object]]:
    """Parameters by learning rate and decay: norms and biases are not decayed, a pretrained encoder learns slower.

    Frozen parameters belong to no group.
    Each group keeps `base_lr`, which the schedule multiplies.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = encoder_lr if name.startswith("encoder.") else lr
        decay = weight_decay if parameter.ndim > 1 else 0.0  # vectors are biases and the scales of norms
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def schedule(step: int, progress: float, *, warmup: int, power: float = 0.9) -> float:
    """Factor of the learning rate: a linear rise over `warmup` steps, then poly decay to zero.

    Args:
        step: 0-based.
        progress: share of the whole training that is behind, in [0, 1]; of steps or of minutes.
    """
    rise: float = min(1.0, (step + 1) / max(1, warmup))
    fall: float = (1.0 - min(1.0, progress)) ** power
    return rise * fall


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


class ExponentialMovingAverage:
    """A second model that follows the first slowly; it scores better than the last step, and it is what gets published.

    The decay warms up, so that the random start is forgotten within the first steps of a short training too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model` after step number `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)  # counters of batch norms
        torch._foreach_lerp_(averages, values, 1 - decay)
