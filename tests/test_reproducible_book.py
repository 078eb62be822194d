"""The script that compares two runs of the book sees what differs, and lets times and dates pass."""

import base64
import copy
import io
import json
import tempfile
from typing import Any

import numpy as np
import pytest
import reproducible_book
from PIL import Image
from reproducible_book import ROOT, differences


def png(value: int = 7, place: int = 0, size: int = 4, kind: str = "PNG") -> str:
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    pixels.reshape(-1, 3)[place] = value
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return base64.b64encode(stream.getvalue()).decode()


def notebook(**data: str) -> dict[str, Any]:
    """A chapter of one cell, which prints and shows."""
    outputs: list[dict[str, Any]] = [
        {"output_type": "stream", "name": "stdout", "text": ["mIoU 0.5\n", "took 3.1 s\n"]}
    ]
    outputs.append({"output_type": "stream", "name": "stderr", "text": "50 %"})
    kinds = {key.replace("_", "/"): value for key, value in data.items()}
    outputs.append({"output_type": "display_data", "data": {"text/plain": "<Figure>", **kinds}})
    widgets = {"state": {"abc1": {"value": 3, "children": ["IPY_MODEL_abc2"]}, "abc2": {"value": 4}}}
    return {
        "cells": [{"cell_type": "markdown", "source": "A"}, {"cell_type": "code", "id": "here", "outputs": outputs}],
        "metadata": {"widgets": {"application/vnd.jupyter.widget-state+json": widgets}},
    }


def test_a_chapter_is_like_itself() -> None:
    assert differences("a", notebook(image_png=png()), notebook(image_png=png())) == []


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("took 3.1 s, 1,200 images/s", "took 12 s, 900 images/s"),
        ("80 ms a step", "0.4 ms a step"),
        ("on 2026-01-02 03:04", "on 2026-11-25 18:00"),
        ("3 minutes and 4.5 µs", "5 minutes and 1 µs"),
        ("default   9.8 ms", "default  10.2 ms"),
        ('"seconds": 8.11, "loss": 2.0', '"seconds": 17.6, "loss": 2.0'),
        (f"{tempfile.gettempdir()}/tmp4z6/a.txt", f"{tempfile.gettempdir()}/tmpum5/a.txt"),
    ],
)
def test_times_and_dates_may_differ(mine: str, theirs: str) -> None:
    assert differences("a", notebook(text_html=mine), notebook(text_html=theirs)) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "word"),
    [
        ("mIoU 0.51", "mIoU 0.52", "mIoU 0.52"),
        ("3 steps", "4 steps", "4 steps"),
        ("<object at 0x7f1>", "<object at 0x7f2>", "0x7f2"),
        ("one line", "one line\nand another", "longer"),
        (
            f'<img src="data:image/png;base64,{png(7)}">',
            f'<img src="data:image/png;base64,{png(9)}">',
            "1 of 16 pixels",
        ),
        (f'<img src="data:image/png;base64,{png(7)}">', "<img>", "1 pictures and 0"),
    ],
)
def test_other_text_may_not(mine: str, theirs: str, word: str) -> None:
    (line,) = differences("a", notebook(text_html=mine), notebook(text_html=theirs))
    assert line.startswith("a, cell 1 (here): text/html") and word in line


def test_every_pixel_counts() -> None:
    first = notebook(image_png=png(7))
    (line,) = differences("a", first, notebook(image_png=png(9)))
    assert "1 of 16 pixels differ, by at most 2" in line
    (line,) = differences("a", first, notebook(image_png=png(7, place=3)))
    assert "2 of 16 pixels differ, by at most 7" in line
    (line,) = differences("a", first, notebook(image_png=png(7, size=5)))
    assert "another size" in line
    assert differences("a", notebook(image_png=png()), notebook(image_png=png(kind="GIF"))) == []  # the same pixels


def test_a_film_is_compared_frame_by_frame() -> None:
    def film(*greys: int) -> str:
        frames, stream = [Image.new("L", (4, 4), grey) for grey in greys], io.BytesIO()
        frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:], duration=50)
        return base64.b64encode(stream.getvalue()).decode()

    first = notebook(image_gif=film(10, 90, 200))
    assert differences("a", first, notebook(image_gif=film(10, 90, 200))) == []
    assert "16 of 48 pixels" in differences("a", first, notebook(image_gif=film(10, 90, 220)))[0]
    assert "number of frames" in differences("a", first, notebook(image_gif=film(10, 90)))[0]


def test_what_is_printed_counts_and_progress_does_not() -> None:
    first, second = notebook(), notebook()
    second["cells"][1]["outputs"][1]["text"] = "100 %"
    second["cells"][1]["outputs"][0]["text"] = ["mIoU 0.5\ntook ", "9 s\n"]
    assert differences("a", first, second) == []
    second["cells"][1]["outputs"][0]["text"] = ["mIoU 0.6\n"]
    assert "mIoU 0.6" in differences("a", first, second)[0]


def test_an_output_that_is_absent_is_missed() -> None:
    first, second = notebook(image_png=png()), notebook()
    assert "of other kinds" in differences("a", first, second)[0]


def test_widgets_are_compared_without_their_random_names() -> None:
    first, second = notebook(), notebook()
    key = "application/vnd.jupyter.widget-state+json"
    state: dict[str, dict[str, Any]] = {"xyz9": {"value": 3, "children": ["IPY_MODEL_xyz8"]}, "xyz8": {"value": 4}}
    second["metadata"]["widgets"][key]["state"] = copy.deepcopy(state)
    assert differences("a", first, second) == []
    second["metadata"]["widgets"][key]["state"] = dict(reversed(state.items()))  # they are stored by their names
    assert differences("a", first, second) == []
    state["xyz8"]["value"] = 5
    second["metadata"]["widgets"][key]["state"] = state
    assert "widgets" in differences("a", first, second)[0]


def test_a_cell_that_measures_times_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = notebook(image_png=png(7)), notebook(image_png=png(9))
    monkeypatch.setattr(reproducible_book, "MEASURING", {"a": {"here"}})
    assert differences("a", first, second) == []
    assert differences("b", first, second) != []


def test_the_cells_that_measure_are_there() -> None:
    for chapter, ids in reproducible_book.MEASURING.items():
        cells = json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
        assert ids <= {cell["id"] for cell in cells}
