"""The same answer everywhere: alone or in a batch, packed or not, on one thread or two, compiled, exported.

Each way of asking is held against the plainest one: PyTorch, one thread, one image at a time. Floating-point sums
depend on the order in which they are added, so logits may differ by `TOLERANCE`, relative to their own size; which
steps run may not differ at all, nor may more than one pixel in a thousand get another label.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, recurrent_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import recseg
from recseg.classes import VOC_CLASSES
from recseg.data.transforms import eval_transform
from recseg.evaluation.answers import argmax
from recseg.inference.fusion import fuse
from recseg.models.config import UNetConfig
from recseg.models.recurrent_unet import RecurrentOutput, RecurrentUNet, lengths_from_stop
from recseg.models.unet import UNet

PICTURES = 16
TOLERANCE = {
    "a batch of sixteen": 1e-5,
    "another order": 1e-5,
    "every step of every image, then a choice": 1e-5,
    "two threads": 1e-5,
    "compiled": 1e-5,
    "ONNX": 1e-5,
}
ANOTHER_PYTHON = 1e-5
OTHER_LABELS = 1e-3  # of all pixels


class Said(NamedTuple):
    """What a network says of one image: a recurrent one of N steps, a dense one with N = 0 (and logits as masks)."""

    masks: Tensor
    classes: Tensor
    stops: Tensor
    labels: Tensor


def said(output: RecurrentOutput | Tensor, size: tuple[int, int]) -> list[Said]:
    """The output of a batch, image by image. Stops: the decisions that were taken."""
    if isinstance(output, Tensor):
        none = torch.zeros(0)
        if output.shape[-2:] != size:  # an export leaves to its caller what the network itself does last
            output = F.interpolate(output, size=size, mode="bilinear", align_corners=False)
        return [Said(logits, none, none, argmax(logits[None], size)[0]) for logits in output]
    labels, answers, first = fuse(output, size), [], 0
    for image, count in enumerate(output.lengths.tolist()):
        pairs = slice(first, first + count)
        first += count
        answers.append(Said(output.masks[pairs], output.classes[pairs], output.stop[image][: count + 1], labels[image]))
    return answers


def tiny() -> RecurrentUNet:
    """A tiny network whose sequences end after different numbers of steps, each decision a clear one."""
    model = recurrent_model()
    with torch.no_grad():
        for parameter in model.parameters():  # some parts begin at zero, and would hide what they add
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        stops = model(blobs(), lengths=torch.full((PICTURES,), model.max_steps)).stop  # (B, T)
        values = stops.flatten().sort().values
        gaps, middles = values.diff(), (values[1:] + values[:-1]) / 2
        best = max(range(len(gaps)), key=lambda k: (lengths_from_stop(stops - middles[k]).unique().numel(), gaps[k]))
        spread = stops.std()
        model.stop.weight.div_(spread)
        model.stop.bias.sub_(middles[best]).div_(spread)
    return model


def blobs() -> Tensor:
    """(B, 3, 32, 48) in whole 255ths: images that differ in colour, contrast and detail."""
    generator = torch.Generator().manual_seed(0)
    base, scale = (torch.rand(PICTURES, 3, 1, 1, generator=generator) for _ in range(2))
    pixels = base + scale * (torch.rand(PICTURES, 3, 32, 48, generator=generator) - 0.5)
    return (pixels.clamp(0, 1) * 255).round() / 255


def dense() -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig(**TINY)).eval()


NETWORKS: dict[str, Callable[[], Any]] = {
    "recurrent": tiny,
    "dense": dense,
    "pictograms-recurrent": lambda: recseg.load("pictograms-recurrent"),
    "pictograms-dense": lambda: recseg.load("pictograms-dense"),
}
PUBLISHED = ("pictograms-recurrent", "pictograms-dense")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def network_and_pictures(name: str) -> tuple[Any, Tensor]:
    if name not in PUBLISHED:
        model = NETWORKS[name]()
        model.classes, model.image_size, model.metadata = VOC_CLASSES, 32, {}
        return model, blobs()
    model, data = NETWORKS[name](), recseg.data.open_dataset("pictograms", "val")
    images = [eval_transform(80)(data[index]).image[:, :80, :80] for index in range(PICTURES)]
    return model, torch.stack(images).float() / 255


@cache
def plainly(name: str) -> list[Said]:
    """The answers of the plainest way: one image at a time. Called with one thread."""
    model, images = network_and_pictures(name)
    with torch.inference_mode():
        return [said(model(image[None]), (images.shape[-2], images.shape[-1]))[0] for image in images]


@torch.inference_mode()
def ask(way: str, model: Any, images: Tensor, folder: Path) -> list[Said]:
    size = (images.shape[-2], images.shape[-1])
    if way == "another order":
        order = torch.randperm(PICTURES, generator=torch.Generator().manual_seed(2))
        answers = said(model(images[order]), size)
        return [answers[place] for place in order.argsort().tolist()]
    if way == "every step of every image, then a choice":
        return chosen(model, images, size)
    if way == "two threads":
        torch.set_num_threads(2)
    elif way == "compiled":
        torch.compiler.reset()
        model = torch.compile(model)
    elif way == "ONNX":
        from recseg.export.network import OnnxNetwork
        from recseg.export.onnx import export

        with torch.inference_mode(False):
            export(model, folder / "network.onnx")
        model = OnnxNetwork(folder / "network.onnx")
    return said(model(images), size)


def chosen(model: nn.Module, images: Tensor, size: tuple[int, int]) -> list[Said]:
    """Let all images have all steps, and only then drop what their stops would have spared."""
    if isinstance(model, UNet):
        pytest.skip("a dense network has no steps to pack")
    assert isinstance(model, RecurrentUNet)
    most = model.max_steps
    output = model(images, lengths=torch.full((PICTURES,), most))
    lengths = lengths_from_stop(output.stop)  # (B,)
    live = output.step < lengths[output.sample]
    packed = output._replace(
        masks=output.masks[live], classes=output.classes[live], sample=output.sample[live], step=output.step[live],
        lengths=lengths,
    )  # fmt: skip
    return said(packed, size)


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value wanted (or to one)."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1)) if wanted.numel() else 0.0


def cases() -> Iterator[Any]:
    for name in NETWORKS:
        for way in TOLERANCE:
            slow = way == "compiled" or (way == "ONNX" and name in PUBLISHED)
            yield pytest.param(name, way, marks=[pytest.mark.slow] if slow else [], id=f"{name}, {way}")


@pytest.mark.parametrize(("name", "way"), list(cases()))
def test_the_answer_is_the_same(name: str, way: str, tmp_path: Path) -> None:
    if way == "compiled" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    if way == "ONNX":
        pytest.importorskip("onnxruntime")
    model, images = network_and_pictures(name)
    plain = plainly(name)
    lengths = [len(answer.classes) for answer in plain]
    if "dense" not in name:  # or the comparison would say little about packing
        assert len(set(lengths)) > 1
    found = ask(way, model, images, tmp_path)
    assert [len(answer.classes) for answer in found] == lengths
    worst = max(
        distance(getattr(one, part), getattr(other, part))
        for one, other in zip(found, plain, strict=True)
        for part in ("masks", "classes", "stops")
    )
    elsewhere = np.mean(
        [float((one.labels != other.labels).float().mean()) for one, other in zip(found, plain, strict=True)]
    )
    print(f"{name}, {way}: logits {worst:.1e}, labels {elsewhere:.1e}, lengths {sorted(set(lengths))}")  # pytest -rP
    assert worst <= TOLERANCE[way]
    assert elsewhere <= OTHER_LABELS


OTHER = """
import sys
import recseg, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
with torch.inference_mode():
    output = recseg.load(sys.argv[1])(load_file(sys.argv[2])["images"])
parts = output._asdict() if hasattr(output, "_asdict") else {"logits": output}
tensors = {name: part.contiguous() for name, part in parts.items() if isinstance(part, torch.Tensor)}
save_file(tensors, sys.argv[3], {"python": sys.version.split()[0]})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_another_python_says_the_same(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """`RECSEG_OTHER_PYTHON` names the interpreter of an environment with recseg on another version of Python."""
    if not (other := os.environ.get("RECSEG_OTHER_PYTHON")):
        pytest.skip("RECSEG_OTHER_PYTHON names no other Python")
    model, images = network_and_pictures(name)
    save_file({"images": images}, tmp_path / "images.safetensors")
    out = tmp_path / "answer.safetensors"
    asked = [other, "-c", OTHER, name, str(tmp_path / "images.safetensors"), str(out)]
    subprocess.run(asked, check=True, cwd=tmp_path)
    with torch.inference_mode():
        mine = model(images)
    parts = {"logits": mine} if isinstance(mine, Tensor) else mine._asdict()
    theirs = load_file(out)
    assert theirs and set(theirs) == {part for part, value in parts.items() if isinstance(value, Tensor)}
    for part, value in theirs.items():
        assert value.dtype == parts[part].dtype
        assert distance(value.double(), parts[part].double()) <= ANOTHER_PYTHON
    with safe_open(out, framework="pt") as stream:
        version = stream.metadata()["python"]
    assert version != platform.python_version()
    record_property(f"versions of Python, {name}", f"{platform.python_version()} and {version}")


@pytest.mark.parametrize("name", NETWORKS)
def test_predict_says_what_a_batch_says(name: str) -> None:
    model, images = network_and_pictures(name)
    with torch.inference_mode():
        batch = said(model(images), (images.shape[-2], images.shape[-1]))
    for image, wanted in zip(images[:4], batch, strict=False):
        pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()  # (H, W, 3)
        found = recseg.predict(pixels, model)
        assert (found.labels != wanted.labels.numpy()).mean() <= OTHER_LABELS
        if "dense" not in name:
            assert [step.class_id for step in found.steps] == (wanted.classes.argmax(dim=1) + 1).tolist()
            sure = wanted.classes.softmax(dim=1).amax(dim=1)
            np.testing.assert_allclose([step.probability for step in found.steps], sure, atol=1e-5)
