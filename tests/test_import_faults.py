"""Exports with a fault: one line that names it, and nothing is written."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refuses, refusal, uninstall
from exports import coco, cvat, element, labelme, picture, save, write_json
from hypothesis import given, settings
from hypothesis import strategies as st
from test_import import imported, label_maps
from test_import_shapes import H, W, one_coco, square

from recseg.cli.main import main
from recseg.data import SegmentationFolder
from recseg.data.annotations import read_export, write
from recseg.errors import RecsegError

CAT = {"label": "cat", "points": [[1, 1], [4, 1], [4, 4], [1, 4]]}
FACTS = {"name": "a.png", "width": W, "height": H}
POLYGON = element("polygon", "car", points="1,1;5,1;5,5;1,5")
Build = Callable[[Path], object]


def coco_with(**changes: Any) -> Build:
    """An export of one image whose file is changed."""

    def build(root: Path) -> None:
        one_coco(root)
        content = coco(
            [{"file_name": "a.png", "height": H, "width": W}],
            [{"image_id": 1, "category_id": 1, "segmentation": [square(1, 1, 5, 5)]}],
            {1: "car"},
        )
        for key, change in changes.items():
            if isinstance(change, dict):
                content[key][0] |= change
            else:
                content[key] = change
        write_json(root / "annotations" / "instances_default.json", content)

    return build


def labelme_with(*shapes: dict[str, Any], **changes: Any) -> Build:
    def build(root: Path) -> None:
        picture(root / "a.png", H, W)
        write_json(root / "a.json", labelme("a.png", (H, W), shapes or (CAT,)) | changes)

    return build


def cvat_with(*shapes: str, text: str | None = None, **changes: object) -> Build:
    def build(root: Path) -> None:
        picture(root / "images" / "a.png", H, W)
        facts: dict[str, object] = FACTS | changes
        (root / "annotations.xml").write_text(text or cvat([(facts, shapes or (POLYGON,))]), encoding="utf-8")

    return build


def masks_with(*files: tuple[str, Any]) -> Build:
    def build(root: Path) -> None:
        for name, content in files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content)
            else:
                save(np.asarray(content, np.uint8), path)

    return build


IMAGE, MASK = np.zeros((4, 4, 3)), np.eye(4)
MAP = ("classes.txt", "background\ncar\n")
BILLION = '<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
FOREIGN = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotations>&x;</annotations>'
FAULTS: dict[str, tuple[str, Build, list[str]]] = {
    "no file": ("coco", lambda root: root.mkdir(), ["holds no JSON of COCO"]),
    "image missing": ("coco", coco_with(images={"file_name": "b.png"}), ["'b.png'", "no such file below"]),
    "image above": ("coco", coco_with(images={"file_name": "../../../b.png"}), ["leads out of"]),
    "image elsewhere": ("coco", coco_with(images={"file_name": "/etc/b.png"}), ["leads out of"]),
    "image on a drive": ("coco", coco_with(images={"file_name": "C:\\b.png"}), ["leads out of"]),
    "image without a name": ("coco", coco_with(images={"file_name": ""}), ["names the image ''"]),
    "name of two lines": ("coco", coco_with(images={"file_name": "a\nb.png"}), ["expected plain letters"]),
    "other size": ("coco", coco_with(images={"width": 99}), ["a.png: is 16×12 pixels", "as 99×12"]),
    "size of text": ("coco", coco_with(images={"width": "16"}), ["no 'width' as expected"]),
    "image twice": (
        "coco",
        coco_with(images=[{"file_name": "a.png", "height": H, "width": W, "id": i} for i in (1, 2)]),
        ["'a.png' and 'a.png' would both be 'a'"],
    ),
    "stems alike": (
        "coco",
        coco_with(images=[{"file_name": f"{n}.png", "height": H, "width": W, "id": n} for n in ("a", "sub/A")]),
        ["'a.png' and 'sub/A.png' would both be 'A'"],
    ),
    "one id for two images": (  # nobody knows whose the shapes are
        "coco",
        coco_with(images=[{"file_name": f"{n}.png", "height": H, "width": W, "id": 1} for n in "ab"]),
        ["instances_default.json", "'a.png' and 'b.png' the same id 1"],
    ),
    "category twice": ("coco", coco_with(categories=[{"id": i, "name": "car"} for i in (1, 2)]), ["'car'", "twice"]),
    "category unknown": ("coco", coco_with(annotations={"category_id": 9}), ["annotation 1", "category 9"]),
    "name of a tab": ("coco", coco_with(categories={"name": "a\tb"}), ["U+0009"]),
    "boxes alone": (
        "coco", coco_with(annotations={"segmentation": [], "bbox": [1, 1, 4, 4]}), ["boxes, not masks"]
    ),
    "no annotation": ("coco", coco_with(annotations=[]), ["no pixel of a class", "image without a shape"]),
    "bad polygon": ("coco", coco_with(annotations={"segmentation": [[1, 2, 3]]}), ["a.png", "x, y, x, y"]),
    "polygon of pairs": (
        "coco", coco_with(annotations={"segmentation": [[1, 1], [5, 1], [5, 5]]}), ["annotation 1", "x, y, x, y"]
    ),
    "polygon alone": ("coco", coco_with(annotations={"segmentation": square(1, 1, 5, 5)}), ["a.png", "x, y, x, y"]),
    "bad segmentation": ("coco", coco_with(annotations={"segmentation": "abc"}), ["annotation 1", "or an RLE"]),
    "short RLE": ("coco", coco_with(annotations={"segmentation": {"size": [H, W], "counts": [1]}}), ["of 1 pixels"]),
    "no list": ("coco", coco_with(images=5), ["no 'images' as expected"]),
    "two files": (
        "coco",
        lambda root: [write_json(one_coco(root) / f"instances_{n}.json", coco(
            [{"file_name": "a.png", "height": H, "width": W}], [], {1: "car"})) for n in "ab"],
        ["both annotate 'a.png'"],
    ),
    "labelme: none": ("labelme", lambda root: write_json(root / "a.json", {}), ["holds no JSON of labelme"]),
    "labelme: a file": ("labelme", lambda root: root.write_text("x"), ["expected a folder"]),
    "labelme: no JSON": ("labelme", masks_with(("a.json", "{")), ["a.json", "JSON"]),
    "labelme: deep": (
        "labelme", masks_with(("a.json", "[" * 100_000)), ["a.json", "JSON"]
    ),
    "labelme: rectangles": (
        "labelme", labelme_with({**CAT, "shape_type": "rectangle", "points": [[1, 1], [4, 4]]}), ["boxes, not masks"]
    ),
    "labelme: no points": ("labelme", labelme_with({**CAT, "points": [1, 2, 3]}), ["a.json: cat", "pairs of numbers"]),
    "labelme: circle": ("labelme", labelme_with({**CAT, "shape_type": "circle"}), ["circle of 4 points, expected 2"]),
    "labelme: no PNG": (
        "labelme",
        labelme_with({**CAT, "shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "aGk="}),
        ["not a PNG"],
    ),
    "labelme: other size": ("labelme", labelme_with(imageHeight=5), ["a.png: is 16×12 pixels", "as 16×5"]),
    "cvat: none": ("cvat", lambda root: root.mkdir(), ["holds no XML of CVAT"]),
    "cvat: entities": ("cvat", cvat_with(text=BILLION), ["annotations.xml", "document type"]),
    "cvat: a foreign file": ("cvat", cvat_with(text=FOREIGN), ["annotations.xml", "document type"]),
    "cvat: no XML": ("cvat", cvat_with(text="<annotations>"), ["annotations.xml", "XML"]),
    "cvat: other XML": ("cvat", cvat_with(text="<annotation/>"), ["<annotation>, expected"]),
    "cvat: a video": ("cvat", cvat_with(text="<annotations><track id='0'/></annotations>"), ["for images 1.1"]),
    "cvat: boxes": ("cvat", cvat_with(element("box", "car", xtl=1, ytl=1, xbr=4, ybr=4)), ["boxes, not masks"]),
    "cvat: bad points": ("cvat", cvat_with(element("polygon", "car", points="1,1;x")), ["'1,1;x'"]),
    "cvat: bad rle": (
        "cvat", cvat_with(element("mask", "car", rle="1", left=0, top=0, width=2, height=2)), ["fill its 2×2 pixels"]
    ),
    "cvat: mask outside": (
        "cvat", cvat_with(element("mask", "car", rle="0,4", left=15, top=0, width=2, height=2)), ["outside its"]
    ),
    "cvat: no size": ("cvat", cvat_with(width="x"), ["width='x'"]),
    "cvat: only lines": (
        "cvat", cvat_with(element("polyline", "car", points="1,1;2,2")), ["no pixel of a class", "1 × polyline"]
    ),
    "masks: none": ("masks", masks_with(("images/a.png", IMAGE)), ["holds no masks"]),
    "masks: no map": (
        "masks", masks_with(("images/a.png", IMAGE), ("masks/a.png", MASK)), ["nothing says", "masks/NAME"]
    ),
    "masks: no image": ("masks", masks_with(MAP, ("masks/a.png", MASK)), ["masks/a.png", "no image"]),
    "masks: two images": (
        "masks", masks_with(MAP, ("images/a.png", IMAGE), ("images/a.bmp", IMAGE), ("masks/a.png", MASK)), ["one name"]
    ),
    "masks: two maps": (
        "masks",
        masks_with(("train/_classes.csv", "Pixel Value, Class\n0, background\n1, car"),
                   ("valid/_classes.csv", "Pixel Value, Class\n0, background\n1, bus"),
                   ("train/a.jpg", IMAGE), ("train/a_mask.png", MASK)),
        ["disagree about the classes"],
    ),
    "masks: unknown value": (
        "masks", masks_with(MAP, ("images/a.png", IMAGE), ("masks/a.png", MASK * 7)), ["class index 7"]
    ),
    "masks: unknown colour": (
        "masks",
        masks_with(("labelmap.txt", "background:0,0,0::\ncar:9,9,9::"), ("JPEGImages/a.png", IMAGE),
                   ("SegmentationClass/a.png", IMAGE + 3)),
        ["(3, 3, 3)"],
    ),
    "masks: bad map": (
        "masks", masks_with(("labelmap.txt", "car:9,9::"), ("SegmentationClass/a.png", MASK)), ["three numbers"]
    ),
    "masks: smoothed": (
        "masks", masks_with(("images/a.png", IMAGE), ("masks/car/a.png", MASK * 90)), ["class index 90"]
    ),
    "masks: other size": (
        "masks", masks_with(MAP, ("images/a.png", IMAGE), ("masks/a.png", np.eye(5))), ["5×5 pixels", "4×4"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_one_line(fault: str, tmp_path: Path, refuses: Refuses) -> None:
    format, build, words = FAULTS[fault]
    build(tmp_path / "export")
    refuses(["data", "import", tmp_path / "export", "--format", format, "--out", tmp_path / "out"], *words)


def test_bad_options(tmp_path: Path, refuses: Refuses) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})
    command = ["data", "import", root, "--out", tmp_path / "out"]
    refuses([*command, "--format", "yolo"], "yolo", "labelme")
    refuses([*command, "--format", "coco", "--val-fraction", 1], "'1'")
    refuses(["data", "import", tmp_path / "absent", "--format", "coco", "--out", tmp_path / "out"], "absent", "no such")
    refuses(["data", "import", root, "--format", "coco", "--out", root], "is not empty")
    refusal(lambda: read_export(root, "yolo"), "yolo")


def test_images_at_fault_are_skipped_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "labelme"
    for name in ("a", "b", "c", "d"):
        picture(root / f"{name}.png", H, W, ord(name))
        write_json(root / f"{name}.json", labelme(f"{name}.png", (H, W), [CAT]))
    (root / "b.png").unlink()
    (root / "c.png").write_bytes((root / "c.png").read_bytes()[:-20])
    command = ["data", "import", str(root), "--format", "labelme", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert main([*command, "--on-bad-image", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "skipped: b.png: " in printed and "skipped: c.png: " in printed
    assert label_maps(tmp_path / "out").keys() == {"a", "d"}


def test_without_pycocotools(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})
    uninstall("pycocotools", monkeypatch)
    words = 'pip install "recseg[import]"'
    refuses(["data", "import", root, "--format", "coco", "--out", tmp_path / "out"], words)
    masks_with(MAP, ("images/a.png", IMAGE), ("masks/a.png", MASK))(tmp_path / "masks")
    imported(tmp_path / "masks", "masks", tmp_path / "out")  # which needs none


def test_a_folder_of_links_is_followed_and_no_link_is_written(tmp_path: Path) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to(root)
    imported(root, "coco", tmp_path / "out")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_save", interrupt)
    assert main(["data", "import", str(root), "--format", "coco", "--out", str(tmp_path / "out")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    (tmp_path / "out").mkdir()
    assert main(["data", "import", str(root), "--format", "coco", "--out", str(tmp_path / "out")]) == 130
    assert not any((tmp_path / "out").iterdir()) and len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_save", full)
    refusal(lambda: imported(root, "coco", tmp_path / "out"), tmp_path / "out", "No space left")
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


# Folders of tools where a data set is expected


@pytest.mark.parametrize(
    ("format", "build"),
    [
        ("coco", coco_with()),
        ("labelme", labelme_with()),
        ("cvat", cvat_with()),
        ("masks", masks_with(("labelmap.txt", "background:0,0,0::\ncar:9,9,9::"), ("JPEGImages/a.png", IMAGE),
                             ("SegmentationClass/a.png", IMAGE), ("ImageSets/Segmentation/train.txt", "a"))),
        ("masks", masks_with(("train/_classes.csv", "Pixel Value, Class\n0, background"), ("train/a.jpg", IMAGE))),
    ],
)  # fmt: skip
def test_a_tools_folder_says_how_to_import_it(tmp_path: Path, format: str, build: Build) -> None:
    root = tmp_path / "my export"
    build(root)
    words = f"recseg data import '{root}' --format {format} --out DIR"
    refusal(lambda: SegmentationFolder(root, "train"), words)


def test_labelmes_files_beside_the_images(tmp_path: Path) -> None:
    root = tmp_path / "set"
    masks_with(MAP, ("JPEGImages/a.png", IMAGE), ("ImageSets/Segmentation/train.txt", "a"))(root)
    complaint = refusal(lambda: SegmentationFolder(root, "train"), "SegmentationClass")
    assert "import" not in complaint
    write_json(root / "JPEGImages" / "a.json", labelme("a.png", (4, 4), [CAT]))
    refusal(lambda: SegmentationFolder(root, "train"), "SegmentationClass", "--format labelme")
    (root / "SegmentationClass").mkdir()
    refusal(lambda: SegmentationFolder(root, "train"), "a.png", "--format labelme")


def test_import_does_not_wait_for_torch(tmp_path: Path) -> None:
    masks_with(MAP, ("images/a.png", IMAGE), ("masks/a.png", MASK))(tmp_path / "masks")
    code = (
        "import sys; from recseg.cli.main import main\n"
        "assert not main(['data', 'import', sys.argv[1], '--format', 'masks', '--out', sys.argv[2]])\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "masks"), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_files_that_are_changed_anywhere(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One value of a JSON file is another: the export is read, or refused as bad input."""
    root = tmp_path_factory.mktemp("export")
    format = data.draw(st.sampled_from(["coco", "labelme"]))
    (coco_with() if format == "coco" else labelme_with())(root)
    (path,) = root.rglob("*.json")
    content = json.loads(path.read_text())
    places = list(walk(content))
    holder, key = data.draw(st.sampled_from(places))
    odd: list[Any] = [None, True, -1, 10**400, 1e999, "", "\ud800/a", {}, [], [[]], [[1] * 6], "é" * 300]
    holder[key] = data.draw(st.sampled_from(odd))
    path.write_text(json.dumps(content))
    try:
        imported(root, format, root / "out")
    except RecsegError as error:
        assert "\n" not in str(error) and not (root / "out").exists()
    else:
        assert label_maps(root / "out")


def walk(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in JSON: the list or table, and the key."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(entries):
        yield content, key
        yield from walk(value)
