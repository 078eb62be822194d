"""What the tools draw, and what becomes of it: each test is a small export of a real tool's shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import refusal
from exports import coco, cvat, element, labelme, labelme_mask, picture, save, write_json
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_pictures import exif
from PIL import Image
from test_import import imported, label_maps

from recseg.classes import VOID
from recseg.data import SegmentationFolder
from recseg.data.annotations.shapes import fill
from recseg.data.folder import read_split

H, W = 12, 16


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def area(left: int, top: int, right: int, bottom: int, label: int = 1) -> np.ndarray:
    labels = np.zeros((H, W), np.uint8)
    labels[top:bottom, left:right] = label
    return labels


def only(out: Path) -> np.ndarray:
    (labels,) = label_maps(out).values()
    return labels


def one_coco(root: Path, *annotations: dict[str, Any], names: dict[int, str] | None = None) -> Path:
    """An export of one image."""
    picture(root / "images" / "a.png", H, W)
    shapes = [{"image_id": 1, "category_id": 1, **annotation} for annotation in annotations]
    content = coco([{"file_name": "a.png", "height": H, "width": W}], shapes, names or {1: "car", 2: "wheel"})
    write_json(root / "annotations" / "instances_default.json", content)
    return root


# Filling


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    np.testing.assert_array_equal(fill([square(3, 2, 9, 7)], H, W), area(3, 2, 9, 7))
    np.testing.assert_array_equal(fill([square(-4, -3, 5, 20)], H, W), area(0, 0, 5, H))  # over the rim
    both = fill([square(0, 0, 2, 2), square(1, 1, 4, 4)], H, W)
    np.testing.assert_array_equal(both, np.maximum(area(0, 0, 2, 2), area(1, 1, 4, 4)))
    assert not fill([square(5, 5, 5.2, 5.2), [1, 1, 5, 5]], H, W).any()  # no centre inside; no area


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, W), st.floats(0, H)), min_size=3, max_size=3))
def test_triangles_against_the_definition(corners: list[tuple[float, float]]) -> None:
    """All but pixels whose centre is within one pixel of an edge, where the grid of a fifth of a pixel decides."""
    x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    signed = []
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = max(np.hypot(bx - ax, by - ay), 1e-9)
        signed.append(((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length)
    distances = np.stack(signed)  # (3, H, W)
    inside = (distances > 1).all(axis=0) | (distances < -1).all(axis=0)
    filled = fill([[value for corner in corners for value in corner]], H, W)
    assert filled[inside].all()
    outside = ((distances > 1).any(axis=0) & (distances < -1).any(axis=0)) | (np.ptp(corners, axis=0) == 0).any()
    assert not filled[outside].any()


@pytest.mark.parametrize(
    ("outline", "word"),
    [
        ([[1, 1, 5, 1, 5]], "expected a list of numbers"),
        ([[1, 1, 5, 1, 5, float("nan")]], "expected a number of pixels"),
        ([[1, 1, 5, 1, 5, "4"]], "expected a number of pixels"),
        ([[1, 1, 1e9, 1, 5, 4]], "far outside"),
        ({"size": [W, H], "counts": [W * H]}, "expected [12, 16]"),
        ({"size": [H, W], "counts": [10]}, "an RLE of 10 pixels, its image has 192"),
        ({"size": [H, W], "counts": []}, "an RLE of 0 pixels"),
        ({"size": [H, W], "counts": [-1, 193]}, "not lengths of runs"),
        ({"size": [H, W], "counts": "~~~"}, "not lengths of runs"),
        ({"size": [H, W], "counts": "oooooooooooooooooooo"}, "not lengths of runs"),
        ({"size": [H, W]}, "not lengths of runs"),
        ({}, "an RLE of size None"),
    ],
)
def test_outlines_that_nobody_can_mean(outline: Any, word: str) -> None:
    refusal(lambda: fill(outline, H, W), word)


# COCO


def test_the_smaller_shape_is_in_front_in_any_order(tmp_path: Path) -> None:
    car: dict[str, Any] = {"segmentation": [square(1, 1, 13, 11)]}
    wheel: dict[str, Any] = {"segmentation": [square(2, 6, 5, 9)], "category_id": 2}
    expected = np.where(area(2, 6, 5, 9) > 0, 2, area(1, 1, 13, 11))
    for number, order in enumerate(([car, wheel], [wheel, car])):
        report = imported(one_coco(tmp_path / str(number), *order), "coco", tmp_path / f"out{number}")
        np.testing.assert_array_equal(only(tmp_path / f"out{number}"), expected)
        assert any("overlap: shapes of several classes in 1 image (4.69% of" in line for line in report.lines())
    same = imported(one_coco(tmp_path / "s", car, {**wheel, "category_id": 1}), "coco", tmp_path / "same")
    assert not any("overlap" in line for line in same.lines())


def test_crowds_boxes_keypoints_and_empty_annotations(tmp_path: Path) -> None:
    crowd = {"segmentation": {"size": [H, W], "counts": [0, H, H * (W - 1)]}, "iscrowd": 1}
    box = {"segmentation": [], "bbox": [8, 4, 4, 5], "keypoints": [9, 5, 2], "num_keypoints": 1}
    part = {"segmentation": [square(9, 5, 10, 6)], "category_id": 2}
    dust = {"segmentation": [square(14, 1, 14.1, 1.1)]}
    root = one_coco(tmp_path / "coco", crowd, box, part, dust, {"segmentation": []})
    report = imported(root, "coco", tmp_path / "out")
    expected = area(0, 0, 1, H) + area(8, 4, 12, 9, VOID)
    expected[5, 9] = 2
    np.testing.assert_array_equal(only(tmp_path / "out"), expected)
    assert {what: count for what, count in report.notes.items() if count} == {
        "group (iscrowd): labelled as its class": 1,
        "box without a mask: void inside it": 1,
        "keypoints: left out": 1,
        "annotation without a mask: left out": 1,
        "shape without a pixel: left out": 1,
    }


def test_names_with_a_meaning(tmp_path: Path) -> None:
    """`background` cuts a hole, `void` is void; neither becomes a class."""
    shapes: list[dict[str, Any]] = [
        {"segmentation": [square(0, 0, W, H)]},
        {"segmentation": [square(2, 2, 6, 6)], "category_id": 2},
        {"segmentation": [square(8, 2, 10, 4)], "category_id": 3},
    ]
    names = {1: " car ", 2: "Background", 3: "void"}
    imported(one_coco(tmp_path / "coco", *shapes, names=names), "coco", tmp_path / "out")
    expected = np.ones((H, W), np.uint8)
    expected[2:6, 2:6], expected[2:4, 8:10] = 0, VOID
    np.testing.assert_array_equal(only(tmp_path / "out"), expected)
    assert (tmp_path / "out" / "classes.txt").read_text() == "background\ncar\n"


def roboflow(root: Path, split: str, number: int) -> None:
    """A list as Roboflow exports it: the first category is the project, which nothing belongs to."""
    name = f"{number}_jpg.rf.0a1b.jpg"
    picture(root / split / name, H, W, number)
    shapes = [{"image_id": 0, "category_id": 1, "segmentation": [square(1, 1, 5, 5)], "bbox": [1, 1, 4, 4], "area": 16}]
    content = coco([{"id": 0, "file_name": name, "height": H, "width": W}], shapes, {0: "street", 1: "car", 2: "bus"})
    for category in content["categories"]:
        category["supercategory"] = "street" if category["id"] else "none"
    write_json(root / split / "_annotations.coco.json", content)


def test_roboflow_has_its_own_lists(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        roboflow(tmp_path / "rf", split, number)
    report = imported(tmp_path / "rf", "coco", tmp_path / "out")
    assert report.lists == {
        "train": ["0_jpg.rf.0a1b"], "val": ["1_jpg.rf.0a1b"], "test": ["2_jpg.rf.0a1b"]
    }  # fmt: skip
    assert SegmentationFolder(tmp_path / "out", "val").classes == ("background", "car", "bus")
    refusal(lambda: imported(tmp_path / "rf", "coco", tmp_path / "o", val_fraction=0.5), "--val-fraction", "its own")


def test_label_studio_writes_paths_of_windows(tmp_path: Path) -> None:
    picture(tmp_path / "ls" / "images" / "ab12-street.png", H, W)
    shapes = [{"image_id": 0, "category_id": 0, "segmentation": [square(1, 1, 5, 5)], "ignore": 0}]
    images = [{"id": 0, "file_name": "images\\ab12-street.png", "height": H, "width": W}]
    write_json(tmp_path / "ls" / "result.json", coco(images, shapes, {0: "car"}))
    imported(tmp_path / "ls" / "result.json", "coco", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), area(1, 1, 5, 5))


@pytest.mark.parametrize("name", ["..\\..\\media\\upload\\4\\ab12-street.png", "/label-studio/data/ab12-street.png"])
def test_an_image_that_stood_elsewhere_is_the_one_of_its_name(tmp_path: Path, name: str) -> None:
    """Label Studio 1.16 names the files of its own storage, and puts copies beside the JSON."""
    picture(tmp_path / "ls" / "images" / "ab12-street.png", H, W)
    images = [{"id": 0, "file_name": name, "height": H, "width": W}]
    shapes = [{"image_id": 0, "category_id": 0, "segmentation": [square(1, 1, 5, 5)]}]
    write_json(tmp_path / "ls" / "result.json", coco(images, shapes, {0: "car"}))
    imported(tmp_path / "ls", "coco", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), area(1, 1, 5, 5))
    picture(tmp_path / "ls" / "more" / "ab12-street.png", H, W)
    refusal(lambda: imported(tmp_path / "ls", "coco", tmp_path / "two"), "result.json", "it may be")


def test_numbers_that_are_written_as_text_are_the_same_ids(tmp_path: Path) -> None:
    shape = {"image_id": "1", "category_id": "2", "segmentation": [square(1, 1, 5, 5)]}
    imported(one_coco(tmp_path / "coco", shape), "coco", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), area(1, 1, 5, 5, 2))


def test_coco_reads_instances_of_each_list(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    for number, split in enumerate(("train2017", "val2017")):
        picture(root / split / f"{number}.jpg", H, W, number)
        images = [{"file_name": f"{number}.jpg", "height": H, "width": W}]
        content = coco(images, [{"image_id": 1, "category_id": 1, "segmentation": [square(1, 1, 5, 5)]}], {1: "car"})
        write_json(root / "annotations" / f"instances_{split}.json", content)
        write_json(root / "annotations" / f"person_keypoints_{split}.json", content)
    assert imported(root, "coco", tmp_path / "out").lists == {"train": ["0"], "val": ["1"]}
    file = root / "annotations" / "instances_train2017.json"
    assert imported(file, "coco", tmp_path / "one").lists == {"train": ["0"]}


def test_images_without_a_shape(tmp_path: Path) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})
    picture(root / "images" / "b.png", H, W, 1)
    images = [{"file_name": f"{name}.png", "height": H, "width": W} for name in "ab"]
    shapes = [{"image_id": 1, "category_id": 1, "segmentation": [square(1, 1, 5, 5)]}]
    write_json(root / "annotations" / "instances_default.json", coco(images, shapes, {1: "car"}))
    report = imported(root, "coco", tmp_path / "out")
    assert not label_maps(tmp_path / "out")["b"].any()
    assert any("1 × image without a shape: background everywhere (--drop-empty" in line for line in report.lines())
    report = imported(root, "coco", tmp_path / "less", drop_empty=True)
    assert report.lists == {"train": ["a"]}
    assert "note: 1 × image without a shape: left out" in report.lines()


# labelme


def test_labelme_draws_many_shapes(tmp_path: Path) -> None:
    root = tmp_path / "labelme"
    picture(root / "img" / "a.png", H, W)
    blob = np.zeros((H, W), bool)
    blob[9:11, 2], blob[10, 2:5] = True, True
    shapes: list[dict[str, Any]] = [
        {"label": "cat", "points": [[1, 1], [4, 1], [4, 4], [1, 4]], "group_id": 1},
        {"label": "cat", "points": [[5, 1], [6, 1], [6, 4], [5, 4]], "group_id": 1},
        {"label": "door", "points": [[7, 2], [9, 8]], "shape_type": "rectangle"},
        {"label": "ball", "points": [[12, 6], [12, 9]], "shape_type": "circle"},
        labelme_mask("snake", blob),
        {"label": "__ignore__", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]},
        {"label": "tail", "points": [[1, 1], [4, 4]], "shape_type": "line"},
        {"label": "nose", "points": [[1, 1]], "shape_type": "point"},
    ]
    write_json(root / "json" / "a.json", labelme("..\\img\\a.png", (H, W), shapes))
    report = imported(root, "labelme", tmp_path / "out")
    names = SegmentationFolder(tmp_path / "out", "train").classes
    assert names == ("background", "ball", "cat", "door", "snake")
    labels = only(tmp_path / "out")
    x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    ball = labels == 1
    distance = np.hypot(x - 12, y - 6)
    assert ball[distance < 2.4].all() and not ball[distance > 3.2].any()
    rest = np.maximum(area(1, 1, 4, 4, 2), area(5, 1, 6, 4, 2)) + area(7, 2, 9, 8, 3) + blob * np.uint8(4)
    rest[0, 0] = VOID
    np.testing.assert_array_equal(np.where(ball, 0, labels), rest)
    assert {what for what, count in report.notes.items() if count} == {
        "rectangle: filled as drawn", "line: left out", "point: left out"
    }  # fmt: skip


def test_labelme_finds_an_image_that_was_moved_with_its_file(tmp_path: Path) -> None:
    root = tmp_path / "labelme"
    picture(root / "a.png", H, W)
    shape = {"label": "cat", "points": [[1, 1], [4, 1], [4, 4], [1, 4]]}
    write_json(root / "a.json", labelme("../old/a.png", (H, W), [shape], imageData="aGVsbG8="))
    write_json(root / "settings.json", {"theme": "dark"})
    report = imported(root, "labelme", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), area(1, 1, 4, 4))
    assert report.notes["JSON of another tool: left out"] == 1


# CVAT


def test_cvat_draws_many_shapes(tmp_path: Path) -> None:
    root = tmp_path / "cvat"
    picture(root / "images" / "cam" / "a.png", H, W)
    picture(root / "images" / "cam" / "b.png", H, W, 1)
    shapes = [
        element("polygon", "car", points="1.00,1.00;5.00,1.00;5.00,5.00;1.00,5.00", z_order=2),
        element("polygon", "road", points="4,4;6,4;6,6;4,6"),  # smaller, but behind
        element("box", "road", xtl=7, ytl=1, xbr=9, ybr=3),
        element("box", "road", xtl=8, ytl=4, xbr=14, ybr=6, rotation=90.0),  # turned: from 10, 2 to 12, 8
        element("ellipse", "car", cx=3, cy=9, rx=2, ry=1),
        element("mask", "road", rle="1, 2, 1", left=13, top=10, width=2, height=2),
        element("polyline", "car", points="1,1;2,2"),
        element("points", "car", points="1,1"),
        '<tag label="car" source="manual"></tag>',
    ]
    facts = {"width": W, "height": H}
    images = [({"name": "cam/a.png", "subset": "Train", **facts}, shapes)]
    images += [({"name": "cam/b.png", "subset": "Validation", **facts}, shapes[:1])]
    (root / "annotations.xml").write_text(cvat(images, ("car", "road", "person")), encoding="utf-8")
    report = imported(root, "cvat", tmp_path / "out")
    assert report.lists == {"train": ["a"], "val": ["b"]}
    expected = np.maximum(area(7, 1, 9, 3, 2), area(10, 2, 12, 8, 2)) + area(4, 4, 6, 6, 2)
    expected[1:5, 1:5] = 1
    expected[10, 14] = expected[11, 13] = 2
    labels = label_maps(tmp_path / "out")["a"]
    np.testing.assert_array_equal(labels[:, 6:], expected[:, 6:])
    np.testing.assert_array_equal(labels[:7], expected[:7])
    assert labels[8:10, 2:4].all() and not labels[7, :6].any() and not labels[8:, 5].any()
    table = "value,name,colour\n0,background,#000000\n1,car,#804080\n2,road,#dc143c\n3,person,#999999\n"
    assert (tmp_path / "out" / "classes.txt").read_text() == table
    assert {what for what, count in report.notes.items() if count} == {
        "box: filled as drawn", "polyline: left out", "points: left out", "tag: left out"
    }  # fmt: skip


def test_cvat_turns_a_box_clockwise(tmp_path: Path) -> None:
    root = tmp_path / "cvat"
    picture(root / "images" / "a.png", H, W)
    box = element("box", "car", xtl=3, ytl=5, xbr=13, ybr=7, rotation=30.0)  # around 8, 6
    rim = element("polygon", "road", points=f"0,0;{W},0;{W},{H};0,{H}", z_order=-1)  # boxes alone are refused
    (root / "annotations.xml").write_text(
        cvat([({"name": "a.png", "width": W, "height": H}, [rim, box])], ("car", "road")), encoding="utf-8"
    )
    imported(root, "cvat", tmp_path / "out")
    rows, columns = np.nonzero(only(tmp_path / "out") == 1)
    x, y = columns + 0.5 - 8, rows + 0.5 - 6  # y grows downwards, so the right end sinks
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    along, across = cos * x + sin * y, cos * y - sin * x
    assert len(rows) >= 16 and abs(along).max() < 5.1 and abs(across).max() < 1.1  # corners are rounded
    assert (y[x > 2] > 0).all() and (y[x < -2] < 0).all()


# Masks


def test_values_with_gaps_void_and_no_background(tmp_path: Path) -> None:
    root = tmp_path / "masks"
    values = np.full((H, W), 7, np.uint8)
    values[:4], values[4:6] = 40, 11
    for name in ("a", "b"):
        picture(root / "images" / "train" / f"{name}.png", H, W, ord(name))
        save(values, root / "masks" / "train" / f"{name}_mask.png")
    picture(root / "images" / "train" / "c.png", H, W)
    (root / "classes.txt").write_text("value,name\n40,sky\n7,road\n11,void\n")
    report = imported(root, "masks", tmp_path / "out", val_fraction=0)
    np.testing.assert_array_equal(label_maps(tmp_path / "out")["a"][:, 0], [1] * 4 + [VOID] * 2 + [2] * 6)
    assert (tmp_path / "out" / "classes.txt").read_text() == "value,name\n1,sky\n2,road\n"
    assert SegmentationFolder(tmp_path / "out", "train").classes == ("", "sky", "road")
    assert read_split(tmp_path / "out", "train") == ["a", "b"]
    assert report.notes["image without a mask: left out"] == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("class_dict.csv", 'name,r,g,b\nbackground,0,0,0\n"road, wet",9,8,7\nvoid,1,1,1\n'),
        ("classes.txt", 'value,name,colour\n0,background,black\n3,"road, wet",#090807\n255,void,#010101\n'),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad, wet:9,8,7::\nvoid:1,1,1::\n"),
    ],
)
def test_colours_with_a_map(tmp_path: Path, file: str, text: str) -> None:
    root = tmp_path / "masks"
    picture(root / "images" / "a.png", H, W)
    colours = np.zeros((H, W, 3), np.uint8)
    colours[:3], colours[3:5] = (9, 8, 7), (1, 1, 1)
    save(colours, root / "masks" / "a.png")
    (root / file).write_text(text)
    imported(root, "masks", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out")[:, 0], [1] * 3 + [VOID] * 2 + [0] * 7)
    assert SegmentationFolder(tmp_path / "out", "train").legend.colours[1] == (9, 8, 7)


def test_what_labelme_converts_itself(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    picture(root / "JPEGImages" / "a.png", H, W)
    labels = area(1, 1, 5, 5)
    labels[0] = VOID
    save(labels, root / "SegmentationClassPNG" / "a.png")
    picture(root / "SegmentationClassVisualization" / "a.jpg", H, W)
    (root / "class_names.txt").write_text("_background_\ncat\n")
    imported(root, "masks", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), labels)
    assert SegmentationFolder(tmp_path / "out", "train").classes == ("background", "cat")


# Images


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_annotations_are_of_the_upright_image(tmp_path: Path, turn: int) -> None:
    root = one_coco(tmp_path / "coco", {"segmentation": [square(1, 1, 5, 5)]})
    path = root / "images" / "a.png"
    pixels = np.zeros((W, H, 3) if turn in (6, 8) else (H, W, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif(turn))
    imported(root, "coco", tmp_path / "out")
    np.testing.assert_array_equal(only(tmp_path / "out"), area(1, 1, 5, 5))
    if turn in (6, 8):
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(path, exif=exif(turn))
        refusal(lambda: imported(root, "coco", tmp_path / "no"), path, "12×16", "16×12", "EXIF orientation")


def test_the_same_seed_draws_the_same_val_list(tmp_path: Path) -> None:
    root = tmp_path / "masks"
    for number in range(20):
        picture(root / "images" / f"{number}.png", 4, 4, number)
        save(np.ones((4, 4), np.uint8), root / "masks" / "car" / f"{number}.png")
    drawn = [
        imported(root, "masks", tmp_path / f"o{n}", seed=seed, val_fraction=0.3).lists
        for n, seed in enumerate((0, 0, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(drawn[0][split]) for split in ("train", "val")] == [14, 6]
    assert sorted(drawn[0]["train"] + drawn[0]["val"]) == sorted(map(str, range(20)))
