"""The image that the index opens with: photographs where there are some, else a drawn image."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


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
