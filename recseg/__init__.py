"""Recurrent semantic segmentation: one mask and one class a step, for the classes that are present.

Names load when first used (PEP 562): `import recseg` costs milliseconds and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recseg.checkpoints import load
    from recseg.classes import VOC_CLASSES
    from recseg.convlstm import ConvLSTM, ConvLSTMCell
    from recseg.errors import RecsegError
    from recseg.evaluation import evaluate
    from recseg.exercises import check
    from recseg.prediction import predict
    from recseg.recurrent_unet import RecurrentUNet, RecurrentUNetConfig
    from recseg.training import train
    from recseg.unet import UNet, UNetConfig

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
    "load",
    "predict",
    "train",
]

_HOME = {
    "VOC_CLASSES": "classes",
    "ConvLSTM": "convlstm",
    "ConvLSTMCell": "convlstm",
    "RecsegError": "errors",
    "RecurrentUNet": "recurrent_unet",
    "RecurrentUNetConfig": "recurrent_unet",
    "UNet": "unet",
    "UNetConfig": "unet",
    "check": "exercises",
    "evaluate": "evaluation",
    "load": "checkpoints",
    "predict": "prediction",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("recseg")  # pyproject.toml is where it stands
    if name not in _HOME:
        raise AttributeError(f"module 'recseg' has no attribute {name!r}")
    value = getattr(import_module(f"recseg.{_HOME[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
