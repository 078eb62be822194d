"""The device and the numerical precision that a network runs with.

Chapter 8 of the book explains this file.
"""

import os
import shutil
from types import MethodType

import torch
from torch import Tensor, nn

from recseg.errors import RecsegError


def choose_device(name: str | None) -> torch.device:
    """A device by name, or the fastest one available."""
    if name is not None:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise RecsegError(f"device {name!r}: not available here, expected {' or '.join(available())}") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def available() -> list[str]:
    """Names of this machine's devices."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda"] if cards else []), *(f"cuda:{number}" for number in range(1, cards)), *mps]


def choose_precision(amp: str, device: torch.device, size: int = 256) -> torch.dtype | None:
    """The 16-bit type to compute in, or None for 32 bits: 16 bits pay off only with hardware support.

    On a CPU, "auto" keeps crops below 64 pixels at 32 bits: with feature maps of a single cell, PyTorch 2.11's 16-bit
    gradients were seen to contain uninitialised memory.
    """
    if amp == "off":
        return None
    if amp == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        capable = device.type == "cpu" and size >= 64 and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if capable else None
    return torch.bfloat16 if amp == "bf16" else torch.float16


def precision_name(precision: torch.dtype | None) -> str:
    """Name of the result of `choose_precision`: "float32", "bfloat16" or "float16"."""
    return str(precision or torch.float32).removeprefix("torch.")


def depthwise_in_float32(model: nn.Module) -> None:
    """Run a network's depthwise convolutions in float32 even under autocast; for training on CPUs.

    On CPUs, PyTorch's backward pass of a depthwise convolution is slow in bfloat16: forward and backward of the encoder
    EfficientNet-Lite0 on 16 crops of 192×192 pixels took 0.87 s on one core, and 0.56 s with this.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = MethodType(_in_float32, module)  # type: ignore[method-assign]


def _in_float32(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return type(convolution).forward(convolution, x.float())


def compile_parts(model: nn.Module) -> None:
    """Compile encoder and decoder with `torch.compile`, for all batch and image sizes; in place.

    The names of the weights do not change, and a copy of the network is not compiled.

    Raises:
        RecsegError: no C++ compiler, or a network without encoder and decoder.
    """
    parts = [part for name, part in model.named_children() if name in ("encoder", "decoder")]
    if len(parts) < 2:
        raise RecsegError("--compile: expected --model recurrent or dense, whose encoder and decoder are modules")
    if not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++", "cl"))):
        raise RecsegError("--compile: expected a C++ compiler such as g++ or clang++, found none; leave it out")
    for part in parts:
        part.compile(dynamic=True)
