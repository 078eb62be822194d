"""One word for one thing: no page uses the words that the style page rules out."""

import re
from pathlib import Path

import pytest
from prose import BOOK, prose, without_code

STYLE = BOOK / "style.md"
README = BOOK.parent / "README.md"
PAGES = sorted(path for path in [*BOOK.glob("*.ipynb"), *BOOK.glob("*.md"), README] if path != STYLE)
AMERICAN = ["color", "gray", "behavior", "optimizer", "center", "neighbor", "labeled", "normalize"]


def forbidden() -> dict[str, str]:
    """What not to write, and what instead."""
    text = STYLE.read_text(encoding="utf-8")
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if re.match(r"\| (?!What|-)", row)]
    words = {word.strip(): row[1] for row in rows for word in row[2].split(",")}
    empty = re.search(r"there is also no (.*?)\. British", text, re.DOTALL)
    assert empty
    return words | dict.fromkeys(re.findall(r"\*([^*]+)\*", empty[1]), "nothing") | dict.fromkeys(AMERICAN, "British")


def found(text: str, word: str) -> list[str]:
    """Where a word stands in prose, in the singular or the plural. An abbreviation is known by its capitals."""
    pattern = re.sub(r"y$", "(?:y|ies)", re.escape(word))
    exact = word.isupper() or word.startswith(("IOU", "mIOU", "Unet"))
    said = re.finditer(rf"\b{pattern}(?:s|es|x|ed)?\b", text, 0 if exact else re.IGNORECASE)
    return [text[max(0, one.start() - 40) : one.end() + 40].replace("\n", " ") for one in said]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_one_word_for_one_thing(page: Path) -> None:
    # A glossary's own lines are words, those of papers as well; its sentences are indented.
    own = without_code(prose(page)) if page.name != "glossary.md" else re.sub(r"^\w.*\n", "", prose(page), flags=re.M)
    text = re.sub(r"\]\([^)]*\)|\{[\w:-]+\}|https?://\S+|</?\w+", "", own)
    text = re.sub(r"\bground\s+truths?\b", "", text, flags=re.IGNORECASE)
    wrong = [
        f"{word!r}, say {instead}: …{place}…" for word, instead in forbidden().items() for place in found(text, word)
    ]
    assert not wrong, "\n".join(wrong)


def test_words_are_found_where_they_stand() -> None:
    assert len(forbidden()) > 35
    assert found("Two categories", "category") and found("the IOU", "IOU") and not found("the IoU", "IOU")
    assert not found("the Iterations", "EOS") and found("An iteration.", "iteration")
