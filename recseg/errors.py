"""The error for bad input: always a single clear line, never a traceback on the command line."""

import re
from collections.abc import Iterable


class RecsegError(ValueError):
    """Bad input. The message is one line that names the file or value and says what was expected.

    Attributes:
        exit_code: exit status of a command that fails with it.
    """

    exit_code = 2


def counted(number: int, thing: str) -> str:
    """A number and its noun, as in "1 image" and "2 images"."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def some(words: Iterable[str], most: int = 5) -> str:
    """The first words, and how many more there are."""
    listed = list(words)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def one_line(message: str) -> str:
    """A message made safe for a terminal: one line, with unprintable characters of file names (escape sequences, bytes
    of another encoding) escaped.
    """
    line = re.sub(r"\s*[\r\n]\s*", " ", message.strip())
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in line)
