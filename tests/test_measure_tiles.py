"""What is measured of large images in windows."""

import pytest
from conftest import refusal

from recseg.book.measure_tiles import score


def test_windows_see_what_a_shrunk_image_loses() -> None:
    found = score("pictograms-recurrent", 240, 160)
    assert found["scenes"] > found["windows"] > found["whole"] + 0.2
    assert found["windows"] > found["crops"]


def test_whole_scenes_fill_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal(lambda: score("pictograms-recurrent", 200, 160), "200×160", "80")
