"""What the pages need that no page makes: the image that the index opens with, and icons."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from fontTools.ttLib import TTFont
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def test_the_font_of_icons_holds_those_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    pytest.importorskip("pydata_sphinx_theme", reason="the icons are the theme's: pip install recseg[book]")
    importlib.import_module("front").write_icons(tmp_path / "icons.woff")
    letters = TTFont(tmp_path / "icons.woff").getBestCmap()
    assert {0xF0C9, 0xF35D} < set(letters) and len(letters) < 30
    assert (tmp_path / "icons.woff").stat().st_size < 5000


@pytest.mark.parametrize("there", [True, False])
def test_the_front_page_shows_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    front: Any = importlib.import_module("front")
    if there:
        pytest.importorskip("skimage", reason="photographs come from scikit-image: pip install recseg[book]")
    else:
        monkeypatch.setattr(front, "photographs", dict)
    front.write_steps(tmp_path)
    with Image.open(tmp_path / "steps.webp") as moving, Image.open(tmp_path / "steps.jpg") as still:
        assert getattr(moving, "n_frames", 1) == 4, "the image, two steps, the label map"
        assert moving.size == still.size and (moving.width > 700 or not there)
