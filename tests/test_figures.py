"""Answers beside the ground truth, the confusion matrix, and pages that turn without a script."""

import re

import numpy as np
import pytest
from PIL import Image

from recseg.errors import RecsegError
from recseg.viz import figures

TRUTH = np.array([[0, 1, 1, 0], [0, 2, 255, 255]], dtype=np.uint8)
ANSWER = np.array([[0, 1, 0, 3], [0, 1, 2, 0]], dtype=np.uint8)


def rgb(kind: str) -> list[int]:
    return list(bytes.fromhex(figures.MISTAKES[kind][1:]))


def test_each_kind_of_mistake_has_its_colour_and_void_is_none() -> None:
    canvas = figures.mistakes(TRUTH, ANSWER)
    assert canvas[0, 2].tolist() == rgb("missed")
    assert canvas[0, 3].tolist() == rgb("invented")
    assert canvas[1, 1].tolist() == rgb("another class")
    assert canvas[1, 2].tolist() == canvas[1, 3].tolist() == rgb("void")
    assert canvas[0, 0].tolist() == [255] * 3  # right background
    assert canvas[0, 1, 0] < 255 and len(set(canvas[0, 1].tolist())) == 1  # right foreground: a pale grey


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(RecsegError, match="one size"):
        figures.mistakes(TRUTH, ANSWER[:1])


def test_comparison_has_four_panels_a_row_and_a_legend() -> None:
    picture = Image.new("RGB", (4, 2))
    figure = figures.comparison([("cat", picture, TRUTH, ANSWER), ("dog", picture, TRUTH, TRUTH)])
    assert [axes.get_title() for axes in figure.axes] == ["cat", "ground truth", "answer", "mistakes"] + [
        "dog", "ground truth", "answer", "mistakes"
    ]  # fmt: skip
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == list(figures.MISTAKES)


def test_confusion_is_shaded_by_row() -> None:
    figure = figures.confusion_figure([[8, 2, 0], [0, 0, 0], [1, 1, 2]], ["background", "cat", "dog"])
    shade = np.asarray(figure.axes[0].images[0].get_array())
    expected = [[0.8, 0.2, 0.0], [0.0, 0.0, 0.0], [0.25, 0.25, 0.5]]  # a class without pixels stays white
    assert np.allclose(shade**2, expected)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["background", "cat", "dog"]


def test_flip_book_turns_pages_without_a_script() -> None:
    pages = [(f"<{number}>", Image.new("RGB", (4, 4), (number, 0, 0)), f"page {number}") for number in range(3)]
    book = figures.flip_book(pages)
    assert "<script" not in book and "onclick" not in book
    assert book.count("<img ") == 3 and book.count(" checked") == 1
    assert all(f'alt="page {number}"' in book and f"&lt;{number}&gt;" in book for number in range(3))
    for key in re.findall(r'type="radio" name="[\w-]+" id="([\w-]+)"', book):
        assert f"#{key}:checked~.{key}{{display:block}}" in book and f'for="{key}"' in book
    names = {re.findall(r'name="([\w-]+)"', figures.flip_book(some))[0] for some in (pages, pages[:2])}
    assert len(names) == 2  # two books on one page do not share buttons
    assert figures.flip_book(pages) == book  # the same at every build
