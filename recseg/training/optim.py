"""Optimisers and their parameter groups, the learning-rate schedule, and weight averaging.

Chapter 7 of the book explains this file. AdamW: Loshchilov and Hutter, ICLR 2019. The poly schedule: Chen et al.,
"DeepLab", 2017. Averaging weights: Polyak and Juditsky, 1992.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from recseg.training.muon import Muon


def parameter_groups(model: nn.Module, lr: float, encoder_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters by optimiser, learning rate and weight decay: vectors are not decayed, frozen ones left out.

    Each group has `base_lr`, which the schedule multiplies, and `hidden`: whether it is for `Muon`.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = encoder_lr if name.startswith("encoder.") else lr
        decay = weight_decay if parameter.ndim > 1 else 0.0  # vectors are biases and norm scales
        groups.setdefault((rate, decay, is_hidden(name, parameter)), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay, "hidden": hidden}
        for (rate, decay, hidden), parameters in groups.items()
    ]


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a weight maps many features to many: a convolution between the first and the heads.

    Muon updates all directions of a weight equally. That does not suit weights whose directions have a meaning of their
    own, such as colours, classes, or the single channel of a depthwise filter.
    """
    return parameter.ndim == 4 and min(parameter.shape[:2]) >= 16 and not name.startswith(("head.", "classifier."))


def make_optimisers(name: str, groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
    """ "muon": Muon for the hidden weights and AdamW for all others; "adamw": AdamW for all. Fused on GPUs."""
    fused = True if groups[0]["params"][0].is_cuda else None  # one kernel for all weights
    hidden = [group for group in groups if group["hidden"] and name == "muon"]
    others = [group for group in groups if not group["hidden"] or name != "muon"]
    adamw = torch.optim.AdamW(others, fused=fused)
    return [Muon(hidden), adamw] if hidden else [adamw]


def schedule(step: int, progress: float, *, warmup: int, power: float = 0.9) -> float:
    """Factor of the learning rate: a linear rise over `warmup` steps, then poly decay to zero.

    Args:
        step: 0-based.
        progress: share of the budget that is used up, in [0, 1].
    """
    rise: float = min(1.0, (step + 1) / max(1, warmup))
    fall: float = (1.0 - min(1.0, progress)) ** power
    return rise * fall


def set_learning_rate(optimisers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor


class _Average(AveragedModel):
    """`AveragedModel` that counts updates on the CPU: PyTorch's own waits for the device at each update."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.n_averaged.fill_(1)  # the initial weights count

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        update = int(self.n_averaged) - 1  # 0-based
        pairs = [*zip(_values(self.module), _values(model), strict=True)]
        ours, theirs = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(ours, theirs, 1 - min(self.decay, (1 + update) / (10 + update)))
        if counters := [pair for pair in pairs if not pair[0].is_floating_point()]:  # of batch norms
            ours, theirs = zip(*counters, strict=True)
            torch._foreach_copy_(ours, theirs)
        self.n_averaged += 1


def _values(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's weights; it scores better than the last weights and gets published.

    Call `update_parameters(model)` after each update; the network itself is `module`. The decay warms up, so that the
    random initial weights are soon forgotten, even in a short run.
    """
    return _Average(model, decay).eval().requires_grad_(False)
