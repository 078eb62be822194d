"""Exercises: objects that judge an answer and recognise typical mistakes.

There are three kinds. `Number` computes one number. `Function` calls the reader's function and the correct one on the
same inputs. `Custom` is for exercises with many right answers, such as a network or a matrix with some property.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from recseg.book.exercises.comparison import as_number, difference, short, to_compare
from recseg.book.exercises.running import Off, call

Mistakes = Sequence[tuple[Any, str]]  # wrong answers, and a hint for each

__all__ = ["Case", "Custom", "Exercise", "Function", "Mistakes", "Number", "Off"]


class Exercise(Protocol):
    """The interface that `recseg.check` uses."""

    def judge(self, answer: Any) -> None:
        """Do nothing if the answer is right.

        Raises:
            Off: one line that says what is wrong.
        """

    def mistakes(self) -> Mistakes:
        """Typical wrong answers, and what `judge` says about each."""


class Case(NamedTuple):
    """One input of a function: its name in messages ("an empty mask"), and the arguments."""

    name: str
    arguments: tuple[Any, ...]


class Number:
    """An exercise whose answer is one number.

    Args:
        truth: computes the right number.
        mistakes: computes the results of typical mistakes, and a hint for each.
        what: the number in words, such as "the share of images".
        share: whether it is a share between 0 and 1; an answer in per cent then gets a message of its own.
    """

    def __init__(
        self, what: str, truth: Callable[[], float], mistakes: Callable[[], Mistakes], *, share: bool = False
    ) -> None:
        self.what, self.truth, self.mistakes, self.share = what, truth, mistakes, share

    def judge(self, answer: Any) -> None:
        if callable(answer):
            raise Off(f"the answer is a function; expected {self.what}, a number")
        value, truth = as_number(answer), self.truth()
        if value is None:
            raise Off(f"the answer is {short(answer)}; expected {self.what}, a number")
        if difference(value, truth) is None:
            return
        if math.isnan(value):
            raise Off(f"the answer is NaN, not a number; expected {self.what}")
        for wrong, hint in self.mistakes():
            if difference(value, wrong) is None:
                raise Off(hint)
        if self.share and not 0 <= value <= 1:
            per_cent = difference(value / 100, truth) is None
            raise Off(
                f"{short(value)} is in per cent; give {self.what} as a share between 0 and 1"
                if per_cent
                else f"{short(value)} is not a share: {self.what} lies between 0 and 1"
            )
        raise Off(f"{short(value)} is too {'small' if value < truth else 'large'} for {self.what}")


class Function:
    """An exercise whose answer is a function, which is compared with the correct one on a few inputs.

    Args:
        signature: how it is called, such as "labels → number of classes".
        truth: the correct function.
        cases: makes the inputs, chosen to expose different mistakes.
        mistakes: wrong functions, each with a hint, which is shown if the reader's agrees with it on all inputs.
    """

    def __init__(
        self,
        signature: str,
        truth: Callable[..., Any],
        cases: Callable[[], Iterator[Case]],
        mistakes: Sequence[tuple[Callable[..., Any], str]],
    ) -> None:
        self.signature, self.truth, self.cases, self._mistakes = signature, truth, cases, mistakes

    def mistakes(self) -> Mistakes:
        return self._mistakes

    def judge(self, answer: Any) -> None:
        if not callable(answer):
            raise Off(f"the answer is {short(answer)}; expected a function, {self.signature}")
        cases = list(self.cases())
        expected = [to_compare(call(self.truth, case.name, case.arguments)) for case in cases]
        given = []
        first = None
        for case, truth in zip(cases, expected, strict=True):
            given.append(to_compare(call(answer, case.name, case.arguments)))
            off = difference(given[-1], truth)
            if off and first is None:
                first = f"on {case.name}: {off}"
        if first is None:
            return
        for mistake, hint in self._mistakes:
            if self._same(mistake, cases, given):
                raise Off(f"{hint} ({first})")
        raise Off(first)

    def _same(self, mistake: Callable[..., Any], cases: list[Case], given: list[Any]) -> bool:
        """Whether a wrong function gives the same results as the reader's on all inputs."""
        try:
            made = [to_compare(call(mistake, case.name, case.arguments)) for case in cases]
        except Off:
            return False
        return all(difference(one, other) is None for one, other in zip(given, made, strict=True))


class Custom:
    """An exercise with many right answers.

    Args:
        judge: raises `Off` unless the answer has the required property.
        mistakes: makes typical wrong answers, and what `judge` says about each.
    """

    def __init__(self, judge: Callable[[Any], None], mistakes: Callable[[], Mistakes]) -> None:
        self.judge, self.mistakes = judge, mistakes
