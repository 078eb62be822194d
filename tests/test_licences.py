"""LICENSES.md names everything that comes with the project or is installed for it, in the versions that are."""

import importlib.metadata
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))

import licences  # noqa: E402 - a script of the book

LIST = (ROOT / "LICENSES.md").read_text(encoding="utf-8")


def test_the_list_is_complete() -> None:
    assert licences.missing(LIST) == []
    names = {*licences.pins(), *(name for name, _, _ in licences.scripts())}
    assert {"torch", "pillow", "sphinx", "onnxruntime-web"} <= names


@pytest.mark.parametrize("what", ["torch", "onnxruntime-web", "data/weights/voc-recurrent.safetensors"])
def test_a_gap_is_seen(what: str) -> None:
    (row,) = [line for line in LIST.splitlines() if line.startswith(f"| {what} |")]
    assert [lost.split()[0] for lost in licences.missing(LIST.replace(f"{row}\n", ""))] == [what]
    cells = row.split(" | ")
    for changed in (" | ".join([cells[0], "0.0.0", *cells[2:]]), " | ".join([*cells[:2], " |"])):
        assert [lost.split()[0] for lost in licences.missing(LIST.replace(row, changed))] == [what]


def test_terms_are_what_a_package_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from email.message import Message

    def say(*headers: tuple[str, str]) -> str:
        about = Message()
        for key, value in headers:
            about[key] = value
        monkeypatch.setattr(importlib.metadata, "metadata", lambda _: about)
        return str(licences.terms("some-package"))

    classifier = ("Classifier", "License :: OSI Approved :: BSD License")
    assert say(("License-Expression", "MIT OR Apache-2.0"), ("License", "MIT")) == "MIT OR Apache-2.0"
    assert say(("License", "ISC"), classifier) == "ISC"
    assert say(("License", "UNKNOWN"), classifier) == "BSD License"
    assert say(("License", "A licence\n" + 80 * "x"), classifier) == "BSD License"
    assert say(("License", "A licence\n" + 80 * "x")) == "A licence"
    assert say(("Classifier", "Typing :: Typed")) == ""


def test_a_package_that_says_nothing_stops_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "metadata", absent)
    assert licences.terms("colorama") == "BSD License"  # known, though for another system
    with pytest.raises(SystemExit, match="torch"):
        licences.page()


def test_scripts_and_styles_of_the_book_are_our_own() -> None:
    # What others wrote is fetched when the book is built, and listed; a copy in the repository would need a row.
    files = [*(ROOT / "book" / "_static").rglob("*"), *(ROOT / "book" / "_live" / "site" / "live").glob("*.mjs")]
    code = [file for file in files if file.suffix in {".js", ".mjs", ".css"}]
    assert code
    for file in code:
        assert "icense" not in file.read_text(encoding="utf-8"), file
