"""Recurrent semantic segmentation: one mask and one class per step, for the classes that are present.

Names are imported on first use (PEP 562): `import recseg` takes milliseconds and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recseg.book.exercises import check
    from recseg.classes import VOC_CLASSES
    from recseg.errors import RecsegError
    from recseg.evaluation.evaluate import evaluate
    from recseg.inference.predict import predict
    from recseg.models.config import RecurrentUNetConfig, UNetConfig
    from recseg.models.convlstm import ConvLSTM, ConvLSTMCell
    from recseg.models.recurrent_unet import RecurrentUNet
    from recseg.models.unet import UNet
    from recseg.training.train import train
    from recseg.weights.hub import from_pretrained, save_pretrained
    from recseg.weights.io import load

    __version__: str

__all__ = [
    "VOC_CLASSES",
    "ConvLSTM",
    "ConvLSTMCell",
    "RecsegError",
    "RecurrentUNet",
    "RecurrentUNetConfig",
    "UNet",
    "UNetConfig",
    "__version__",
    "check",
    "evaluate",
    "from_pretrained",
    "load",
    "predict",
    "save_pretrained",
    "train",
]

_HOME = {
    "VOC_CLASSES": "classes",
    "ConvLSTM": "models.convlstm",
    "ConvLSTMCell": "models.convlstm",
    "RecsegError": "errors",
    "RecurrentUNet": "models.recurrent_unet",
    "RecurrentUNetConfig": "models.config",
    "UNet": "models.unet",
    "UNetConfig": "models.config",
    "check": "book.exercises",
    "evaluate": "evaluation.evaluate",
    "from_pretrained": "weights.hub",
    "load": "weights.io",
    "predict": "inference.predict",
    "save_pretrained": "weights.hub",
    "train": "training.train",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("recseg")  # defined in pyproject.toml
    if name not in _HOME:
        raise AttributeError(f"module 'recseg' has no attribute {name!r}")
    value = getattr(import_module(f"recseg.{_HOME[name]}"), name)
    globals()[name] = value  # later look-ups bypass this function
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
