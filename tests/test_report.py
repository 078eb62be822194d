"""`recseg report`: the page as a reader gets it, the numbers on it, and what it says of them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, recurrent_model, save_indexed
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recseg.classes import NO_BACKGROUND, Legend
from recseg.cli.main import main
from recseg.cli.report import default_name
from recseg.data.folder import SegmentationFolder
from recseg.data.survey import Survey
from recseg.evaluation.answers import Answer, to_slot_size
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.scores import Scores
from recseg.report.charts import smoothed, ticks
from recseg.report.facts import Facts, objective_changes
from recseg.report.hints import hints
from recseg.report.make import cell_size, find_log
from recseg.report.tables import confusion_table, count_table
from recseg.weights.io import load, save_weights

NAMES = ("background", "cat", "dog", "pole")
VOID_TAGS = {"meta", "img", "br"}
LOG = '{"step": 5, "loss": 3.0}\n{"step": 10, "loss": 2.0, "stop": 1}\n{"step": 10, "val_loss": 2.5, "val_miou": 0.2}\n'


class Page(HTMLParser):
    """The tags of a page with their attributes; each that is opened is closed, in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(*arguments: object) -> int:
    return main(["report", *map(str, arguments), "--device", "cpu"])


# The page


@pytest.fixture
def run_folder(tiny_recurrent: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(tiny_recurrent.read_bytes())
    (folder / "log.jsonl").write_text(LOG + '{"step": 15, "lo')  # cut off
    return folder


def test_a_run_gets_its_page(run_folder: Path, tiny_voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(run_folder, "--data", tiny_voc) == 0
    assert capsys.readouterr().out == f"written: {run_folder / 'report.html'}\n"
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    scores = evaluate(load(run_folder), SegmentationFolder(tiny_voc, "val"), progress=False)
    assert f"{100 * scores['miou']:.1f} %" in page.words
    for words in (
        "tiny_2",
        "tiny_3",
        "Validation scores",
        "At step 10 the terms of the loss change",
        "recseg report run",
    ):
        assert words in page.words
    images = page.all("img")
    assert len(images) == 2 * (3 + 3)  # image, ground truth, answer, and three steps
    assert all((image["src"] or "").startswith("data:image/webp;base64,") and image["alt"] for image in images)
    assert str(run_folder.parent) not in text


def test_the_page_asks_nothing_of_others_and_runs_nothing(run_folder: Path, tiny_voc: Path) -> None:
    assert report(run_folder, "--data", tiny_voc) == 0
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "<script" not in text
    assert not re.search(r"https?://|url\(|@import|<link", text)


def test_tables_and_charts_can_be_read_aloud(run_folder: Path, tiny_voc: Path) -> None:
    assert report(run_folder, "--data", tiny_voc) == 0
    page = Page((run_folder / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    charts = [chart for chart in page.all("svg") if chart.get("role") == "img"]
    assert len(charts) == 3 and all(chart["aria-label"] for chart in charts)
    assert all(box["tabindex"] == "0" for box in page.all("div") if box.get("class") == "wide")


def test_names_are_words_and_never_markup(tiny_voc: Path, tmp_path: Path) -> None:
    names = ["background", '<script>alert("1")</script>', "a&b", "'quoted\"", *(f"<b>{k}" for k in range(17))]
    (tiny_voc / "classes.txt").write_text("\n".join(names) + "\n")
    odd = "<img src=x onerror=alert(1)>"
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        (tiny_voc / folder / f"tiny_3{suffix}").rename(tiny_voc / folder / f"{odd}{suffix}")
    (tiny_voc / "ImageSets" / "Segmentation" / "val.txt").write_text(f"tiny_2\n{odd}\n")
    model = recurrent_model(num_classes=21)
    file, out = tmp_path / "odd.safetensors", tmp_path / "r.html"
    metadata = {"note": "<b>", "<i>": 1, "split": "train"}
    save_weights(file, model, classes=names, image_size=32, metadata=metadata)
    assert report(file, "--data", tiny_voc, "--out", out) == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert not page.all("script") and not page.all("b")[4:] and not page.all("i")
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert odd in page.words and names[3] in page.words


def test_other_networks(tiny_dense: Path, tiny_voc: Path, tmp_path: Path) -> None:
    """A dense network has no probabilities of classes; a file without a log has no curves."""
    assert report(tiny_dense, "--data", tiny_voc, "--limit", 1, "--out", tmp_path / "dense.html") == 0
    page = Page((tmp_path / "dense.html").read_text(encoding="utf-8"))
    assert "no calibration" in page.words and "no training log" in page.words and "Of 1 image." in page.words


def test_an_exported_network(tiny_recurrent: Path, tiny_voc: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from recseg.export.onnx import export

    export(load(tiny_recurrent), tmp_path / "x.onnx")
    assert report(tmp_path / "x.onnx", "--data", tiny_voc, "--out", tmp_path / "r.html") == 0
    assert "1: " in Page((tmp_path / "r.html").read_text(encoding="utf-8")).words


def test_training_images_are_counted_and_shared_ones_told(tiny_recurrent: Path, tiny_voc: Path, tmp_path: Path) -> None:
    lists = tiny_voc / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("tiny_0\ntiny_2\n")
    model = load(tiny_recurrent)
    save_weights(tmp_path / "w.safetensors", model, classes=model.classes, image_size=32, metadata={"split": "train"})
    assert report(tmp_path / "w.safetensors", "--data", tiny_voc, "--out", tmp_path / "r.html") == 0
    words = Page((tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "images in train" in words and "1 of these 2 images are in the list" in words
    assert "(list train): boat (0), bird (1)." in words
    end = ["--split", "train", "--out", tmp_path / "r.html"]
    assert report(tmp_path / "w.safetensors", "--data", tiny_voc, *end) == 0
    words = Page((tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert "2 of these 2 images are in the list" in words


def test_inputs_are_kept_and_faults_are_told(
    run_folder: Path, tiny_voc: Path, tmp_path: Path, refuses: Refuses
) -> None:
    start = ["report", run_folder, "--data", tiny_voc]
    for path in (run_folder / "weights.safetensors", run_folder / "log.jsonl", tiny_voc / "JPEGImages" / "tiny_2.jpg"):
        refuses([*start, "--out", path], path.name, "read from")
    refuses([*start, "--out", tmp_path], "is a folder")
    refuses([*start, "--split", "test"], "test")
    refuses(["report", tmp_path / "absent", "--data", tiny_voc], "absent")
    (run_folder / "log.jsonl").write_text("no log\n{}\n")
    refuses(start, "log.jsonl, line 1", "not JSON")


def test_where_the_page_and_the_log_are(run_folder: Path) -> None:
    assert default_name(str(run_folder)) == run_folder / "report.html"
    assert default_name("voc-recurrent") == Path("voc-recurrent-report.html")
    assert default_name("x/y/net.onnx") == Path("net-report.html")
    assert find_log("absent") is None
    assert find_log(str(run_folder)) == find_log(str(run_folder / "weights.safetensors")) == run_folder / "log.jsonl"
    published = find_log("pictograms-recurrent")
    assert published is not None and published.name == "pictograms-recurrent-log.jsonl"


# The numbers


def facts_of(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any], list[int]]], names: tuple[str, ...] = NAMES, **changes: Any
) -> Facts:
    """Facts of (true label map, answered label map, classes in the order that they are named)."""
    scores = Scores(len(names))
    for place, (truth, answer, classes) in enumerate(pairs):
        labels, given = torch.tensor(truth), torch.tensor(answer)
        small = to_slot_size(given)
        masks = torch.stack([small == label for label in classes]) if classes else torch.zeros(0, 256, 256)
        present = sorted(set(np.unique(truth).tolist()) - {0, 255})
        scores.update(place, Answer(given, classes, masks, [], [0.9] * len(classes), []), labels, present)
    found = scores.compute()
    found["per_image"] = {f"image {place}": counts._asdict() for place, counts in scores.images.items()}
    legend = Legend.plain(names)
    base = Facts(found, legend, "recurrent", None, 1.0, survey_of([pair[0] for pair in pairs]), None, None, 0, [])
    return replace(base, **changes)


def survey_of(maps: Sequence[NDArray[Any]]) -> Survey:
    areas = np.array([np.bincount(each.ravel(), minlength=256) for each in maps], np.int32)
    solid = np.zeros(256, np.int64)
    for each in maps:
        corner = each[:-1, :-1]
        same = (corner == each[1:, :-1]) & (corner == each[:-1, 1:]) & (corner == each[1:, 1:])
        solid += np.bincount(corner[same], minlength=256)
    sizes = np.array([each.shape for each in maps], np.int32)
    return Survey(areas, [f"image {place}" for place in range(len(maps))], sizes, solid, {})


def painted(*boxes: tuple[int, int, int, int, int], shape: tuple[int, int] = (20, 20)) -> NDArray[np.int64]:
    """A label map with rectangles: label, top, left, height, width."""
    labels = np.zeros(shape, np.int64)
    for label, top, left, height, width in boxes:
        labels[top : top + height, left : left + width] = label
    return labels


CAT, DOG = painted((1, 0, 0, 10, 10)), painted((2, 0, 0, 10, 10))


def test_rows_of_classes() -> None:
    half = painted((1, 0, 0, 10, 5), (2, 0, 5, 10, 5))
    facts = facts_of([(CAT, half, [1, 2]), (DOG, DOG, [2])])
    assert [row.name for row in facts.rows] == ["background", "cat", "dog"]
    background, cat, dog = facts.rows
    assert (cat.images, cat.named, cat.right, cat.share) == (1, 1, 1, 100 / 800)
    assert (cat.precision, cat.recall, cat.iou) == (1, 0.5, 0.5)
    assert (dog.images, dog.named, dog.right) == (1, 2, 1)
    assert (dog.precision, dog.recall, dog.iou) == (100 / 150, 1, 100 / 150)
    assert (background.images, background.named, background.iou) == (2, 0, 1)


def test_counts_swaps_and_the_order_of_images() -> None:
    facts = facts_of([(CAT, DOG, [2]), (CAT, CAT, [1, 3]), (painted(), painted(), []), (CAT, painted(), [])])
    assert facts.counts.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    expected = np.zeros((4, 4), int)
    expected[1, 2] = 1
    assert facts.swaps.tolist() == expected.tolist()
    assert list(facts.image_iou) == ["image 0", "image 3", "image 1", "image 2"]
    assert list(facts.image_iou.values()) == [0, 0, 1, 1]


def test_many_classes_count_as_one_number() -> None:
    names = ("background", *(f"class {k}" for k in range(1, 15)))
    truth = np.arange(225).reshape(15, 15) // 15
    facts = facts_of([(truth, truth, list(range(1, 15)))], names)
    assert facts.counts.shape == (11, 11) and facts.counts[10, 10] == 1
    assert "10 or more" in count_table(facts) and count_table(facts).count("<tr>") == 2


def test_a_matrix_of_many_classes_shows_those_that_lose_most() -> None:
    names = ("background", *(f"class {k}" for k in range(1, 41)))
    truth = np.arange(41 * 41).reshape(41, 41) // 41
    answer = truth.copy()
    answer[40] = 39
    table = confusion_table(facts_of([(truth, answer, list(range(1, 40)))], names))
    assert "Of 41 classes the 30" in table and table.count('<th scope="row">') == 30
    assert "class 39" in table and "class 40" in table and "class 35" not in table


def test_how_wide_a_class_is() -> None:
    facts = facts_of([(painted((3, 0, 5, 200, 3), (1, 50, 50, 40, 40), shape=(200, 100)),) * 2 + ([3, 1],)])
    assert facts.widths[3] == pytest.approx(3, abs=0.05)
    assert facts.widths[1] == pytest.approx(20, abs=0.5)


def test_a_cell_of_the_masks(tiny_voc: Path, tiny_recurrent: Path, tiny_dense: Path) -> None:
    dataset = SegmentationFolder(tiny_voc, "val")
    assert cell_size(load(tiny_recurrent), dataset) == cell_size(load(tiny_dense), dataset) == 2


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_enclose_what_is_shown(low: float, span: float) -> None:
    found = ticks(low, low + span)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step and found[-1] >= low + span - 1e-6 * step
    assert 2 <= len(found) <= 8 and np.allclose(np.diff(found), step)


def test_a_running_mean() -> None:
    points = [(float(x), float(x * x)) for x in range(9)]
    expected = [np.mean([y for _, y in points[first : first + 4]]) for first in range(6)]
    assert [x for x, _ in smoothed(points, 4)] == list(range(3, 9))
    np.testing.assert_allclose([y for _, y in smoothed(points, 4)], expected)


def test_where_the_loss_changes() -> None:
    log = [
        {"step": 1, "loss": 1},
        {"step": 2, "val_loss": 1},
        {"step": 3, "loss": 2},
        {"step": 4, "loss": 3, "stop": 1},
    ]
    assert list(objective_changes(log)) == [4]


# What stands out


def reported(facts: Facts, *words: str) -> None:
    """One hint, and only one, has all these words."""
    assert sum(all(word in hint for word in words) for hint in hints(facts)) == 1, hints(facts)


def test_nothing_stands_out_of_a_perfect_answer() -> None:
    facts = facts_of([(CAT, CAT, [1])] * 30)
    facts = replace(facts, scores={**facts.scores, "class_calibration_error": 0.05})
    assert hints(facts) == []


def test_a_class_that_is_named_as_another() -> None:
    facts = facts_of([(CAT, DOG, [2])] * 4 + [(CAT, CAT, [1])] * 6)
    reported(facts, "cat is named as dog in 40", "(4 of 10)")
    reported(facts, "predicted as another: cat → dog (40")


def test_a_class_that_is_never_named_and_one_that_is_not_there() -> None:
    facts = facts_of([(CAT, painted((3, 0, 0, 10, 10)), [3])])
    reported(facts, "Never named: cat (in 1 image")
    reported(facts, "in no image: pole")


def test_classes_that_are_missed() -> None:
    reported(facts_of([(CAT, painted((1, 0, 0, 10, 4)), [1])]), "predicted as background: cat (60")


@pytest.mark.parametrize("kind, early, late", [("recurrent", "stop comes too early", "stop comes too late"),
                                               ("dense", "Too few", "Too many")])  # fmt: skip
def test_too_few_and_too_many_classes(kind: str, early: str, late: str) -> None:
    both = painted((1, 0, 0, 5, 5), (2, 10, 10, 5, 5))
    reported(facts_of([(both, both, [1])] * 3 + [(both, both, [1, 2])] * 7, kind=kind), early, "in 30")
    reported(facts_of([(both, both, [1, 2, 3])] * 3 + [(both, both, [1, 2])] * 7, kind=kind), late, "more in 30")


def test_thin_classes_are_told_at_the_size_of_the_image() -> None:
    pole = painted((3, 0, 5, 100, 3), (1, 20, 40, 40, 40), shape=(100, 100))
    facts = facts_of([(pole, pole, [1, 3])])
    assert not any("stride" in hint for hint in hints(replace(facts, cell=2.0)))
    reported(replace(facts, cell=2.0, side=50), "(4 pixels of an image)", "pole (about 3 pixels wide)")


def test_images_that_shrink() -> None:
    reported(facts_of([(CAT, CAT, [1])], side=5), "shrunk 4.0-fold", "--tile")


def test_rare_classes() -> None:
    training = survey_of([CAT] * 25 + [DOG] * 4)
    facts = facts_of([(CAT, CAT, [1]), (DOG, DOG, [2])], training=training, trained_on="train")
    reported(facts, "In fewer than 20 training images (list train): dog (4).")


def test_a_background_that_no_mask_holds() -> None:
    full = np.where(CAT == 1, 1, 2)
    reported(facts_of([(full, CAT, [1])]), "75", "predicted as background", "classes.txt")
    named = facts_of([(full, full, [1, 2])], (NO_BACKGROUND, "cat", "dog"))
    assert not any("predicted as background" in hint for hint in hints(named))


@pytest.mark.parametrize(
    "curve, words", [((0.1, 0.2, 0.3, 0.4), "train longer"), ((0.1, 0.4, 0.3, 0.3), "best.safetensors"),
                     ((0.1, 0.3, 0.3, 0.3), None)],
)  # fmt: skip
def test_a_training_that_is_too_short_or_past_its_best(curve: Sequence[float], words: str | None) -> None:
    log = [{"step": 10 * place, "val_miou": value} for place, value in enumerate(curve)]
    facts = facts_of([(CAT, CAT, [1])], log=log)
    assert sum("validation mIoU" in hint for hint in hints(facts)) == (words is not None)
    if words:
        reported(facts, words)


def test_probabilities_that_are_not_to_be_believed() -> None:
    sure = facts_of([(CAT, DOG, [2])] * 5 + [(CAT, CAT, [1])] * 5)
    reported(sure, "Probabilities of a class are off by 40.0 points", "overconfident: 90", "50")


def test_masks_are_as_they_were(run_folder: Path, tiny_voc: Path, snapshot: Any) -> None:
    before = snapshot(tiny_voc)
    assert report(run_folder, "--data", tiny_voc) == 0
    assert snapshot(tiny_voc) == before


def test_an_image_that_cannot_be_read_is_named(run_folder: Path, tiny_voc: Path, refuses: Refuses) -> None:
    save_indexed(np.full((32, 48), 77), tiny_voc / "SegmentationClass" / "tiny_3.png")
    refuses(["report", run_folder, "--data", tiny_voc], "tiny_3.png", "77")
