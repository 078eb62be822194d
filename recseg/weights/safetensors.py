"""Safetensors files: written atomically, and checked before they are read.

safetensors itself checks that the tensors lie within the file and do not overlap. This module checks names, shapes and
types before memory is allocated, and that all values are finite.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from recseg.errors import RecsegError, one_line, some
from recseg.files import atomic_write

# Types by safetensors' names: for weights, and for counters.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}


class TensorFile:
    """An open file: its metadata and its table of contents.

    Attributes:
        path: the file.
        text: the metadata strings of its header.
        shapes: shape of each tensor.
        kinds: type of each tensor, by safetensors' name: "F32", "I64" …
    """

    def __init__(self, path: Path, stream: Any) -> None:
        self.path, self._stream = path, stream
        self.text: dict[str, str] = stream.metadata() or {}
        slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118 - not a dict
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        self.kinds = {name: str(part.get_dtype()) for name, part in slices.items()}

    def check(self, expected: Mapping[str, Tensor], *, beside: tuple[str, ...] = ()) -> None:
        """Compare the table of contents with tensors, which may be on the meta device.

        Any float type is accepted for a float; integers must have the expected type.

        Args:
            expected: name → tensor.
            beside: prefixes of names to ignore.

        Raises:
            RecsegError: tensors are missing, unknown, or of the wrong shape or type.
        """
        found = {name for name in self.shapes if not name.startswith(beside)}
        problems = {
            "lacks tensor": sorted(expected.keys() - found),
            "has unknown tensor": sorted(found - expected.keys()),
            "has misshapen tensor": [
                f"{name} of shape {self.shapes[name]}, expected {tuple(tensor.shape)}"
                for name, tensor in expected.items()
                if name in found and self.shapes[name] != tuple(tensor.shape)
            ],
        }
        faults = [f"{problem} {some(names, 3)}" for problem, names in problems.items() if names]
        if faults:
            raise RecsegError(f"{self.path}: {'; '.join(faults)}")
        for name, tensor in expected.items():
            kind = (FLOATS | INTEGERS).get(self.kinds[name])
            if kind != tensor.dtype and not (self.kinds[name] in FLOATS and tensor.is_floating_point()):
                found_kind = kind or self.kinds[name]
                raise RecsegError(f"{self.path}: tensor {name} has type {found_kind}, expected {tensor.dtype}")

    def read(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            RecsegError: it has values that are not finite.
        """
        tensor: Tensor = self._stream.get_tensor(name)
        if not (tensor.float() if tensor.dtype == torch.float64 else tensor).isfinite().all():  # in 32 bits, as used
            raise RecsegError(f"{self.path}: tensor {name} holds values that are not finite")
        return tensor


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file.

    Raises:
        RecsegError: the file is missing, truncated, of another kind (a pickle, an archive), or has a forged header.
    """
    if path.exists() and not path.is_file():
        raise RecsegError(f"{path}: is not a regular file; expected a safetensors file")
    try:
        try:
            opened = safe_open(path, framework="pt")
        except RuntimeError as error:  # raised by PyTorch if the file is too large to be mapped into memory
            raise MemoryError(str(error)) from error
        with opened as stream:
            yield TensorFile(path, stream)
    except RecsegError:
        raise
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise RecsegError(f"{path}: not a safetensors file, or a damaged one ({one_line(str(error))})") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises:
        RecsegError: the file cannot be written.
    """
    # Not with safetensors' save_file: it writes to a hidden temporary file, which a killed process would leave behind.
    content = save(dict(tensors), dict(text))
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
