"""A published score is found again, or the difference is named; and each one says where it comes from."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Refuses, refusal

import recseg
from recseg.cli.main import main
from recseg.cli.results import repeated, verify
from recseg.data.folder import SegmentationFolder
from recseg.evaluation import verify as verification
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import write_result
from recseg.evaluation.verify import MOVED, OVERALL, PER_CLASS, compare, published_results
from recseg.weights.registry import published_weights


@pytest.fixture
def published(tmp_path: Path, tiny_voc: Path, tiny_recurrent: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result as `recseg evaluate` writes one, in a folder of results of its own."""
    folder = tmp_path / "results"
    scores = evaluate(recseg.load(tiny_recurrent), SegmentationFolder(tiny_voc, "val"), progress=False)
    command = ["recseg", "evaluate", "--weights", str(tiny_recurrent), "--data", str(tiny_voc)]
    monkeypatch.setattr(verification, "resource", lambda *parts: folder.joinpath(*parts[1:]))
    monkeypatch.chdir(tmp_path)  # a result names no folder of the machine: what it names lies here
    write_result(folder / "tiny.json", scores, command=command, seed=0, data=tiny_voc.name, split="val")
    change(folder / "tiny.json", commit="0123456789" * 4)
    return folder / "tiny.json"


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}), encoding="utf-8")


def test_what_was_published_is_found_again(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, figures = verify("tiny")
    assert all(figure.distance == 0 for figure in figures)
    assert {figure.name for figure in figures} >= {"miou", "images", "confusion", "iou_per_class of cat"}
    assert main(["results", "--verify", "tiny"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and f"all {len(figures)} figures agree" in said
    assert f"{100 * result['miou']:.2f} %" in said


@pytest.mark.parametrize(
    "entries",
    [
        {"miou": 0.9},
        {"label_set_f1": None},
        {"images": 3},
        {"iou_per_class": {}},
        {"a_figure_of_tomorrow": 0.5},
        {"stop_calibration": []},
        {"confusion": [[1, 0], [0, 0]]},
        {"slot_classes_without_hits": []},
        {"best_slot_iou": {"class": "cat", "value": 0.99}},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_another_score_is_named(published: Path, entries: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    change(published, **entries)
    assert main(["results", "--verify", "tiny"]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1
    assert next(iter(entries)) in streams.err and "tiny" in streams.err


def test_a_figure_that_was_forgotten_is_missed(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(published.read_text(encoding="utf-8"))
    del result["count_accuracy"]
    published.write_text(json.dumps(result), encoding="utf-8")
    assert main(["results", "--verify", "tiny"]) == 1
    assert "count_accuracy" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["data", "split", "seed", "commit", "command"])
def test_a_score_without_its_origin_is_refused(published: Path, key: str, refuses: Refuses) -> None:
    change(published, **{key: None})
    refuses(["results", "--verify", "tiny"], "tiny.json", key)


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"command": "python book/promises.py"}, "recseg evaluate"),
        ({"command": "recseg evaluate --weights a"}, "recseg evaluate"),
        ({"command": "recseg evaluate --weights a --data b --extra"}, "--extra"),
        ({"command": "recseg evaluate --weights a --data b --limit many"}, "many"),
        ({"command": "recseg"}, "recseg evaluate"),
        ({"command": "recseg evaluate --weights a --data elsewhere"}, "other images"),
        ({"commit": "the newest"}, "the newest"),
    ],
)
def test_a_command_that_cannot_be_repeated_is_refused(
    published: Path, entries: dict[str, Any], word: str, refuses: Refuses
) -> None:
    change(published, **entries)
    refuses(["results", "--verify", "tiny"], "tiny.json", word)


def test_bad_names_and_files(published: Path, refuses: Refuses) -> None:
    refuses(["results", "--verify", "tinier"], "tinier", "tiny")
    published.with_name("broken.json").write_text("{")
    refuses(["results", "--verify", "tiny"], "broken.json")


def test_pictures_may_lie_elsewhere(published: Path, tiny_voc: Path, refuses: Refuses) -> None:
    elsewhere = tiny_voc.rename(tiny_voc.with_name("moved"))
    refuses(["results", "--verify", "tiny"], "tiny_voc")
    assert main(["results", "--verify", "tiny", "--data", str(elsewhere)]) == 0


def test_they_are_listed(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.with_name("no-score.json").write_text("[1, 2]")
    assert main(["results"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[:4] == ["tiny", "tiny_voc", "val", "mIoU"]


# --- comparisons


@pytest.fixture
def comparison(published: Path, tiny_voc: Path, tiny_recurrent: Path, tiny_dense: Path) -> Path:
    """Beside the evaluation, a comparison as `recseg compare` writes one."""
    file = published.with_name("both.json")
    groups = ["--group", "recurrent", tiny_recurrent.name, "--group", "dense", tiny_dense.name]
    assert main(["compare", *groups, "--data", tiny_voc.name, "--choose-split", "train", "--json", str(file)]) == 0
    change(file, commit="0123456789" * 4)
    return file


def test_a_comparison_is_measured_again(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published, figures = verify("both")
    assert all(figure.distance == 0 for figure in figures) and not verification.from_counts(published)
    assert "rows of dense of mean of miou" in {figure.name for figure in figures}
    assert main(["results"]) == 0
    assert "both " in capsys.readouterr().out


def test_without_the_trainings_the_counts_do(
    comparison: Path, tiny_recurrent: Path, tiny_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_recurrent.unlink()
    tiny_voc.rename(tiny_voc.with_name("gone"))
    capsys.readouterr()
    assert main(["results", "--verify", "both"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "all " in said[0] and "counts of each image" in said[1]
    result = json.loads(comparison.read_text(encoding="utf-8"))
    result["differences"][0]["miou"]["low"] += 2 * OVERALL
    change(comparison, differences=result["differences"])
    assert main(["results", "--verify", "both"]) == 1
    assert "differences 0 of miou of low" in capsys.readouterr().err


def test_a_comparison_without_its_counts_cannot_be_verified(
    comparison: Path, tiny_dense: Path, refuses: Refuses
) -> None:
    tiny_dense.unlink()
    comparison.with_name("both.counts.json.gz").unlink()
    refuses(["results", "--verify", "both"], "both.counts.json.gz")


SCORES: dict[str, Any] = {
    "miou": 0.5,
    "iou_per_class": {"cat": 0.5, "dog": None},
    "confusion": [[900, 0], [50, 50]],
    "stop_calibration": [{"probability": 0.25, "ended": 0.2, "decisions": 500},
                         {"probability": 0.95, "ended": 1.0, "decisions": 500}],
    "images": 20,
    "seconds": 3.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "bound"),
    [(("miou",), OVERALL), (("iou_per_class", "cat"), PER_CLASS)],
)
def test_distances_are_let_pass_up_to_the_bound(place: tuple[str, ...], bound: float) -> None:
    for step, passes in ((0.9, True), (1.1, False)):
        measured = copy.deepcopy(SCORES)
        target = measured
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] += step * bound
        assert all(figure.agrees for figure in compare(SCORES, measured)) is passes


def test_counts_may_move_a_little() -> None:
    for moved in (1, 2, 3):  # of a thousand pixels, and of a thousand decisions
        pixels, decisions = copy.deepcopy(SCORES), copy.deepcopy(SCORES)
        pixels["confusion"] = [[900 - moved, moved], [50, 50]]
        decisions["stop_calibration"][0].update(decisions=500 - moved, ended=100 / (500 - moved))
        decisions["stop_calibration"][1].update(decisions=500 + moved, ended=500 / (500 + moved))
        for measured in (pixels, decisions):
            assert all(figure.agrees for figure in compare(SCORES, measured)) is (moved / 1000 <= MOVED)
    fewer = {**SCORES, "confusion": [[899, 0], [50, 50]]}
    assert [figure.name for figure in compare(SCORES, fewer) if not figure.agrees] == ["confusion"]


def test_nothing_defined_is_no_number() -> None:
    measured = {**SCORES, "iou_per_class": {"cat": 0.5, "dog": 0.0}, "seconds": 99.0}
    assert [figure.name for figure in compare(SCORES, measured) if not figure.agrees] == ["iou_per_class of dog"]
    measured = {**SCORES, "iou_per_class": {"cat": 0.5, "owl": None}}
    wrong = {figure.name for figure in compare(SCORES, measured) if not figure.agrees}
    assert wrong == {"iou_per_class of dog", "iou_per_class of owl"}


# --- what is published here


@pytest.mark.parametrize("name", published_results())
def test_every_published_score_says_where_it_comes_from(name: str) -> None:
    file = published_results()[name]
    published = json.loads(file.read_text(encoding="utf-8"))
    given = repeated(file, published)
    assert "differences" in published or given.weights in {entry["name"] for entry in published_weights()}
    assert given.limit is None, "part of a list is no score on it"
    assert published["versions"]["torch"] and published["hardware"]["cpu"] and published["date"]


@pytest.mark.parametrize("entry", published_weights(), ids=lambda entry: entry["name"])
def test_weights_are_published_with_the_score_that_the_results_have(entry: dict[str, Any]) -> None:
    published = json.loads(published_results()[entry["name"]].read_text(encoding="utf-8"))
    for key in (
        "data",
        "split",
        "images",
        "miou",
        "slot_accuracy",
        "slot_iou",
        "label_set_f1",
        "seed",
        "commit",
        "command",
    ):
        assert entry[key] == published[key], key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictograms-recurrent", "pictograms-dense"])
def test_the_published_pictogram_scores_are_true(name: str) -> None:
    _, figures = verify(name, device="cpu")
    assert [figure for figure in figures if not figure.agrees] == []


def test_no_results_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: str) -> Path:
        raise recseg.RecsegError("no data/results")

    monkeypatch.setattr(verification, "resource", absent)
    assert published_results() == {}
    refusal(lambda: verify("tiny"), "tiny", "none")
