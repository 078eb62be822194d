"""Where a network runs, and in how many bits it computes there.

Chapter 8 of the book explains this file.
"""

import os
import shutil
from types import MethodType

import torch
from torch import Tensor, nn

from recseg.errors import RecsegError


def choose_device(name: str | None) -> torch.device:
    """A device by name, or the fastest there is."""
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
    """Names of the devices of this machine."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda"] if cards else []), *(f"cuda:{number}" for number in range(1, cards)), *mps]


def choose_precision(amp: str, device: torch.device, size: int = 256) -> torch.dtype | None:
    """The 16-bit type to compute in, or None for 32 bits: 16 bits only pay where the hardware has them.

    "auto" leaves crops below 64 pixels at 32 bits on a CPU: there PyTorch 2.11's gradients in 16 bits were seen to hold
    memory that nobody had set, for maps of a single cell.
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
    """What `choose_precision` chose, in words: "float32", "bfloat16" or "float16"."""
    return str(precision or torch.float32).removeprefix("torch.")


def depthwise_in_float32(model: nn.Module) -> None:
    """Let the depthwise convolutions of a network compute in 32 bits under autocast too; for training on CPUs.

    There PyTorch's backward pass of a depthwise convolution is slow in bfloat16: the encoder EfficientNet-Lite0 took
    0.87 s for 16 crops of 192×192 pixels on one core, forwards and backwards, and so 0.56 s.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = MethodType(_in_float32, module)  # type: ignore[method-assign]


def _in_float32(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return type(convolution).forward(convolution, x.float())


def compile_parts(model: nn.Module) -> None:
    """Let `torch.compile` write the programs of encoder and decoder, for all batches and sides; in place.

    The names of the weights stay, and a copy of the network is not compiled.

    Raises:
        RecsegError: there is no compiler, or no such part.
    """
    parts = [part for name, part in model.named_children() if name in ("encoder", "decoder")]
    if len(parts) < 2:
        raise RecsegError("--compile: expected --model recurrent or dense, whose encoder and decoder are modules")
    if not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++", "cl"))):
        raise RecsegError("--compile: expected a C++ compiler such as g++ or clang++, found none; leave it out")
    for part in parts:
        part.compile(dynamic=True)
