"""The command line: `recseg data | train | evaluate | report | compare | results | predict | video | weights | …`.

Each command has its own file, whose `run` imports what it needs, so that `--help` is fast and `recseg weights` does not
import torchvision. User errors end as one line on stderr and exit code 2.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from recseg.cli import benchmark, compare, data, evaluate, export, predict, report, results, train, video, weights
from recseg.errors import RecsegError, one_line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other error; argparse would print the usage first."""
        self.exit(2, f"recseg: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # slower than all the rest of --help

        print(f"recseg {version('recseg')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0 on success; 1 for a score not reproduced or images skipped; 2 for bad input; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # print names that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    typed = sys.argv[1:] if argv is None else list(argv)
    arguments = build_parser().parse_args([_at_home(word) for word in typed])
    arguments.argv = typed  # recorded in results
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except RecsegError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        print(f"recseg: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `recseg weights | head`
        _discard_output()
        return 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            if error.filename is None:  # standard output
                _discard_output()
            return _complain(f"{error.filename or 'output'}: the disk is full")
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (MemoryError, RuntimeError) as error:
        # torch raises RuntimeErrors: recognised on a GPU by name (torch is not imported here), on a CPU by message.
        names = (type(error).__name__, str(error))
        if isinstance(error, MemoryError) or "OutOfMemoryError" in names or "can't allocate memory" in names[1]:
            return _complain("out of memory: try a smaller --batch-size or --size, or --device cpu")
        raise
    return 0


def _at_home(word: str) -> str:
    """Expand `~/` where a shell does not: in quotes, and after `--option=`."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + (os.path.expanduser(value) if value.startswith("~/") else value)


def _discard_output() -> None:
    """Drop what is still buffered for standard output: writing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, code: int = 2) -> int:
    print(f"recseg: error: {one_line(message)}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="recseg",
        description="Recurrent semantic segmentation: one mask and one class per step,\n"
        "for the classes that are present.",
        epilog="example: recseg predict photo.jpg --weights pictograms-recurrent --out out --gif",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # does not wrap the example
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (data, train, evaluate, report, compare, results, predict, video, weights, export, benchmark):
        module.add(commands)
    return parser
