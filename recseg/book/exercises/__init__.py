"""`recseg.check("ch05.ex2", answer)`: check an answer to an exercise, and say what is wrong with it.

Every exercise of the book that has one answer has a checker here, one file per chapter. Checkers contain no solutions
as numbers: they compute the right answer with the package itself, or compare the reader's function with their own.
"""

import difflib

import torch

from recseg.book.exercises import (
    chapter01,
    chapter02,
    chapter03,
    chapter04,
    chapter05,
    chapter06,
    chapter07,
    chapter08,
    chapter09,
    chapter10,
    chapter11,
    chapter12,
    chapter13,
    chapter14,
    chapter15,
)
from recseg.book.exercises.exercise import Exercise, Off
from recseg.errors import RecsegError

__all__ = ["EXERCISES", "check"]

_CHAPTERS = (
    chapter01, chapter02, chapter03, chapter04, chapter05, chapter06,
    chapter07, chapter08, chapter09, chapter10, chapter11, chapter12,
    chapter13, chapter14, chapter15,
)  # fmt: skip

EXERCISES: dict[str, Exercise] = {
    f"ch{chapter.__name__[-2:]}.ex{exercise}": checker
    for chapter in _CHAPTERS
    for exercise, checker in chapter.EXERCISES.items()
}


def check(name: str, answer: object, *, strict: bool = False) -> None:
    """Print one line: "right", or what is wrong with an answer to an exercise of the book.

    Args:
        name: of the exercise, such as "ch05.ex2", as given in the exercise's text.
        answer: what the exercise asks for: a number, a tensor, a function, a network.
        strict: raise instead of printing what is wrong. The book's own solutions are checked like this at each build.

    Raises:
        RecsegError: no exercise of this name (the message lists similar ones); with `strict`, a wrong answer.
    """
    if not isinstance(name, str) or name not in EXERCISES:
        near = difflib.get_close_matches(str(name), EXERCISES, n=4, cutoff=0.5) or list(EXERCISES)[:4]
        raise RecsegError(f"exercise {name!r}: no checker of this name; similar ones are {', '.join(near)}")
    try:
        if answer is ...:
            raise Off("no answer yet: replace the dots with yours")
        with torch.random.fork_rng(devices=[]):  # leave the reader's random state unchanged
            torch.manual_seed(0)
            EXERCISES[name].judge(answer)
    except Off as off:
        line = " ".join(f"{name}: {off}".split())
        if strict:
            raise RecsegError(line) from off.__cause__
        print(line)
    else:
        print(f"{name}: right")
