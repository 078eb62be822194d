"""Whole data folders as people make them: read as they were painted, or refused in one line, and nothing is touched."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import Snapshot, refusal
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from odd_data import GOOD_LISTS
from odd_folders import ODD_CLASSES, Classes, Item, classes_of, fault_of, make, many_items, spoil

from recseg.classes import VOID
from recseg.data import SegmentationFolder, check_no_leak
from recseg.data.folder import shared_ids


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=many_items, classes=classes_of, lists=st.sampled_from(sorted(GOOD_LISTS)))
def test_read_as_painted(
    tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot, items: list[Item], classes: Classes, lists: str
) -> None:
    root = tmp_path_factory.mktemp("folder")
    painted = make(root, items, classes, lists)
    before = snapshot(root)
    dataset = SegmentationFolder(root, "train")
    assert dataset.ids == [item.name for item in items] and len(dataset) == len(items)
    for sample, item, (pixels, labels) in zip(dataset, items, painted, strict=True):
        assert sample.id == item.name
        assert np.array_equal(sample.image.permute(1, 2, 0), pixels)  # (3, H, W) -> (H, W, 3)
        assert np.array_equal(sample.labels, labels)
        assert set(np.unique(sample.labels).tolist()) <= {*range(dataset.num_classes), VOID}
    assert snapshot(root) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=many_items, classes=classes_of, fault=fault_of)
def test_one_fault_is_named(
    tmp_path_factory: pytest.TempPathFactory,
    snapshot: Snapshot,
    items: list[Item],
    classes: Classes,
    fault: tuple[str, str],
) -> None:
    root = tmp_path_factory.mktemp("folder")
    make(root, items, classes, "plain")
    name = spoil(root, items, classes, *fault)
    before = snapshot(root)
    message = refusal(lambda: list(SegmentationFolder(root, "train")), root)
    assert unicodedata.normalize("NFC", name) in unicodedata.normalize("NFC", message)
    assert snapshot(root) == before


@pytest.mark.parametrize("kind", ODD_CLASSES)
def test_classes_that_nobody_can_mean(tmp_path: Path, kind: str) -> None:
    items = [Item("a")]
    make(tmp_path, items, Classes(), "plain")
    refusal(
        lambda: SegmentationFolder(tmp_path, "train"), tmp_path / spoil(tmp_path, items, Classes(), "classes", kind)
    )


@settings(max_examples=30, deadline=None)
@given(train=many_items, val=many_items, shared=st.booleans())
@example(train=[Item("\u00e9")], val=[Item("e\u0301")], shared=False)
def test_overlapping_lists(
    tmp_path_factory: pytest.TempPathFactory, train: list[Item], val: list[Item], shared: bool
) -> None:
    """An id is the same image however its accents are composed."""
    root = tmp_path_factory.mktemp("folder")
    one, other = ({unicodedata.normalize("NFC", item.name): item for item in items} for items in (train, val))
    everything = one | other
    if shared:
        other[next(iter(one))] = train[0]
    make(root, list(everything.values()), Classes(), "plain")
    for split, keys, form in (("train", one, "NFC"), ("val", other, "NFD")):
        text = "\n".join(unicodedata.normalize(form, key) for key in keys)  # type: ignore[arg-type]
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(text, encoding="utf-8")
    splits = [SegmentationFolder(root, split) for split in ("train", "val")]
    if one.keys() & other.keys():
        refusal(lambda: check_no_leak(*splits), "both in", f"{len(one.keys() & other.keys())} such ids")
    else:
        check_no_leak(*splits)


def test_ids_are_shared_however_they_are_spelled() -> None:
    assert shared_ids(["caf\u00e9", "a", "b"], ["b", "cafe\u0301"]) == ["caf\u00e9", "b"]
