"""Compare two answers, and describe the first difference in words.

Values and shapes matter. Types do not: a label map may be uint8 or int64, an array or a tensor.
"""

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from numbers import Number as PythonNumber
from typing import Any

import numpy as np
import torch
from torch import Tensor

RELATIVE, ABSOLUTE = 1e-4, 1e-6  # float32 sums in a different order differ by less


def as_number(answer: Any) -> float | None:
    """The number in an int, a float, or a tensor or array with one entry; None if there is none, or for a bool."""
    if isinstance(answer, (Tensor, np.ndarray)):
        answer = answer.item() if math.prod(answer.shape) == 1 else None
    if isinstance(answer, (bool, np.bool_)) or not isinstance(answer, (PythonNumber, np.number)):
        return None
    return None if isinstance(answer, complex) else float(answer)  # type: ignore[arg-type]


def to_compare(answer: Any) -> Any:
    """Convert arrays to tensors on the CPU, also inside lists and dictionaries; leave everything else as it is."""
    if isinstance(answer, Tensor):
        return answer.detach().cpu()
    if isinstance(answer, np.ndarray) and answer.dtype.kind in "biuf":
        return torch.from_numpy(answer.copy())
    if isinstance(answer, Mapping):
        return {key: to_compare(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [to_compare(value) for value in answer]
    return answer


def difference(given: Any, truth: Any) -> str | None:
    """How an answer differs from the right one, in words; None if it does not. Both from `to_compare`."""
    if isinstance(truth, Tensor) and truth.dim():
        return _tensor_difference(given, truth)
    if isinstance(truth, (bool, np.bool_)):
        same = isinstance(given, (bool, np.bool_)) or (isinstance(given, Tensor) and given.dim() == 0)
        return None if same and bool(given) == truth else f"expected {truth}, not {short(given)}"
    number = as_number(truth)
    if number is not None:
        value = as_number(given)
        if value is None:
            return f"expected a number ({short(number)}), not {short(given)}"
        return None if _close(value, number) else f"expected {short(number)}, not {short(value)}"
    if isinstance(truth, (list, tuple)):
        return _list_difference(given, truth)
    if isinstance(truth, (set, frozenset)):
        if not isinstance(given, Collection) or isinstance(given, (str, Mapping)):
            return f"expected a set, not {short(given)}"
        return None if set(given) == truth else f"expected {short(truth)}, not {short(given)}"
    if isinstance(truth, Mapping):
        return _mapping_difference(given, truth)
    if isinstance(truth, (str, bytes)):
        return None if given == truth else f"expected {short(truth)}, not {short(given)}"
    return None  # not compared: for example a network among the arguments


def _list_difference(given: Any, truth: Collection[Any]) -> str | None:
    if isinstance(given, Tensor) and given.dim():
        given = list(given)
    if not isinstance(given, (list, tuple)):
        return f"expected {len(truth)} values one after the other, not {short(given)}"
    if len(given) != len(truth):
        return f"expected {len(truth)} values, not {len(given)}"
    for index, (one, other) in enumerate(zip(given, truth, strict=True)):
        off = difference(one, other)
        if off:
            return f"value {index}: {off}"
    return None


def _mapping_difference(given: Any, truth: Mapping[Any, Any]) -> str | None:
    if not isinstance(given, Mapping):
        return f"expected a dictionary, not {short(given)}"
    if given.keys() != truth.keys():
        return f"expected the keys {short(list(truth))}, not {short(list(given))}"
    for key, value in truth.items():
        off = difference(given[key], value)
        if off:
            return f"at {key!r}: {off}"
    return None


def _tensor_difference(given: Any, truth: Tensor) -> str | None:
    if isinstance(given, list):  # of numbers, nested
        with suppress(TypeError, ValueError, RuntimeError):
            given = torch.tensor(given)
    shape = tuple(truth.shape)
    if not isinstance(given, Tensor):
        return f"expected a tensor of shape {shape}, not {short(given)}"
    if given.shape != truth.shape:
        return f"expected the shape {shape}, not {tuple(given.shape)}"
    same = torch.isclose(given.double(), truth.double(), rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    if same.all():
        return None
    first = (~same).nonzero()[0].tolist()
    index = tuple(first)
    wrong = int((~same).sum())
    others = f" (and {wrong - 1} more)" if wrong > 1 else ""
    return f"expected {short(truth[index].item())} at {first}, not {short(given[index].item())}{others}"


def _close(value: float, truth: float) -> bool:
    if math.isnan(truth) or math.isnan(value):
        return math.isnan(truth) and math.isnan(value)
    if truth == round(truth) and abs(truth) < 2**53:  # a count must be exact; a share of 1 may be off by rounding
        return abs(value - truth) < min(1e-4, ABSOLUTE * max(1.0, abs(truth)))
    return math.isclose(value, truth, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def short(value: Any) -> str:
    """A short description of a value."""
    if isinstance(value, Tensor) and value.dim():
        shown = f" {[round(x, 4) for x in value.flatten().tolist()]}" if value.numel() <= 6 else ""
        return f"a tensor of shape {tuple(value.shape)}{shown}"
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array of shape {value.shape}"
    number = as_number(value)
    if number is not None:
        return f"{int(number)}" if number == number // 1 and abs(number) < 1e15 else f"{number:.6g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:56]} … ({type(value).__name__})"
