"""The page of symbols explains every letter of every chapter's formulas, and none that is not there."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from prose import BOOK, CHAPTERS, formulas

GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "eta",
    "theta",
    "lambda",
    "mu",
    "pi",
    "rho",
    "sigma",
    "tau",
    "phi",
]


def letters(formula: str) -> set[str]:
    """The symbols of a formula: single letters and Greek ones; words and operators are none."""
    text = re.sub(r"\\(?:text|mathrm|operatorname\*?|begin|end)\s*\{[^}]*\}", " ", formula)
    text = re.sub(r"_\\text\s*\{[^}]*\}", " ", text)
    greek = set(re.findall(rf"\\({'|'.join(GREEK)})(?![a-zA-Z])", text))
    text = re.sub(r"\\[a-zA-Z]+", " ", text)
    return greek | set(re.findall(r"[A-Za-z]", text))


def explained() -> dict[str, set[str]]:
    """The letters that the page explains for each chapter."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in (BOOK / "symbols.md").read_text(encoding="utf-8").splitlines():
        if row.startswith("| $"):
            symbol, *_, where = row.strip("| ").split(" | ")
            for chapter in re.findall(r"<(\d\d_\w+)>", where):
                found[chapter] |= letters(" ".join(re.findall(r"\$([^$]+)\$", symbol)))
    return found


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_symbols_are_those_of_the_chapter(chapter: Path) -> None:
    used = set().union(*map(letters, formulas(chapter)))
    missing, idle = used - explained()[chapter.stem], explained()[chapter.stem] - used
    assert not missing, f"book/symbols.md does not explain {sorted(missing)} in {chapter.name}"
    assert not idle, f"book/symbols.md explains {sorted(idle)}, which {chapter.name} does not use"


def test_letters_of_a_formula() -> None:
    formula = r"$a_t = \prod_{s \le t} (1 - p_{\text{stop},s}) \operatorname{up}(\sigma(h)), w_\text{bce}$"
    assert letters(formula) == {"a", "t", "s", "p", "sigma", "h", "w"}
