"""`recseg.check`: right answers pass, wrong ones get the reason, and nothing handed over ends in a traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exercise_answers import ANSWERS
from hypothesis import given, settings
from hypothesis import strategies as st

import recseg
from recseg import RecsegError
from recseg.book.exercises import EXERCISES
from recseg.book.exercises.comparison import difference, to_compare
from recseg.book.exercises.exercise import Number, Off

CHAPTERS = sorted((Path(__file__).resolve().parent.parent / "book").glob("*.ipynb"))
NAMED = r"recseg\.check\(\s*\"([^\"]+)\""
each_exercise = pytest.mark.parametrize("name", EXERCISES)


def said(capsys: pytest.CaptureFixture[str], name: str, answer: object) -> str:
    """The one line that is printed, without the exercise's name."""
    check: Callable[..., object] = recseg.check
    assert check(name, answer) is None
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.count("\n") == 1
    assert printed.out.startswith(f"{name}: ")
    return printed.out.removeprefix(f"{name}: ").strip()


def test_every_exercise_has_answers_here() -> None:
    assert EXERCISES.keys() == ANSWERS.keys()


@each_exercise
def test_a_right_answer_is_right(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert said(capsys, name, ANSWERS[name].right) == "right"


@each_exercise
def test_a_typical_wrong_answer_gets_its_hint(capsys: pytest.CaptureFixture[str], name: str) -> None:
    line = said(capsys, name, ANSWERS[name].wrong)
    assert ANSWERS[name].said in line and line != "right"


@each_exercise
def test_every_mistake_that_a_checker_knows_is_refused_with_its_own_hint(name: str) -> None:
    mistakes = EXERCISES[name].mistakes()
    assert mistakes
    for wrong, hint in mistakes:
        with pytest.raises(RecsegError, match=re.escape(" ".join(hint.split()))):
            recseg.check(name, wrong, strict=True)


@each_exercise
def test_dots_are_no_answer(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "no answer yet" in said(capsys, name, ...)


def test_an_unknown_exercise_is_an_error_that_lists_near_names() -> None:
    with pytest.raises(RecsegError, match=r"'ch5\.ex2'.*ch05\.ex2"):
        recseg.check("ch5.ex2", 1)
    with pytest.raises(RecsegError, match=r"'ch05\.ex99'.*ch05\.ex"):
        recseg.check("ch05.ex99", 1)
    with pytest.raises(RecsegError, match="similar ones are ch01"):
        recseg.check(None, 1)  # type: ignore[arg-type]


def test_strict_raises_what_would_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "ch05.ex1", 8**8)
    with pytest.raises(RecsegError) as caught:
        recseg.check("ch05.ex1", 8**8, strict=True)
    assert str(caught.value) == f"ch05.ex1: {line}"


def test_an_error_in_the_readers_code_is_one_line_with_input_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    def black(truths: list[torch.Tensor]) -> float:
        return float(sum(truth.numel() for truth in truths)) / sum(int((truth == 0).sum()) for truth in truths[:0])

    line = said(capsys, "ch09.ex4", black)
    assert "two images without void" in line and "ZeroDivisionError" in line
    assert "return float(sum(truth.numel() for truth in truths))" in line


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda labels: None, "is there a `return`"),
        (lambda labels: labels.flatten(), "expected the shape (7, 9), not (63,)"),
        (lambda labels: "cats", "expected a tensor of shape (7, 9), not 'cats'"),
        (lambda labels: labels.masked_fill_(labels == 8, 12), "changes its input"),
        (lambda: 0, "TypeError"),
        (torch.zeros(7, 9), "expected a function"),
    ],
)
def test_a_function_of_the_wrong_kind_is_explained(
    capsys: pytest.CaptureFixture[str], answer: Callable[..., Any], words: str
) -> None:
    assert words in said(capsys, "ch10.ex3", answer)


def test_arrays_and_other_kinds_of_number_are_welcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        said(capsys, "ch10.ex3", lambda labels: ANSWERS["ch10.ex3"].right(labels).numpy().astype(np.uint8)) == "right"
    )
    for number in (np.int64(120), torch.tensor(120), 120.0, np.array([120])):
        assert said(capsys, "ch01.ex4", number) == "right"
    assert "expected" in said(capsys, "ch01.ex4", True)


def test_a_check_leaves_the_random_numbers_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.random.get_rng_state()
    said(capsys, "ch02.ex3", ANSWERS["ch02.ex3"].right)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_check_leaves_the_network_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    network = ANSWERS["ch03.ex4"].right.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    said(capsys, "ch03.ex4", network)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


NUMBERS = {name: exercise for name, exercise in EXERCISES.items() if isinstance(exercise, Number)}


@given(name=st.sampled_from(sorted(NUMBERS)), factor=st.floats(0.5, 2).filter(lambda x: abs(x - 1) > 1e-3))
@settings(deadline=None, max_examples=25)
def test_another_number_is_never_right(name: str, factor: float) -> None:
    with pytest.raises(Off):
        NUMBERS[name].judge(factor * ANSWERS[name].right)


JUNK = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(-3, 3),
    st.floats(-3, 3) | st.just(float("nan")) | st.just(float("inf")),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.builds(torch.rand, st.integers(0, 3), st.integers(0, 3)),
    st.builds(np.zeros, st.tuples(st.integers(0, 3), st.integers(0, 3))),
    st.just(torch.nn.Identity()),
)


@given(name=st.sampled_from(sorted(EXERCISES)), junk=JUNK, call=st.booleans())
@settings(deadline=None, max_examples=50)
def test_whatever_is_handed_over_the_answer_is_one_line(name: str, junk: object, call: bool) -> None:
    with pytest.raises(RecsegError) as caught:
        recseg.check(name, (lambda *given: junk) if call else junk, strict=True)
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


@given(st.lists(st.floats(allow_nan=True, width=32), max_size=6))
def test_a_comparison_finds_itself_the_same_and_its_shift_another(values: list[float]) -> None:
    here = to_compare(np.array(values))
    assert difference(here, torch.tensor(values, dtype=torch.float64)) is None
    finite = [value for value in values if abs(value) < 1e6]
    if finite:
        assert difference([value + 1e3 for value in finite], finite) is not None


def cells_by_exercise() -> list[tuple[str, dict[str, Any]]]:
    """Name of the exercise that each cell, or part of a cell, belongs to."""
    found = []
    for chapter in CHAPTERS:
        number = None
        for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
            parts = re.split(r"\*\*Exercise (\d+)\.\*\*", "".join(cell["source"]))
            for k, text in enumerate(parts):
                if cell["cell_type"] == "markdown" and k % 2:
                    number = int(text)
                elif number is not None:
                    found.append((f"ch{chapter.name[:2]}.ex{number}", cell | {"source": text}))
    return found


def test_text_and_solution_of_each_exercise_name_its_checker_and_no_other() -> None:
    asked: set[str] = set()
    solved: set[str] = set()
    for exercise, cell in cells_by_exercise():
        for name in re.findall(NAMED, cell["source"]):
            assert name == exercise, f"{exercise} names {name}"
            (asked if cell["cell_type"] == "markdown" else solved).add(name)
            if cell["cell_type"] == "code":
                assert "strict=True" in cell["source"], f"{name}: a build would not see a wrong solution"
    assert asked == solved == EXERCISES.keys()


def test_every_name_in_the_book_is_a_checker() -> None:
    names = [name for chapter in CHAPTERS for name in re.findall(NAMED.replace('"', '\\\\"'), chapter.read_text())]
    assert names and set(names) <= EXERCISES.keys()


def test_solutions_in_code_are_folded_everywhere() -> None:
    for exercise, cell in cells_by_exercise():
        if cell["cell_type"] == "code":
            assert {"hide-cell", "solution"} <= set(cell["metadata"]["tags"]), exercise  # in the rendered book
            assert cell["metadata"]["jupyter"]["source_hidden"] and cell["metadata"]["cellView"] == "form", exercise
            assert cell["source"].startswith("# @title Solution"), exercise  # what Colab shows of it
