"""`recseg data import`: what each annotation tool exports becomes the label maps that it was made from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Snapshot
from exports import FORMATS, NAMES, Labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recseg.cli.main import main
from recseg.data import SegmentationFolder
from recseg.data.annotations import read_export
from recseg.data.annotations.write import Report, write_folder
from recseg.data.check import examine
from recseg.data.folder import splits

maps_of = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3))
    ),
    min_size=1,
    max_size=3,
)


def imported(source: Path, format: str, out: Path, **options: object) -> Report:
    return write_folder(read_export(source, format), out, progress=False, **options)  # type: ignore[arg-type]


def label_maps(out: Path) -> dict[str, Labels]:
    """Label maps by id, of all lists, as a training reads them."""
    found = {}
    for split in splits(out):
        dataset = SegmentationFolder(out, split)
        for index, sample in enumerate(dataset):
            found[sample.id] = dataset.labels(index)
    return found


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maps=maps_of)
def test_label_maps_come_back(tmp_path_factory: pytest.TempPathFactory, kind: str, maps: Sequence[Labels]) -> None:
    root = tmp_path_factory.mktemp("export")
    maps = [*maps, np.array([[1, 2, 3, 0]], np.uint8)]  # every class at least once
    format, write = FORMATS[kind]
    write(root, maps)
    imported(root, format, root / "out")
    found = label_maps(root / "out")
    names = SegmentationFolder(root / "out", "train").classes
    assert set(names) == set(NAMES) and len(found) == len(maps)
    for name, labels in found.items():
        expected = maps[int(name.split("_")[0])]
        np.testing.assert_array_equal(np.array(names)[labels], np.array(NAMES)[expected])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_folder_that_check_and_train_read(
    tmp_path: Path, kind: str, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = [np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 8, 0), 8, 1) for _ in range(5)]
    format, write = FORMATS[kind]
    write(tmp_path / "export", maps)
    before = snapshot(tmp_path / "export")
    out = tmp_path / "out"
    assert main(["data", "import", str(tmp_path / "export"), "--format", format, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 images, val: 1 image" in printed and f"recseg data check {out}" in printed
    assert "  2 Fußgänger" in printed or "  1 Fußgänger" in printed
    assert main(["data", "check", str(out)]) == 0
    assert snapshot(tmp_path / "export") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "out"]
    train, val = (SegmentationFolder(out, split) for split in ("train", "val"))
    assert any("in fewer than 20 images" in line for line in examine(train, val))
    for sample, path in zip(train, train.image_paths, strict=True):
        originals = [file.read_bytes() for file in (tmp_path / "export").rglob(path.name)]
        assert path.read_bytes() in originals and sample.id == path.stem
