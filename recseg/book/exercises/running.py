"""Run a reader's function and turn any failure into one line that names the input."""

import copy
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from recseg.book.exercises.comparison import difference, to_compare


class Off(Exception):
    """What is wrong with an answer, in one line."""


def call(function: Callable[..., Any], name: str, arguments: Sequence[Any]) -> Any:
    """Call a function on a copy of an input, which messages call `name`.

    Raises:
        Off: the function raised an error, returned None, or changed its input.
    """
    given = copy.deepcopy(tuple(arguments))
    try:
        answer = function(*given)
    except Exception as error:
        raise Off(f"on {name} your answer stops with {what_happened(error, function)}") from error
    if answer is None:
        raise Off(f"on {name} the answer is None: is there a `return` at the end?")
    for number, (before, after) in enumerate(zip(arguments, given, strict=True), 1):
        if difference(to_compare(after), to_compare(before)):
            raise Off(f"on {name} your function changes its input, argument {number}: work on a copy (`.clone()`)")
    return answer


def what_happened(error: Exception, function: Any) -> str:
    """An error in one line, with the line of the reader's code that caused it."""
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text[:160] + ' …' if len(text) > 160 else text}" if text else type(error).__name__
    code = getattr(function, "__code__", None)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename
    ]
    if not frames:
        return said
    return f"{said} (line {frames[-1].lineno}{f': {frames[-1].line}' if frames[-1].line else ''})"
