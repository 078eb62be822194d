"""The rendered book in a browser, where both are at hand: what `make check-book` does."""

import subprocess
import sys
from pathlib import Path

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
