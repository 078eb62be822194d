"""The drawn export: it can be imported, and holds the faults that a check is to find."""

import re
from pathlib import Path

import pytest

from recseg.book.tabletop import CATEGORIES, write_export
from recseg.cli.main import main


def test_an_export_is_imported_and_its_faults_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_export(tmp_path / "export", 24, twice=1)  # every table is photographed twice
    assert main(["data", "import", str(tmp_path / "export"), "--format", "coco", "--out", str(tmp_path / "data")]) == 0
    assert (tmp_path / "data" / "classes.txt").read_text().split() == ["background", *CATEGORIES]
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "ignore' is scored like any class" in said
    assert "near-duplicates in train and val" in said
    assert re.search(r"in fewer than 20 images of train: .*\bkey \(", said)
