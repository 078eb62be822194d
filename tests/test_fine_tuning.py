"""Fine-tuning with few images: which lists are trained on, what each row starts from; what is done is not run again."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from recseg.book import fine_tuning
from recseg.book.fine_tuning import one_run, starts, write_data
from recseg.data import open_dataset


def test_lists_share_no_table_and_the_shorter_begins_the_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "IMAGES", (2, 5))
    monkeypatch.setattr(fine_tuning, "SCORED", 3)
    write_data(tmp_path / "data")
    few, more, val = (open_dataset(str(tmp_path / "data"), split) for split in ("train2", "train5", "val"))
    assert few.ids == more.ids[:2]
    assert (len(more), len(val), set(more.ids) & set(val.ids)) == (5, 3, set())
    assert few.classes == ("background", "mug", "pencil", "leaf", "coin", "key")  # what cannot be recognised is void


def test_a_row_starts_as_it_says(tiny_recurrent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = starts(str(tiny_recurrent), str(tiny_recurrent), "encoder.safetensors")
    assert rows["from scratch"] == {}
    assert rows["all weights, from photographs"]["network"].decoder_widths == TINY["decoder_widths"]
    monkeypatch.setattr(fine_tuning, "IMAGES", (2,))
    monkeypatch.setattr(fine_tuning, "SCORED", 1)
    write_data(tmp_path / "data")
    found = one_run(tmp_path / "run", tmp_path / "data", 2, 0, steps=1, **rows["all weights, from drawings"])
    assert np.isfinite(found["miou"])
    monkeypatch.setattr(fine_tuning, "Trainer", None)  # nothing is trained again
    assert one_run(tmp_path / "run", tmp_path / "data", 2, 0, steps=1) == found
