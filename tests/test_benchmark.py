"""The benchmark's arithmetic, and that what it times is what it says; how fast anything is, is no test's business."""

import json
import statistics
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Refuses, recurrent_model, refusal
from hypothesis import given
from hypothesis import strategies as st

from recseg.benchmark import PARTS, anatomy, deployed
from recseg.benchmark.anatomy import parts_of
from recseg.benchmark.memory import peak_bytes
from recseg.benchmark.networks import (
    VOC_MIX,
    build,
    contestants,
    forward,
    output_bytes,
    random_images,
    random_labels,
    voc_lengths,
)
from recseg.benchmark.parts import Bar, Setting, bar_of, update
from recseg.benchmark.run import bar_table, benchmark
from recseg.benchmark.timing import interleave, ratio, weighted
from recseg.classes import VOC_CLASSES
from recseg.cli.main import main
from recseg.data.folder import SegmentationFolder
from recseg.data.pack import write_pack
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.resources import resource
from recseg.training.validation import spread
from recseg.viz.figures import LINES
from recseg.viz.plotting import new_figure, show


def test_every_round_gives_each_contestant_its_turn() -> None:
    calls: list[str] = []
    times = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, least=0)  # type: ignore[misc]
    assert calls == ["a", "b", *(["a", "a", "b", "b"] * 3)]  # once to warm up; then one call unseen, one timed
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match="rounds 0"):
        interleave({}, rounds=0)


def test_a_quick_act_is_called_until_it_can_be_timed() -> None:
    calls: list[None] = []
    (seconds,) = interleave({"act": lambda: calls.append(None)}, rounds=1, least=0.01)["act"]
    assert seconds * (len(calls) - 2) >= 0.01


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=9))
def test_ratio_is_the_median_of_the_rounds_and_their_range(pairs: list[tuple[float, float]]) -> None:
    over, under = zip(*pairs, strict=True)
    found = ratio(over, under)
    assert found.median == statistics.median(a / b for a, b in pairs)
    assert [found.low, found.high] == [f(a / b for a, b in pairs) for f in (min, max)]


@given(st.integers(1, 500))
def test_a_mixed_batch_is_mixed_as_voc_is(batch: int) -> None:
    lengths = voc_lengths(batch)
    assert len(lengths) == batch and lengths == sorted(lengths)
    for count, pictures in enumerate(VOC_MIX, 1):
        assert abs(lengths.count(count) - batch * pictures / sum(VOC_MIX)) < 1


def test_weighted_mean() -> None:
    assert weighted([[1.0, 2.0], [5.0, 6.0]], [3, 1]) == [2.0, 3.0]


def test_a_bar_holds_misses_or_was_not_measured() -> None:
    assert Bar("a", 1.1, 1.15, "").holds and not Bar("a", 1.2, 1.15, "").holds
    assert Bar("a", 31, 30, "", at_most=False).holds and not Bar("a", 29, 30, "", at_most=False).holds
    assert Bar("a", None, 1, "").holds is None
    bars = [bar_of("first", ratio([1.0, 1.2], [1.0, 1.0]), 1.15, "costs"), Bar("second", None, 8, "sizes", False)]
    lines = bar_table([bar.to_dict() for bar in bars]).splitlines()
    assert lines[0].split() == ["first", "1.1", "(1", "–", "1.2)", "≤", "1.15", "holds"]
    assert lines[2].split() == ["second", "–", "≥", "8", "not", "measured"]
    assert [lines[1].strip(), lines[3].strip()] == ["costs", "sizes"]


@pytest.mark.parametrize("name", contestants(32))
def test_contestants_give_full_size_maps(name: str) -> None:
    images, lengths = random_images(2, 32), [1, 2]
    result = forward(name, build(name, encoder="plain", side=32), images, lengths)()
    if name == "encoder":
        assert len(result) == 5
    elif name == "dense":
        assert result.shape == (2, 21, 32, 32) and output_bytes(result) == 4 * result.numel()
    else:
        masks, classes, stop = result
        assert masks.shape == (3, 32, 32) and classes.shape == (3, 20) and stop.shape == (2, 3)


@pytest.mark.parametrize("name", ["dense", "recurrent"])
def test_an_update_changes_the_weights(name: str) -> None:
    model = build(name, encoder="plain", side=32)
    before = [weight.clone() for weight in model.parameters()]
    loss = update(name, model, random_images(2, 32), random_labels([1, 2], 32, 21))()
    assert isinstance(loss, torch.Tensor) and loss.isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_labels_have_as_many_classes_as_they_should() -> None:
    labels = random_labels([1, 5], 32, 21)
    assert [len(labels[image].unique()) - 1 for image in (0, 1)] == [1, 5]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not report it")
def test_peak_memory_holds_the_output() -> None:
    found = peak_bytes("dense", batch=4, side=128, num_classes=200, encoder="plain", threads=1)
    assert found is not None and found >= 4 * 200 * 128 * 128 * 4


def test_one_part_and_its_bars() -> None:
    found = benchmark(["inference"], device="cpu", side=32, rounds=1, encoder="plain", progress=False)
    sizes = found["inference"]["output_bytes_batch_16"]
    assert sizes["dense"] == 16 * 21 * 32 * 32 * 4
    assert sizes["recurrent"] < sizes["dense"] / 8
    assert found["setting"]["side"] == 32 and all(bar["value"] > 0 for bar in found["bars"])
    assert all(bar["tells"] for bar in found["bars"])


def test_loader_without_voc_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSEG_VOC_ROOT", str(tmp_path / "nowhere"))
    found = benchmark(["loader"], device="cpu", progress=False)
    assert "nowhere" in found["loader"]["not_measured"]
    assert [bar["holds"] for bar in found["bars"]] == [None, None]


def test_loader_measures_voc_and_its_pack(monkeypatch: pytest.MonkeyPatch, tiny_voc: Path) -> None:
    monkeypatch.setenv("RECSEG_VOC_ROOT", str(tiny_voc))
    found = benchmark(["loader"], device="cpu", progress=False)["loader"]
    assert found["jpeg_crops_a_second"] > 0 and set(found["pack_milliseconds"]) == set(found["jpeg_milliseconds"])


def test_some_images_of_a_split(tiny_voc: Path, tmp_path: Path) -> None:
    source = SegmentationFolder(tiny_voc, "train")
    assert spread(source, 1).ids == source.ids[:1] and len(source) == 2
    write_pack(spread(source, 1), tmp_path / "one.pack", 16, progress=False)


def test_the_parts_are_those_of_the_whole() -> None:
    setting = Setting(torch.device("cpu"), side=64, rounds=1, encoder="plain")
    dense, model = setting.make("dense"), setting.make("recurrent")
    assert isinstance(dense, UNet) and isinstance(model, RecurrentUNet)
    images = random_images(2, 64)
    with torch.inference_mode():
        acts = parts_of(dense, model, images)
        masks = model(images, torch.tensor([1, 1])).masks.unsqueeze(1)
        whole = F.interpolate(masks, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(acts["mask to full size"](), whole, rtol=1e-4, atol=1e-5)
    found, bars = anatomy.anatomy(setting)
    assert bars == [] and all(set(found[f"batch_{batch}"]) == set(acts) for batch in (1, 16))


@pytest.mark.parametrize("fresh", [False, True])
def test_the_book_shows_what_is_measured(fresh: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The cells that show costs run on the stored result and on one of today's form."""
    stored = json.loads(resource("results", "benchmark-cpu.json").read_text(encoding="utf-8"))
    if fresh:
        parts = ["inference", "anatomy", "classes"]
        stored |= benchmark(parts, device="cpu", side=32, rounds=1, encoder="plain", progress=False)
    chapter = Path(__file__).parent.parent / "book" / "14_output_space_and_scale.ipynb"
    names: dict[str, Any] = {"stored": stored, "Markdown": str, "LINES": LINES, "new_figure": new_figure, "show": show}
    rows = {}
    for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        for part in ("classes", "anatomy", "bars", "deployed"):
            if f'stored["{part}"]' in source:
                exec(source, names)
                rows[part] = len(names.get("table", ())) - 2
    assert rows["classes"] >= 3 and rows["deployed"] >= 2
    assert rows["bars"] == sum("recurrent ÷ dense" in row["what"] for row in stored["bars"]) > 2
    assert "one more class in the image" in capsys.readouterr().out


@pytest.mark.parametrize("with_reference", [False, True])
def test_deployed(with_reference: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    model = recurrent_model()
    model.classes, model.image_size, model.metadata = VOC_CLASSES, 32, {}
    monkeypatch.setenv("RECSEG_VOC_ROOT", str(tmp_path / "nowhere"))
    monkeypatch.setattr(deployed, "load", lambda name: model)
    monkeypatch.setattr(deployed, "reference", lambda file, threads: lambda picture: asked.append(picture.size))
    for name, value in (("SIDE", 48), ("TIMED", 2), ("SCORED", 3)):
        monkeypatch.setattr(deployed, name, value)
    asked: list[tuple[int, int]] = []
    setting = Setting(torch.device("cpu"), rounds=1, reference=Path("peer.tflite") if with_reference else None)
    found, (speed, lost) = deployed.deployed(setting)
    assert found["data"] == "pictograms" and found["images_timed"] == 2 and found["images_scored"] == 3
    assert set(asked) == ({(48, 48)} if with_reference else set())
    assert (speed.value is None) != with_reference and set(found["miou"]) == {"float32", "int8"}
    assert lost.value == pytest.approx(100 * (found["miou"]["float32"] - found["miou"]["int8"]), abs=1e-3)


def test_a_reference_model_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "peer.tflite"
    file.write_bytes(b"no network")
    broken = ModuleType("ai_edge_litert.interpreter")

    def refuse(path: str, num_threads: int) -> None:
        raise ValueError("Model provided has model identifier 'no n'")

    broken.Interpreter = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", broken)
    refusal(lambda: deployed.reference(file, 1), file, "TensorFlow Lite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    refusal(lambda: deployed.reference(file, 1), "pip install ai-edge-litert")


def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSEG_VOC_ROOT", str(tmp_path / "nowhere"))
    out = tmp_path / "bench.json"
    command = ["benchmark", "--only", "loader", "--device", "cpu", "--json", str(out)]
    assert main(command) == 0
    result = json.loads(out.read_text())
    assert result["command"].startswith("recseg benchmark --only loader") and len(result["bars"]) == 2
    assert "crops a second" in capsys.readouterr().out
    out.unlink()
    refuses(["benchmark", "--only", "speed"], "--only", *PARTS)
    refuses(["benchmark", "--device", "abacus"], "abacus")
    refuses(["benchmark", "--json", tmp_path], str(tmp_path))
    refuses(["benchmark", "--reference", tmp_path / "none.tflite"], "none.tflite")
