"""Exported networks say what they said before, without torch; in 8 bits nearly the same."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, Refuses, recurrent_model, refusal, uninstall
from hypothesis import given
from hypothesis import strategies as st

import recseg
from recseg.classes import VOC_CLASSES
from recseg.cli.main import main
from recseg.data.folder import SegmentationFolder
from recseg.export.network import OnnxNetwork
from recseg.export.onnx import export, folded
from recseg.export.quantise import quantise
from recseg.export.runtime import OnnxModel, cropped, pad
from recseg.inference.fusion import fuse
from recseg.inference.steps import resize
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import UNetConfig
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.models.unet import UNet
from recseg.weights.io import save_weights

pytest.importorskip("onnxruntime")


def shaken(model: Any) -> Any:
    """A network whose norms have seen something, so that folding them is no empty exercise."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert isinstance(values, torch.Tensor)
                values.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weight files of a tiny network of each kind."""
    folder = tmp_path_factory.mktemp("weights")
    recurrent = shaken(recurrent_model())
    torch.nn.init.normal_(recurrent.context.weight, std=0.3, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    models = {"recurrent": recurrent, "dense": shaken(UNet(UNetConfig(**TINY)).eval())}
    for name, model in models.items():
        save_weights(folder / f"{name}.safetensors", model, classes=VOC_CLASSES, image_size=64, metadata={})
    return {name: folder / f"{name}.safetensors" for name in models}


@pytest.fixture(scope="module")
def exported(weights: dict[str, Path]) -> dict[str, Path]:
    """Their exports."""
    for file in weights.values():
        export(recseg.load(file), file.with_suffix(".onnx"))
    return {name: file.with_suffix(".onnx") for name, file in weights.items()}


def test_an_export_tells_nothing_of_the_machine(exported: dict[str, Path]) -> None:
    for file in exported["recurrent"].parent.glob("*.onnx"):
        assert b".py" not in file.read_bytes(), file


def test_the_recurrence_says_the_same(weights: dict[str, Path], exported: dict[str, Path]) -> None:
    model, onnx = recseg.load(weights["recurrent"]), OnnxModel(exported["recurrent"])
    assert (onnx.kind, onnx.classes, onnx.image_size, onnx.max_steps) == ("recurrent", VOC_CLASSES, 64, 3)
    for shape in ((64, 64), (32, 160)):
        pixels = torch.rand(1, 3, *shape)
        with torch.inference_mode():
            output = model(pixels)
        found = onnx.sequence(pixels.numpy())
        assert len(found.masks) == 3 == len(found.stops)
        np.testing.assert_allclose(found.masks, output.masks, atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(found.classes, output.classes, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(found.stops, output.stop[0], atol=1e-4)


def test_dense_says_the_same(weights: dict[str, Path], exported: dict[str, Path]) -> None:
    model: Any = recseg.load(weights["dense"])
    pixels = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        logits = model.pixel_logits(pixels)
    np.testing.assert_allclose(OnnxModel(exported["dense"]).pixel_logits(pixels.numpy()), logits, atol=1e-4, rtol=1e-4)


def test_folding_changes_nothing(weights: dict[str, Path]) -> None:
    for file in weights.values():
        model: Any = recseg.load(file)
        pixels = torch.rand(2, 3, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(folded(model).pixel_logits(pixels), model.pixel_logits(pixels))


@pytest.mark.parametrize("size", [(33, 50), (70, 93), (150, 112), (1, 3), (64, 64)])
@pytest.mark.parametrize("name", ["recurrent", "dense"])
def test_every_size_says_the_same(
    name: str, size: tuple[int, int], weights: dict[str, Path], exported: dict[str, Path]
) -> None:
    """Sides that are no multiples of a stride, too: network and export pad them alike."""
    model: Any = recseg.load(weights[name])
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        wanted, found = (
            (model if name == "recurrent" else model.pixel_logits)(pixels),
            OnnxNetwork(exported[name])(pixels),
        )
    parts = ("masks", "classes", "stop") if name == "recurrent" else ()
    for one, other in [(getattr(found, part), getattr(wanted, part)) for part in parts] or [(found, wanted)]:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    if name == "recurrent":
        assert torch.equal(fuse(found, size=size), fuse(wanted, size=size))
    else:
        assert torch.equal(found.argmax(dim=1), wanted.argmax(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recurrent", "dense"])
def test_forty_sizes_from_33_to_700_say_the_same(
    name: str, weights: dict[str, Path], exported: dict[str, Path], record_property: Callable[[str, object], None]
) -> None:
    model: Any = recseg.load(weights[name])
    onnx, generator = OnnxNetwork(exported[name]), np.random.default_rng(20)
    pixels, differing = 0, 0
    for height, width in generator.integers(33, 701, (40, 2)).tolist():
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            if name == "recurrent":
                one, other = (fuse(network(image), size=(height, width)) for network in (model, onnx))
            else:
                one, other = model.pixel_logits(image).argmax(dim=1), onnx(image).argmax(dim=1)
        pixels, differing = pixels + one.numel(), differing + int((one != other).sum())
    record_property("pixels that an export answers otherwise, per million", round(1e6 * differing / pixels))
    assert differing <= 0.0005 * pixels


@pytest.mark.slow
def test_an_encoder_of_timm_exports(tmp_path: Path) -> None:
    """Its padding must not depend on sides that an export leaves open."""
    pytest.importorskip("timm")
    model = UNet(UNetConfig(encoder="timm:tf_efficientnet_lite0", decoder_widths=(8, 8, 8))).eval()
    model.classes, model.image_size = VOC_CLASSES, 64
    export(model, tmp_path / "lite.onnx")
    pixels = torch.rand(1, 3, 70, 93, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        torch.testing.assert_close(
            OnnxNetwork(tmp_path / "lite.onnx")(pixels), model.pixel_logits(pixels), rtol=0, atol=1e-3
        )


def test_a_step_is_the_step_of_the_network(weights: dict[str, Path], exported: dict[str, Path]) -> None:
    """The second graph, asked for every output it has, on a state that steps have led to."""
    import onnxruntime

    model: Any = recseg.load(weights["recurrent"])
    encode, step = (
        onnxruntime.InferenceSession(exported["recurrent"].with_suffix(end)) for end in (".onnx", ".step.onnx")
    )
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        features = model.encode(images)
        state, _ = model.step(features, model.initial_state(features))
        after, output = model.step(features, state)
    for found, part in zip(encode.run(None, {"images": images.numpy()}), features, strict=True):
        np.testing.assert_allclose(found, part, atol=1e-4)
    given = features._asdict() | state._asdict() | {"named": state.named.float()}
    wanted = {f"{name}_next": part.float() for name, part in after._asdict().items()} | output._asdict()
    assert [entry.name for entry in step.get_outputs()] == list(wanted)
    for found, part in zip(
        step.run(None, {name: part.numpy() for name, part in given.items()}), wanted.values(), strict=True
    ):
        np.testing.assert_allclose(found, part, atol=1e-4)


@pytest.mark.parametrize("name", ["recurrent", "dense"])
def test_predictions_agree(name: str, weights: dict[str, Path], exported: dict[str, Path]) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (128, 192, 3), dtype=np.uint8)  # a shape whose sides stay in proportion
    mine, theirs = OnnxModel(exported[name]).predict(picture), recseg.predict(picture, recseg.load(weights[name]))
    assert [step.name for step in mine.steps] == [step.name for step in theirs.steps]
    # The dense network stretches its logits in two steps, the export in one; and resizing differs in the last bit.
    assert (mine.labels == theirs.labels).mean() > 0.98
    for a, b in zip(mine.steps, theirs.steps, strict=True):
        assert a.probability == pytest.approx(b.probability, abs=0.02)
        assert (a.mask == b.mask).mean() > 0.98


@pytest.mark.parametrize("name", ["recurrent", "dense"])
def test_tiles_agree(name: str, weights: dict[str, Path], exported: dict[str, Path]) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    mine = OnnxModel(exported[name]).predict(picture, tile=True)
    theirs = recseg.predict(picture, recseg.load(weights[name]), tile=True)
    assert mine.labels.shape == (128, 192) and len(np.unique(mine.labels)) > 1
    assert (mine.labels == theirs.labels).mean() > 0.999
    assert [step.name for step in mine.steps] == [step.name for step in theirs.steps]


def test_as_a_module_it_is_scored_like_any_other(
    weights: dict[str, Path], exported: dict[str, Path], tiny_voc: Path
) -> None:
    data = SegmentationFolder(tiny_voc, "val")
    for name in ("recurrent", "dense"):
        mine = recseg.evaluate(OnnxNetwork(exported[name]), data, image_size=64, progress=False)
        theirs = recseg.evaluate(recseg.load(weights[name]), data, image_size=64, progress=False)
        assert mine["images"] == 2 and mine["pixel_accuracy"] == pytest.approx(theirs["pixel_accuracy"], abs=0.05)
    output = OnnxNetwork(exported["recurrent"])(torch.rand(2, 3, 64, 64))
    assert isinstance(output, RecurrentOutput) and output.lengths.tolist() == [3, 3]
    assert fuse(output, size=(50, 70)).shape == (2, 50, 70)


def test_eight_bits_are_nearly_the_same_and_smaller(
    weights: dict[str, Path], exported: dict[str, Path], tiny_voc: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.onnx"
    for part in ("", ".step"):
        source = exported["recurrent"].with_suffix(f"{part}.onnx")
        small.with_suffix(f"{part}.onnx").write_bytes(source.read_bytes())
    quantise(small, SegmentationFolder(tiny_voc, "train"), images=2)
    pixels = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    exact, rounded = OnnxModel(exported["recurrent"]).sequence(pixels), OnnxModel(small).sequence(pixels)
    assert not np.array_equal(exact.classes, rounded.classes)
    assert np.corrcoef(exact.masks.ravel(), rounded.masks.ravel())[0, 1] > 0.9
    assert OnnxModel(small).classes == VOC_CLASSES  # what the file says of itself stays
    for part in ("", ".step"):
        before, after = (file.with_suffix(f"{part}.onnx").read_bytes() for file in (exported["recurrent"], small))
        assert before != after, part


def test_two_products_of_eight_bits_fit_into_sixteen(exported: dict[str, Path], tiny_voc: Path, tmp_path: Path) -> None:
    """Processors without VNNI add them there, and cut off what does not fit."""
    import onnx

    small = tmp_path / "small.onnx"
    for part in ("", ".step"):
        source = exported["recurrent"].with_suffix(f"{part}.onnx")
        small.with_suffix(f"{part}.onnx").write_bytes(source.read_bytes())
    quantise(small, SegmentationFolder(tiny_voc, "train"), images=2)
    for part in ("", ".step"):
        graph = onnx.load(small.with_suffix(f"{part}.onnx")).graph
        weights = [onnx.numpy_helper.to_array(entry) for entry in graph.initializer if entry.data_type == 3]  # int8
        largest = max(int(np.abs(values.astype(int)).max()) for values in weights)
        assert largest > 32 and 2 * 255 * largest < 1 << 15


def test_maps_finer_than_the_output_stay_in_32_bits(
    weights: dict[str, Path], exported: dict[str, Path], tiny_voc: Path, tmp_path: Path
) -> None:
    import onnx

    dense: Any = recseg.load(weights["dense"])
    stride = dense.encoder.strides[len(dense.encoder.strides) - 1 - len(dense.decoder.blocks)]
    small = tmp_path / "small.onnx"
    small.write_bytes(exported["dense"].read_bytes())
    quantise(small, SegmentationFolder(tiny_voc, "train"), images=2)
    graph = onnx.load(small).graph
    source = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    exact = [node.name for node in convolutions if source.get(node.input[1]) != "DequantizeLinear"]
    stages = [stage for stage, of in zip(dense.encoder.stages, dense.encoder.strides, strict=True) if of < stride]
    assert len(exact) == sum(isinstance(module, torch.nn.Conv2d) for stage in stages for module in stage.modules())
    assert 0 < len(exact) < len(convolutions)
    assert exact == [node.name for node in convolutions][: len(exact)]  # the first ones


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from([1, 2, 4]), st.sampled_from([16, 32]))
def test_padding_is_cropped_away_again(height: int, width: int, stride: int, coarsest: int) -> None:
    pixels = np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)
    padded = pad(pixels, coarsest)
    assert padded.shape[-2] % coarsest == padded.shape[-1] % coarsest == 0
    kept = cropped(padded[0, 0, ::stride, ::stride][None], pixels, padded)
    np.testing.assert_array_equal(kept[0], pixels[0, 0, ::stride, ::stride])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
def test_stretching_is_torchs_bilinear(height: int, width: int, rows: int, columns: int) -> None:
    plane = np.random.default_rng(height * 13 + width).normal(size=(height, width)).astype(np.float32)
    wanted = F.interpolate(torch.from_numpy(plane)[None, None], (rows, columns), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize(plane, (rows, columns)), wanted[0, 0], atol=1e-5)


def test_what_has_no_graphs_is_refused(tmp_path: Path) -> None:
    model: Any = PublishedNetwork(PublishedConfig(input_size=32, widths=(4, 4)))
    model.classes, model.image_size = VOC_CLASSES, 32
    refusal(lambda: export(model, tmp_path / "a.onnx"), "published", "dense or a recurrent")
    refusal(lambda: export(None, tmp_path / "a.bin"), "a.bin", ".onnx")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_bad_files_are_named(exported: dict[str, Path], tmp_path: Path) -> None:
    refusal(lambda: OnnxModel(tmp_path / "no.onnx"), "no.onnx", "no such file")
    (tmp_path / "text.onnx").write_text("no graph")
    refusal(lambda: OnnxModel(tmp_path / "text.onnx"), "text.onnx")
    lonely = tmp_path / "lonely.onnx"
    lonely.write_bytes(exported["recurrent"].read_bytes())
    refusal(lambda: OnnxModel(lonely), "lonely.step.onnx", "beside lonely.onnx", "recseg export")
    foreign = tmp_path / "foreign.onnx"
    import onnx

    refusal(lambda: OnnxModel(exported["recurrent"].with_suffix(".step.onnx")), "time step of recurrent.onnx")
    newer = onnx.load(exported["dense"])
    newer.ir_version = 99
    onnx.save(newer, tmp_path / "newer.onnx")
    refusal(lambda: OnnxModel(tmp_path / "newer.onnx"), "newer.onnx", "newer ONNX Runtime", "pip install")

    proto = onnx.load(exported["dense"])
    del proto.metadata_props[:]
    onnx.save(proto, foreign)
    refusal(lambda: OnnxModel(foreign), "foreign.onnx", "recseg export")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall("onnxruntime", monkeypatch)
    refusal(lambda: OnnxModel(tmp_path / "a.onnx"), "recseg[onnx]")
    uninstall("onnx", monkeypatch)
    refusal(lambda: export(recurrent_model(), tmp_path / "a.onnx"), "recseg[onnx]")


def test_predict_needs_no_torch(exported: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["predict", str(photo), "--onnx", str(exported["recurrent"]), "--out", str(out), "--gif"]
    program = (
        f"import sys; sys.modules['torch'] = None; from recseg.cli.main import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"photo-overlay.png", "photo-labels.png", "photo.gif"}


def test_commands(
    weights: dict[str, Path], tiny_voc: Path, tmp_path: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    refuses(["export", "--weights", weights["dense"], "--onnx", tmp_path / "a.onnx", "--int8"], "--calibrate")
    refuses(["export", "--weights", weights["dense"], "--onnx", tmp_path / "a.bin"], "a.bin")
    refuses(
        ["predict", tiny_voc / "JPEGImages/tiny_0.jpg", "--onnx", tmp_path / "no.onnx", "--out", tmp_path], "no.onnx"
    )
    photo, export_of = tiny_voc / "JPEGImages/tiny_0.jpg", tmp_path / "recurrent.onnx"
    export(recseg.load(weights["recurrent"]), export_of)
    for option in ("--onnx", "--weights"):  # predict takes it by either name, as evaluate does
        out = tmp_path / option
        assert main(["predict", str(photo), option, str(export_of), "--out", str(out)]) == 0
    labels = [(tmp_path / option / "tiny_0-labels.png").read_bytes() for option in ("--onnx", "--weights")]
    assert labels[0] == labels[1]
    refuses(["export", "--weights", export_of, "--onnx", tmp_path / "b.onnx"], "recurrent.onnx", "recseg predict")
    capsys.readouterr()
    out = tmp_path / "dense.onnx"
    command = ["export", "--weights", str(weights["dense"]), "--onnx", str(out), "--int8", "--calibrate", str(tiny_voc)]
    assert main(command) == 0 and str(out) in capsys.readouterr().out
    scores = tmp_path / "scores.json"
    assert main(["evaluate", "--weights", str(out), "--data", str(tiny_voc), "--json", str(scores)]) == 0
    assert json.loads(scores.read_text())["images"] == 2
