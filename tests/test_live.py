"""The live page: in a browser, the network says what it says in PyTorch, and no request leaves the page's server."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from browser import browse
from numpy.typing import NDArray
from PIL import Image

import recseg
from recseg.classes import VOC_CLASSES, VOID
from recseg.errors import RecsegError
from recseg.export.runtime import PARTS, OnnxModel, part_path
from recseg.inference.steps import Sequence, to_prediction
from recseg.models.config import RecurrentUNetConfig
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import crop_padding, pad_to_stride
from recseg.weights.io import save_weights

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

BOOK = Path(__file__).resolve().parent.parent / "book"
# A graphics card computed by the processor: slow, and exact enough to be compared with.
SOFTWARE_CARD = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
HARNESS = Path(__file__).with_name("live_harness.mjs")


@pytest.fixture(scope="module")
def live() -> Iterator[ModuleType]:
    """book/live.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BOOK))
        yield importlib.import_module("live")


def network(folder: Path, *, bold: bool = False) -> Any:
    """A tiny network that stops before its third step.

    A bold one has mask logits 6,000 times as large, where sigmoids are zero in 32 bits, and roundings grow as much.
    """
    torch.manual_seed(3)
    # ONNX Runtime's WebGPU is wrong about six channels (microsoft/onnxruntime#29651): all have four or eight.
    widths: dict[str, Any] = {"encoder_widths": (4, 8, 8, 8), "decoder_widths": (8, 8), "hidden": 8, "reduced": 8}
    made = RecurrentUNet(RecurrentUNetConfig(**widths, max_steps=4)).eval()
    with torch.inference_mode():
        # As after a training: attention, coverage and context matter.
        made.query.weight *= 1000
        made.coverage.weight *= 30
        torch.nn.init.normal_(made.context.weight)
        if bold:
            made.classifier.weight *= 6000
        made.stop.weight *= 20
        made.stop.bias.fill_(-100)  # all steps, to see
        _, second, third, _ = made(torch.from_numpy(image())).stop[0].tolist()
        made.stop.bias.sub_((second + third) / 2)
        if third < second:
            made.stop.weight *= -1
            made.stop.bias.mul_(-1)
    path = folder / "tiny.safetensors"
    save_weights(path, made, classes=VOC_CLASSES, image_size=64, metadata={})
    return recseg.load(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {name: network(tmp_path_factory.mktemp(name), bold=name == "bold") for name in ("bold", "mild")}


def image() -> NDArray[np.float32]:
    """Pixels (1, 3, 62, 78), whose sides are no multiples of the network's stride."""
    return np.random.default_rng(3).random((1, 3, 62, 78), dtype=np.float32)


class Said(NamedTuple):
    """What a network says of the image: masks (N, h, w), classes (N, C), attention (N, h, w), N + 1 stop logits."""

    masks: NDArray[np.float32]
    classes: NDArray[np.float32]
    attention: NDArray[np.float32]
    stops: NDArray[np.float32]


def in_torch(model: Any) -> Said:
    """The network itself, step by step."""
    with torch.inference_mode():
        output = model(torch.from_numpy(image()))
        steps = int(output.lengths)
        features = model.encode(pad_to_stride(torch.from_numpy(image()), model.encoder.strides[-1]))
        state, maps = model.initial_state(features), []
        for _ in range(steps):
            state, step = model.step(features, state)
            maps.append(step.attention)
    attention = crop_padding(torch.cat(maps), output.size, model.decoder.stride)
    stops = output.stop[0, : steps + 1]
    return Said(output.masks.numpy(), output.classes.numpy(), attention.numpy(), stops.numpy())


@pytest.fixture(scope="module")
def built(live: ModuleType, models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder with those networks, their weights in 32 bits; the plain exports beside them."""
    folder = tmp_path_factory.mktemp("site") / "live"
    shutil.copytree(BOOK / "_live" / "site" / "live", folder, ignore=shutil.ignore_patterns("files"))
    missing = live.build(
        folder / "files",
        lambda files: [
            live.write_network(model, name, name, files, live.drawn()[:1], exact=True) for name, model in models.items()
        ],
    )
    (folder / "files" / "missing.txt").write_text("\n".join(missing))
    return folder


@pytest.mark.parametrize(("rows", "steps"), [(8, 32767), (128, 127)])
def test_a_weight_is_off_by_half_a_step_of_its_row(live: ModuleType, rows: int, steps: int) -> None:
    """Small tensors are stored in 16 bits, large ones in 8."""
    weights = np.random.default_rng(0).normal(size=(rows, 128)).astype(np.float32)
    weights *= 10.0 ** -(np.arange(rows, dtype=np.float32)[:, None] % 8)  # each row has its own scale
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["w", "x"], ["y"])], "one",
        [helper.make_tensor_value_info("x", kind, [128, 128])], [helper.make_tensor_value_info("y", kind, [rows, 128])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    size = proto.ByteSize()
    small = importlib.import_module("live_graphs").rounded(proto)
    assert small.ByteSize() < size * (0.6 if rows == 8 else 0.3)
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(128, dtype=np.float32)})  # (rows, 128): the weights themselves
    step = np.abs(weights).max(axis=1, keepdims=True) / steps
    assert (np.abs(found - weights) <= 0.5001 * step).all() and (found != weights).mean() > 0.9


def check_rounded_weights(rounded: Callable[[Any], Any], model: Any, built: Path, tmp_path: Path) -> None:
    """With weights in 16 bits a network gives nearly the same answer."""
    exact = built / "files" / "export" / "bold.onnx"
    for part in PARTS:
        proto = onnx.load(part_path(exact, part))
        before = proto.ByteSize()
        part_path(tmp_path / "bold.onnx", part).write_bytes(rounded(proto).SerializeToString())
        assert part != "encode" or proto.ByteSize() < before
    masks, classes, _, stops = in_torch(model)
    assert np.abs(masks).max() > 30  # where sigmoids are zero in 32 bits
    for path, tolerance in ((exact, 1e-4), (tmp_path / "bold.onnx", 5e-2)):
        found = OnnxModel(path).sequence(image())
        assert len(found.masks) == 2 == len(masks)
        np.testing.assert_allclose(found.masks, masks, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(found.classes, classes, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(found.stops, stops, atol=tolerance, rtol=tolerance)


def test_a_book_without_npm_says_what_is_missing(
    live: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HERE", tmp_path)
    (tmp_path / "package.json").write_text((BOOK / "_live" / "package.json").read_text())
    monkeypatch.setenv("PATH", str(tmp_path))
    [missing] = live.build(tmp_path / "files", lambda files: [])
    assert "npm" in missing
    assert json.loads((tmp_path / "files" / "manifest.json").read_text())["missing"] == [missing]


def test_a_network_that_cannot_be_exported_leaves_the_page_to_the_other(
    live: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {"voc-recurrent"}

    def published(name: str, title: str, folder: Path) -> dict[str, str]:
        if name in refused:
            raise RecsegError("of the first edition")
        return {"name": name, "title": title}

    monkeypatch.setattr(live, "published", published)
    monkeypatch.setattr(live, "published_weights", lambda: [{"name": name} for name in [*live.NETWORKS, "another"]])
    assert [about["name"] for about in live.published_networks(tmp_path)] == ["pictograms-recurrent"]
    assert "without voc-recurrent: of the first edition" in capsys.readouterr().err
    refused.clear()
    assert [about["name"] for about in live.published_networks(tmp_path)] == list(live.NETWORKS)
    refused.update(live.NETWORKS)
    with pytest.raises(RecsegError, match="voc-recurrent: of the first edition; pictograms-recurrent: of the first"):
        live.published_networks(tmp_path)


def test_the_gallery_has_photographs_or_else_drawings_with_ground_truth(
    live: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings = live.drawn()
    assert [len(picture.classes) for picture in drawings] == [3, 2, 1, 2, 4]
    for picture in drawings:
        present = {VOC_CLASSES[label] for label in np.unique(picture.labels) if label not in (0, VOID)}
        assert present == set(picture.classes)
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert live.photographed() == []


def test_colours_are_bright_and_differ(live: ModuleType) -> None:
    colours = np.array(live.colours())
    assert colours.shape == (256, 3)
    assert (colours[1:VOID] @ live.LUMINANCE).min() > 255 * live.BRIGHT * 0.98
    voc = colours[1 : len(VOC_CLASSES)].astype(int)
    assert min(np.abs(one - other).sum() for at, one in enumerate(voc) for other in voc[:at]) >= 30


def test_the_lock_file_names_no_address() -> None:
    assert '"resolved"' not in (BOOK / "_live" / "package-lock.json").read_text()


# One test, not several: with several processes, each would export and fetch for itself.
def test_the_browser_says_the_same(live: ModuleType, models: dict[str, Any], built: Path, tmp_path: Path) -> None:
    check_rounded_weights(importlib.import_module("live_graphs").rounded, models["bold"], built, tmp_path)
    if missing := (built / "files" / "missing.txt").read_text():
        pytest.skip(missing)
    page = (BOOK / "live.md").read_text(encoding="utf-8")
    markup = page.split("```{raw} html\n")[1].split("```")[0].replace("live/app.mjs", "harness.mjs")
    root = built.parent
    (root / "index.html").write_text(f"<!doctype html><meta charset=utf-8><title>Live</title>{markup}")
    shutil.copyfile(HARNESS, root / "harness.mjs")
    pixels = image()
    values = {"data": pixels.flatten().tolist(), "height": pixels.shape[-2], "width": pixels.shape[-1]}
    (root / "input.json").write_text(json.dumps(values))
    odd = np.random.default_rng(0).integers(0, 256, (97, 141, 3), dtype=np.uint8)
    Image.fromarray(odd).save(root / "odd.png")
    report = browse(root, tmp_path, flags=SOFTWARE_CARD)
    assert "error" not in report, report["error"]

    # Same pixels, same steps, whatever computes them.
    for found in report["found"]:
        model = models[found["network"]]
        masks, classes, attention, stops = in_torch(model)
        assert found["itself"] and not found["agrees"]  # what the page asks before it lets a card compute
        *steps, ended = found["steps"]
        assert len(steps) == len(masks) == 2, found["kind"]
        np.testing.assert_allclose([step["stop"] for step in [*steps, ended]], stops, atol=1e-4)
        for step, mask, scores, seen in zip(steps, masks, classes, attention, strict=True):
            np.testing.assert_allclose(np.reshape(step["mask"], mask.shape), mask, atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(step["scores"], scores, atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(np.reshape(step["attention"], seen.shape), seen, atol=1e-4)
            np.testing.assert_allclose(step["h"], np.array(step["gate"]) * np.tanh(step["c"]), atol=1e-4)
        # One label map.
        fused = to_prediction(Sequence(masks, classes, stops.tolist()), image().shape[-2:], model.legend).labels
        assert (np.reshape(found["labels"], fused.shape) == fused).mean() > 0.999
    # Recorded at the build in 8 bits, computed by the worker: the same.
    for before, after in zip(report["recorded"], report["live"], strict=True):
        np.testing.assert_allclose(before["stop"], after["stop"], atol=1e-3)
        np.testing.assert_allclose(before["scores"], after["scores"], atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(before["mask"], np.clip(after["mask"], -12, 12), atol=0.05)
        if before["mask"]:
            np.testing.assert_allclose(before["attention"], after["attention"], atol=0.005)
    assert len(set(report["notable"])) == 4  # channels of the state
    assert report["correlation"] == pytest.approx(1)
    assert report["kinds"] == ["wasm"]  # a card that is the processor in truth is not offered to a reader
    # Images are made smaller as Pillow does it, but for a grey level where a rounding is close.
    resized = np.asarray(Image.fromarray(odd).resize((47, 32), Image.Resampling.BILINEAR)) / 255  # (32, 47, 3)
    shrunk = np.reshape(report["resized"], (3, 32, 47)).transpose(1, 2, 0)
    assert np.abs(shrunk - resized).max() < 1.01 / 255 and (np.abs(shrunk - resized) < 1e-6).mean() > 0.99
    # A reader sees the steps of the gallery's first image in words: those of the build, and then the network's own.
    shown = OnnxModel(built / "files" / "export" / "bold.onnx").predict(built / "files" / "drawn_1.png")
    texts = [f"Step {number}: {step.name}" for number, step in enumerate(shown.steps, 1)]
    for rows in (report["recordedList"], report["list"]):
        assert [row.startswith(f"{text} ") for row, text in zip(rows, texts, strict=False)] == [True] * len(texts)
    assert report["title"] == texts[-1]  # one step back from all of them together
    # Nothing is asked of anyone else, and the runtime and the model not before a reader uses the demo.
    assert report["violations"] == []
    assert all(name.startswith("http://127.0.0.1:") for name in report["after"])
    assert not [name for name in report["before"] if ".onnx" in name or "wasm" in name]
    assert [name for name in report["after"] if name.endswith(".wasm.gz")]
    if not report["card"]:
        pytest.skip("this browser has no WebGPU, not even in software: the steps were compared on the processor alone")
    assert len(report["found"]) == 4  # each network by the processor and by the card
