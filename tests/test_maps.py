"""A panel is drawn as what it holds: image, labels, mask, logits, probabilities, bars."""

from typing import Any

import numpy as np
import pytest
import torch

from recseg.book.maps import panel_grid
from recseg.errors import RecsegError


def test_each_kind_of_panel_is_drawn_as_what_it_is() -> None:
    labels = torch.tensor([[0, 1], [15, 255]])
    logits = torch.tensor([[-2.0, 0.5], [1.0, 0.0]])
    figure = panel_grid(
        [
            [("image", torch.rand(3, 4, 6)), ("labels", labels), ("mask", labels > 0)],
            [("logits", logits), ("probabilities", logits.sigmoid()), ("bars", {"cat": 0.75, "dog": 0.25})],
        ]
    )
    axes = {a.get_title(): a for a in figure.axes}
    assert np.asarray(axes["image"].images[0].get_array()).shape == (4, 6, 3)
    assert np.asarray(axes["labels"].images[0].get_array())[1, 0].tolist() == [192, 128, 128]  # person
    assert axes["mask"].images[0].get_cmap().name == "gray"
    assert axes["logits"].images[0].get_clim() == (-2.0, 2.0)  # zero is white
    assert axes["logits"].texts[0].get_text() == "−2 … 1"
    assert axes["probabilities"].images[0].get_clim() == (0, 1)
    assert [text.get_text() for text in axes["bars"].texts] == ["cat  75%", "dog  25%"]


def test_places_may_stay_empty() -> None:
    mask = np.zeros((3, 3), dtype=bool)
    figure = panel_grid([[("a", mask)], [None, ("b", mask)]])
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 0, 1]


def test_a_panel_of_no_known_kind_is_refused() -> None:
    with pytest.raises(RecsegError, match=r"panel 'stack' of shape \(5, 4, 4\)"):
        panel_grid([[("stack", torch.zeros(5, 4, 4))]])


def test_a_row_is_as_high_as_its_maps() -> None:
    def height(*rows: list[tuple[str, Any]]) -> float:
        return float(panel_grid(rows, side=2.0).get_figheight())

    wide, square, logits = np.zeros((10, 40), dtype=bool), np.zeros((40, 40), dtype=bool), np.linspace(-1, 1, 4)
    assert height([("a", square)]) - height([("a", wide)]) == pytest.approx(1.5)
    assert height([("a", wide)], [("a", square)]) == pytest.approx(height([("a", wide)]) + height([("a", square)]))
    assert height([("a", logits.reshape(2, 2))]) > height([("a", square)]), "its range stands beneath"
