"""Controls by hand, groups of runs, refusals, and what is said of the result."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, recurrent_model, refusal
from torch import Tensor

import recseg
from recseg.classes import NO_BACKGROUND, VOC_CLASSES
from recseg.cli.main import main
from recseg.data.folder import SegmentationFolder
from recseg.evaluation.answers import NAMED, OWN, PIXELS, TRUE, answers_by_rule
from recseg.evaluation.compare import summarise
from recseg.evaluation.counts import CHOSEN, THRESHOLDS, counts_file, naming_curve, read_counts, write_counts
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.report import findings, markdown
from recseg.evaluation.scores import ImageCounts
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.viz.comparison import difference_intervals, naming_curves
from recseg.weights.io import save_weights

# --- rules of naming

CAT, DOG, OWL = 1, 2, 3


def pixel_map() -> Tensor:
    """(1, 4, 4, 8): background on the left; on the right three columns of cat before dog, and one of owl before dog."""
    logits = torch.zeros(1, 4, 4, 8)
    logits[:, 0, :, :4] = 5
    logits[:, DOG, :, 4:] = 2
    logits[:, CAT, :, 4:7], logits[:, CAT, :, 7] = 3, 1
    logits[:, OWL, :, 7] = 4
    return logits


class Dense(SegmentationModel):
    def forward(self, images: Tensor) -> Tensor:
        return pixel_map()


class Steps(SegmentationModel):
    """Names a dog in the right half, and has no pixels."""

    def forward(self, images: Tensor) -> RecurrentOutput:
        mask = torch.full((1, 4, 8), -5.0)
        mask[:, :, 4:] = 5
        one = torch.ones(1, dtype=torch.long)
        stop = torch.tensor([[-9.0, 9.0]])
        return RecurrentOutput(mask, torch.tensor([[0.0, 9.0, 0.0]]), stop, one - 1, one - 1, one, None, (4, 8))


class StepsAndPixels(Steps):
    def pixel_logits(self, images: Tensor) -> Tensor:
        return pixel_map()


def row_of(model: SegmentationModel, rule: str) -> list[int]:
    (found,) = answers_by_rule(model, torch.zeros(1, 3, 4, 8), (4, 8), [[DOG, OWL]], thresholds={"large": 0.2})
    labels = found[rule].labels
    assert (labels == labels[0]).all()  # the four rows are alike
    return labels[0].tolist()


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        (OWN, [DOG, DOG, DOG, DOG]),  # what the step painted
        (PIXELS, [CAT, CAT, CAT, OWL]),
        (NAMED, [DOG, DOG, DOG, DOG]),
        ("large", [CAT, CAT, CAT, CAT]),  # the owl's column is an eighth of the image, the cat's three are more
        (TRUE, [DOG, DOG, DOG, OWL]),
    ],
)
def test_the_same_pixels_under_other_names(rule: str, right: list[int]) -> None:
    assert row_of(StepsAndPixels(), rule) == [0] * 4 + right


def test_each_rule_names_its_classes() -> None:
    (found,) = answers_by_rule(
        StepsAndPixels(), torch.zeros(1, 3, 4, 8), (4, 8), [[DOG, OWL]], thresholds={"large": 0.2, "none": 0.9}
    )
    assert {rule: answer.classes for rule, answer in found.items()} == {
        OWN: [DOG], PIXELS: [CAT, OWL], NAMED: [DOG], "large": [CAT], "none": [], TRUE: [DOG, OWL]
    }  # fmt: skip
    assert found[PIXELS].areas == [0.5, 0.375, 0.0, 0.125]
    assert found["none"].masks.shape == (0, 256, 256) and not found["none"].labels.any()
    assert found[NAMED].masks[0, :, 160:].all() and not found[NAMED].masks[0, :, :96].any()


def test_a_dense_network_has_no_steps_and_some_networks_no_pixels() -> None:
    assert row_of(Dense(), OWN) == [0] * 4 + [CAT, CAT, CAT, OWL]
    for model, rules in ((Dense(), {OWN, TRUE}), (Steps(), {OWN})):
        (found,) = answers_by_rule(model, torch.zeros(1, 3, 4, 8), (4, 8), [[]], thresholds={})
        assert found.keys() == rules


@pytest.mark.parametrize("kind", [StepsAndPixels, Dense])
def test_without_a_background_every_rule_gives_each_pixel_a_class(kind: type[SegmentationModel]) -> None:
    model = kind()
    model.classes = (NO_BACKGROUND, "cat", "dog", "owl")
    for present in ([DOG, OWL], []):
        (found,) = answers_by_rule(
            model, torch.zeros(1, 3, 4, 8), (4, 8), [present], thresholds={"large": 0.2, "none": 0.95}
        )
        assert all(answer.labels.min() > 0 for answer in found.values())
        assert found["none"].classes == [] and found[TRUE].classes == present
    assert row_of(model, TRUE) == [DOG] * 4 + [DOG, DOG, DOG, OWL]


def test_the_curve_of_naming_by_hand() -> None:
    """A cat of 5 % with a speck of 0.5 % that is nothing; a dog of 2.5 %."""
    images = [ImageCounts([], [CAT], [], [], [0.945, 0.05, 0.0, 0.005]),
              ImageCounts([], [DOG], [], [], [0.975, 0.0, 0.025, 0.0])]  # fmt: skip
    curve = naming_curve(images)
    at = {least: (f1, count) for least, f1, count in zip(THRESHOLDS, *curve.values(), strict=True)}
    assert at[0.004] == (pytest.approx(4 / 5), 0.5)
    assert at[0.02] == (1.0, 1.0)
    assert at[0.04] == (pytest.approx(2 / 3), 0.5)
    assert at[0.1] == (0.0, 0.0)


# --- the command


@pytest.fixture
def other_seed(tmp_path: Path) -> Path:
    model = recurrent_model()
    with torch.no_grad():
        model.classifier.weight += 0.3 * torch.randn(model.classifier.weight.shape)
    path = tmp_path / "other.safetensors"
    save_weights(path, model, classes=VOC_CLASSES, image_size=32, metadata={"seed": 1, "step": 5})
    return path


@pytest.fixture
def compared(tmp_path: Path, tiny_voc: Path, tiny_recurrent: Path, tiny_dense: Path, other_seed: Path) -> Path:
    """A comparison as `recseg compare` writes it, on two images."""
    out = tmp_path / "out" / "tiny.json"
    arguments = ["compare", "--group", "recurrent", tiny_recurrent, other_seed, "--group", "dense", tiny_dense]
    arguments += ["--data", tiny_voc, "--choose-split", "train", "--per-class", "--json", out]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def test_rows_are_what_evaluate_says(
    compared: Path, tiny_voc: Path, tiny_recurrent: Path, other_seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads(compared.read_text(encoding="utf-8"))
    controls = [f": {rule}" for rule in (PIXELS, NAMED, *CHOSEN, TRUE)]
    assert set(result["rows"]) == {"recurrent", "dense"} | {"recurrent" + each for each in controls} | {
        "dense" + each for each in controls[2:]
    }
    alone = [evaluate(recseg.load(each), SegmentationFolder(tiny_voc, "val"), progress=False)
             for each in (tiny_recurrent, other_seed)]  # fmt: skip
    row = result["rows"]["recurrent"]
    for key in ("label_set_f1", "label_set_recall", "count_accuracy", "slot_accuracy", "slot_iou"):
        assert [run[key] for run in row["runs"]] == [pytest.approx(each[key]) for each in alone], key
    # Untrained networks see classes that are not there; no mean has them.
    assert result["classes"] == ["background", "bird", "boat"]
    assert "cat" in result["classes_not_in_ground_truth"] and row["iou_per_class"]["cat"] is None
    means = [np.mean([each["iou_per_class"][name] for name in result["classes"]]) for each in alone]
    assert [run["miou"] for run in row["runs"]] == pytest.approx(means)
    assert row["mean"]["miou"] == pytest.approx(np.mean(means))
    assert result["rows"][f"recurrent: {TRUE}"]["mean"]["label_set_f1"] == 1.0
    assert [run["seed"] for run in result["runs"]["recurrent"]] == [0, 1]
    assert (result["images"], result["thresholds_chosen_on"], result["seed"]) == (2, 2, 0)


def test_differences_are_those_of_the_rows(compared: Path) -> None:
    result = json.loads(compared.read_text(encoding="utf-8"))
    pairs = [(each["of"], each["minus"]) for each in result["differences"]]
    assert pairs == [("recurrent", f"recurrent: {rule}") for rule in (PIXELS, NAMED, *CHOSEN)] + [
        ("recurrent", "dense"), *(("recurrent", f"dense: {rule}") for rule in CHOSEN)
    ]  # fmt: skip
    for each in result["differences"]:
        of, minus = (result["rows"][each[side]]["mean"] for side in ("of", "minus"))
        assert each["miou"]["value"] == pytest.approx(of["miou"] - minus["miou"])
        assert each["miou"]["low"] <= each["miou"]["value"] <= each["miou"]["high"]


def test_counts_make_the_result_again(compared: Path, tmp_path: Path) -> None:
    counts = read_counts(counts_file(compared))
    result = json.loads(compared.read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(counts)
    again = json.loads(json.dumps(summarise(counts)))
    assert {key: result[key] for key in again} == again
    write_counts(tmp_path / "copy.gz", counts)
    assert (tmp_path / "copy.gz").read_bytes() == counts_file(compared).read_bytes()
    (tmp_path / "copy.gz").write_bytes(b"nothing")
    refusal(lambda: read_counts(tmp_path / "copy.gz"), "copy.gz")


def test_rows_of_other_images_are_not_averaged(compared: Path) -> None:
    counts = read_counts(counts_file(compared))
    fewer, other = copy.deepcopy(counts), copy.deepcopy(counts)
    fewer["groups"]["dense"][0]["images"][OWN].pop()
    image = other["groups"]["recurrent"][1]["images"][TRUE][0]
    image.confusion[0][0] = 20  # another class in the ground truth
    for changed, row in ((fewer, "dense"), (other, f"recurrent: {TRUE}")):
        refusal(partial(summarise, changed), row, "expected the same for all rows")


def test_what_cannot_be_compared_is_refused(
    tiny_voc: Path, tiny_recurrent: Path, tiny_dense: Path, refuses: Refuses
) -> None:
    def check(*arguments: object, words: tuple[str, ...]) -> None:
        refuses(["compare", "--data", tiny_voc, "--json", tiny_voc.parent / "no.json", *arguments], *words)

    check("--group", "a", words=("group a", "no runs"))
    check("--group", "a", tiny_dense, tiny_dense, words=("group a", "twice"))
    check("--group", "a", tiny_dense, "--group", "a", tiny_dense, words=("group a", "twice"))
    check("--group", "a", tiny_dense, tiny_recurrent, words=("group a", "kind", "only in their seed"))
    check("--group", "a", tiny_dense, "--choose-split", "val", words=("tiny_2", "both lists", "2 such"))
    (tiny_voc / "classes.txt").write_text("background\ncat\ndog\nowl\nbat\n")
    check("--group", "a", tiny_dense, words=("21 classes", "5"))


# --- what is said


def test_findings_say_what_is_separable(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(compared.read_text(encoding="utf-8"))
    for each in result["differences"]:
        each["miou"] = {"value": 0.02, "low": -0.01, "high": 0.04}
        for key in ("label_set_f1", "count_accuracy"):
            each[key] = {"value": -0.03, "low": -0.05, "high": -0.001}
    first, seeds, updates, absent = findings(result)
    yes, no = first.split(" Not separable: ")
    assert yes.startswith("Separable: ") and "recurrent − dense count accuracy −3.0 (−5.0 … −0.1)" in yes
    assert no.split("; ") == [
        "recurrent − own pixels mIoU +2.0 (−1.0 … +4.0)", "recurrent − dense mIoU +2.0 (−1.0 … +4.0)."
    ]  # fmt: skip
    assert "recurrent 2, dense 1" in seeds and "5" in updates and "aeroplane" in absent
    said = markdown(result, per_class=True)
    assert said.startswith(first) and "| boat " in said and "| cat " not in said
    tables = [block.splitlines() for block in said.strip().split("\n\n")[1:]]
    assert [len(table) - 2 for table in tables] == [len(result["rows"]), len(result["differences"]), 3]
    assert all(len({len(line) for line in table}) == 1 for table in tables)  # columns line up


def test_figures_of_a_comparison(compared: Path) -> None:
    result = json.loads(compared.read_text(encoding="utf-8"))
    intervals = difference_intervals(result)
    assert [axes.get_title(loc="left") for axes in intervals.axes] == [
        "mIoU, points", "label-set F1, points", "count accuracy, points"
    ]  # fmt: skip
    assert len(intervals.axes[0].get_yticklabels()) == len(result["differences"])
    curves = naming_curves(result)
    lines: list[Any] = curves.axes[1].get_lines()
    assert [line.get_label() for line in lines] == ["recurrent: own pixels", "recurrent", "dense: own pixels"]
    assert lines[1].get_ydata()[0] == 100 * result["rows"]["recurrent"]["mean"]["count_accuracy"]
