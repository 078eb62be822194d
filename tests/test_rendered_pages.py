"""The rendered book in a browser, where both are at hand: what `make check-book` does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_built_book_passes_its_checks() -> None:
    if not (ROOT / "_build" / "html" / "index.html").is_file():
        pytest.skip("no rendered book: make book")
    command = [sys.executable, "tests/pages"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if checked.stdout.startswith("skipped: no browser"):
        pytest.skip(checked.stdout.strip())
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_lock_file_names_no_address() -> None:
    assert '"resolved"' not in (ROOT / "tests" / "pages" / "package-lock.json").read_text(encoding="utf-8")


def test_links_are_sorted_into_those_within_and_those_without(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    import check_pages

    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="https://host.org/x">out</a><a href="b.html#there">b</a><a href="#here">a</a>'
        '<a href="c.html">c</a>'
    )
    (tmp_path / "b.html").write_text('<p><a href="https://host.org/x">out</a><img src="a.html" alt=""><p>| a | b |')
    pages = check_pages.read(tmp_path)
    assert check_pages.external(pages) == ["https://host.org/x: a, b"]
    assert check_pages.problems(pages) == [
        "a.html: leads nowhere: c.html",
        "a.html: no such anchor: b.html#there",
        "b.html: a table that was not drawn: | a | b |",
        "b.html: no alt text: a.html",
    ]
