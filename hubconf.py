"""Entry points for `torch.hub`, which downloads this repository; no installation is needed:

torch.hub.load("recseg/recseg", "recurrent_unet", weights="pictograms-recurrent")
"""

from typing import Any as _Any

from torch import nn as _nn

from recseg.errors import RecsegError as _RecsegError
from recseg.models.recurrent_unet import RecurrentUNet as _RecurrentUNet
from recseg.models.recurrent_unet import RecurrentUNetConfig as _RecurrentUNetConfig
from recseg.models.unet import UNet as _UNet
from recseg.models.unet import UNetConfig as _UNetConfig

# Underscores, because torch.hub takes every other callable name for an entry point.
from recseg.weights.io import load as _load

dependencies = ["filelock", "numpy", "PIL", "safetensors", "scipy", "timm", "torch", "torchvision", "tqdm"]


def recurrent_unet(weights: str | None = None, **options: _Any) -> _nn.Module:
    """The recurrent U-Net.

    Args:
        weights: name of published weights, or path of a file or run; the network is in `eval()` mode. None: untrained.
        options: for an untrained network: fields of `recseg.RecurrentUNetConfig`.
    """
    return _trained(weights, _RecurrentUNet, options) or _RecurrentUNet(_RecurrentUNetConfig(**options))


def unet(weights: str | None = None, **options: _Any) -> _nn.Module:
    """The dense baseline; arguments as for `recurrent_unet`, with the fields of `recseg.UNetConfig` as options."""
    return _trained(weights, _UNet, options) or _UNet(_UNetConfig(**options))


def _trained(weights: str | None, network: type[_nn.Module], options: dict[str, _Any]) -> _nn.Module | None:
    if weights is None:
        return None
    if options:
        raise _RecsegError(f"{min(options)}: weights come with their own configuration; give either, not both")
    model = _load(weights)
    if not isinstance(model, network):
        raise _RecsegError(f"{weights}: is a {type(model).__name__}, expected a {network.__name__}")
    return model
