"""Shared by the commands: sub-parsers, help texts, the device, the line about skipped images."""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypeAlias

from recseg.errors import counted
from recseg.files import STDOUT

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

WEIGHTS_HELP = "published name (see `recseg weights`), a .safetensors file, or the folder of a run"
DATA_HELP = "pictograms (generated), voc (found through RECSEG_VOC_ROOT), or a folder in VOC's layout"


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None] | None = None, text: str | None = None
) -> argparse.ArgumentParser:
    """Add a sub-parser; `main` calls `run` with the parsed arguments.

    The help is `text`, or else the docstring of `run`: its first line is the summary, and everything after the first
    paragraph is shown below the options.
    """
    description, _, epilog = inspect.cleandoc(text or run.__doc__ or name).partition("\n\n")
    summary = description.partition("\n")[0].removesuffix(".")
    parser = commands.add_parser(
        name, help=summary[0].lower() + summary[1:], description=description, epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # does not wrap the example
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def add_device(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Give a command its `--device`."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")


def message_stream(output: Path | None) -> TextIO:
    """The stream for messages: standard error if the output itself goes to standard output."""
    return sys.stderr if output == STDOUT else sys.stdout


def files_of(weights: str | Path) -> list[Path]:
    """The files that a network is read from: weights or exported graphs."""
    if str(weights).endswith(".onnx"):
        from recseg.export.runtime import PARTS, part_path

        return [part_path(Path(weights), part) for part in PARTS]
    from recseg.weights.registry import locate

    return [locate(weights)]


def skipped_line(why: dict[str, str]) -> str:
    """One line that lists the images of `why` (name → reason)."""
    return f"skipped: {counted(len(why), 'image')} that cannot be read: {', '.join(sorted(why))}"
