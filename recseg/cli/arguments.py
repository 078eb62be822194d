"""Argument types of the command line, for numbers, names and outputs, with error messages in plain words."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from recseg.errors import RecsegError
from recseg.files import STDOUT
from recseg.models.config import check_encoder_name


def _number(text: str, convert: type[int] | type[float], least: float, words: str, below: float = float("inf")) -> Any:
    try:
        value = convert(text)
    except ValueError:
        value = least - 1
    if not least <= value < below:
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
    return value


natural = partial(_number, convert=int, least=0, words="a whole number from 0")
positive = partial(_number, convert=int, least=1, words="a whole number from 1")
side = partial(_number, convert=int, least=2, words="a whole number from 2")
real = partial(_number, convert=float, least=1e-12, words="a number above 0")
zero_or_more = partial(_number, convert=float, least=0, words="a number from 0")
share = partial(_number, convert=float, least=0, words="a number from 0 to below 1", below=1)


def text_file(text: str) -> Path:
    """A text output: `-` is standard output, `./-` a file with that name."""
    return STDOUT if text == "-" else Path(text)


def folder(text: str) -> Path:
    """An output folder."""
    if text == "-":
        raise argparse.ArgumentTypeError("'-' is standard output, expected a folder (./- for one with that name)")
    return Path(text)


def encoder(text: str) -> str:
    try:
        check_encoder_name(text)
    except RecsegError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
