"""The photographs of the book."""

import sys

import pytest

from recseg.book.photographs import HEIGHT, photographs, side_by_side
from recseg.classes import VOC_CLASSES


def test_each_shows_classes_of_voc() -> None:
    pytest.importorskip("skimage")
    found = photographs()
    assert list(found) == ["cat", "astronaut", "motorcycle"]
    for one in found.values():
        assert one.image.mode == "RGB" and min(one.image.size) >= 300
        assert set(one.classes) <= set(VOC_CLASSES)


def test_side_by_side_they_are_one_image_of_all_their_classes() -> None:
    pytest.importorskip("skimage")
    found = photographs()
    cat, motorcycle = found["cat"], found["motorcycle"]
    both = side_by_side(cat, motorcycle)
    assert both.classes == ("cat", "motorbike")
    assert both.title == "A cat, a motorcycle in a workshop, side by side"
    assert both.image.height == HEIGHT
    alone = cat.image.resize((round(cat.image.width * HEIGHT / cat.image.height), HEIGHT))
    assert both.image.crop((0, 0, *alone.size)).tobytes() == alone.tobytes()


def test_there_are_none_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert photographs() == {}
