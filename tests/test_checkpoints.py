"""Weights survive the way to disk and back; whatever is wrong with a file is said in one line that names it."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recseg.errors import RecsegError
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.weights import io as checkpoints
from recseg.weights import registry
from recseg.weights.io import load, save_weights
from recseg.weights.registry import published_weights, register

NAMES = ("background", "cat", "dog")
RESULT = {"data": "pictograms", "split": "val", "miou": 0.5, "images": 7, "command": "recseg evaluate", "other": 1}
SMALL: dict[str, Any] = {"num_classes": 3, "encoder_widths": (4, 6, 8), "decoder_widths": (6,)}
MODELS: dict[str, Callable[[], SegmentationModel]] = {
    "dense": lambda: UNet(UNetConfig(**SMALL)),
    "recurrent": lambda: RecurrentUNet(RecurrentUNetConfig(**SMALL, hidden=4, reduced=4)),
    "published": lambda: PublishedNetwork(PublishedConfig(num_classes=3, input_size=32, widths=(4, 4))),
}


def save(path: Path, model: SegmentationModel, **changes: Any) -> Path:
    save_weights(path, model, **{"classes": NAMES, "image_size": 32, "metadata": {"data": "pictograms"}, **changes})
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(tmp_path / "unet.safetensors", MODELS["dense"]())


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `data/weights` folder of our own, where `resource` looks."""
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)

    def resource(*parts: str) -> Path:
        path = tmp_path.joinpath("data", *parts)
        if not path.exists():
            raise RecsegError(f"data/{'/'.join(parts)}: not part of this installation of recseg")
        return path

    monkeypatch.setattr(registry, "resource", resource)
    monkeypatch.setattr(registry, "addresses", lambda _: [])  # tests of downloads have files of their own
    monkeypatch.setenv("RECSEG_CACHE", str(tmp_path / "cache"))
    return folder


def text_of(file: Path) -> dict[str, str]:
    with open(file, "rb") as stream:
        header: dict[str, Any] = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    text: dict[str, str] = header["__metadata__"]
    return text


def forge(file: Path, tensors: dict[str, torch.Tensor] | None = None, **text: str) -> None:
    """Write the file again with other text or tensors."""
    save_file(tensors or load_file(file), file, metadata={**text_of(file), **text})


def refused(source: Path | str, *parts: str) -> None:
    with pytest.raises(RecsegError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(source), *parts):
        assert part in message


@pytest.mark.parametrize("kind", MODELS)
def test_round_trip(tmp_path: Path, kind: str) -> None:
    model = MODELS[kind]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    loaded = load(save(tmp_path / "weights.safetensors", model))
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert (loaded.classes, loaded.image_size, loaded.metadata) == (NAMES, 32, {"data": "pictograms"})
    assert not any(module.training for module in loaded.modules())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        mine, theirs = model(images), loaded(images)
    if isinstance(mine, torch.Tensor):
        mine, theirs = (mine,), (theirs,)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_run_folder_and_a_file_are_the_same(tmp_path: Path) -> None:
    save(tmp_path / "run" / "weights.safetensors", MODELS["dense"]())
    by_folder, by_file = load(tmp_path / "run"), load(str(tmp_path / "run" / "weights.safetensors"))
    for name, tensor in by_folder.state_dict().items():
        assert torch.equal(tensor, by_file.state_dict()[name])


def test_half_the_bytes_come_back_as_floats(tmp_path: Path) -> None:
    model = MODELS["dense"]()
    whole, half = save(tmp_path / "1.safetensors", model), save(tmp_path / "2.safetensors", model, half=True)
    assert half.stat().st_size < 0.75 * whole.stat().st_size
    loaded = load(half)
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.allclose(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def test_a_weight_too_large_for_half_is_refused(tmp_path: Path) -> None:
    model = MODELS["dense"]()
    model.state_dict()["classifier.bias"].fill_(1e6)
    with pytest.raises(RecsegError, match="classifier.bias"):
        save(tmp_path / "big.safetensors", model, half=True)
    assert not (tmp_path / "big.safetensors").exists()


def test_saving_leaves_the_old_file_where_it_fails(file: Path) -> None:
    before = file.read_bytes()
    model = MODELS["dense"]()
    model.state_dict()["classifier.bias"].fill_(1e6)
    with pytest.raises(RecsegError):
        save(file, model, half=True)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_loading_uses_up_no_randomness(file: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(file)
    assert torch.equal(torch.rand(3), expected)


# --- what can be wrong with a file


def test_unknown_names_list_the_known(weights: Path, file: Path) -> None:
    refused("no-such-weights", "published: none")
    register("cats", file, RESULT, folder=weights)
    register("dogs", file, RESULT, folder=weights)
    refused("no-such-weights", "published: cats, dogs")
    refused(weights / "none.safetensors")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "weights.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95" * 40, b"\xff" * 64, b"{}"])
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    refused(path, "not a safetensors file")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_truncated(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    refused(file, "not a safetensors file")


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "not recseg weights")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"format": "recseg-9"}, "recseg-9"),
        ({"kind": "os.system"}, "recurrent, dense, published"),
        ({"config": "{"}, "config"),
        ({"config": "[1]"}, "expected dict"),
        ({"config": '{"surprise": 1}'}, "surprise"),
        ({"config": '{"num_classes": "3"}'}, "num_classes"),
        ({"config": '{"num_classes": true}'}, "num_classes"),
        ({"config": '{"num_classes": 3, "encoder_widths": [4, 6, "8"]}'}, "encoder_widths"),
        ({"config": '{"num_classes": 3, "encoder_widths": [4, -1, 8], "decoder_widths": [6]}'}, "safetensors"),
        ({"config": '{"num_classes": 3, "encoder": "/etc/passwd"}'}, "encoder"),
        ({"classes": '["background", "cat"]'}, "2 class names for a network of 3"),
        ({"classes": '["background", "cat", 5]'}, "classes"),
        ({"classes": '"abc"'}, "classes"),
        ({"image_size": "0"}, "image size 0"),
        ({"image_size": "1e3"}, "image_size"),
        ({"image_size": "true"}, "image size"),
        ({"metadata": "7"}, "metadata"),
        ({"metadata": "[" * 100_000}, "metadata"),
        ({"metadata": '"' + "x" * (1 << 20) + '"'}, "longer"),
    ],
)
def test_text_that_does_not_fit(file: Path, text: dict[str, str], message: str) -> None:
    forge(file, None, **text)
    refused(file, message)


def test_a_forged_configuration_cannot_ask_for_memory(file: Path) -> None:
    """Four terabytes of weights: refused by their shapes, before a byte of them exists."""
    forge(file, config='{"num_classes": 3, "encoder_widths": [4, 1000000, 100000], "decoder_widths": [6]}')
    refused(file)


def test_tensors_that_do_not_fit(file: Path) -> None:
    good = load_file(file)
    name = "classifier.bias"
    for change, message in (
        ({name: None}, f"lacks tensor {name}"),
        ({"classifier.extra": torch.zeros(1)}, "unknown tensor classifier.extra"),
        ({name: torch.zeros(4)}, "shape (4,), expected (3,)"),
        ({name: torch.zeros(3, dtype=torch.int64)}, "type torch.int64"),
        ({name: torch.tensor([0.0, float("nan"), 0.0])}, "not finite"),
    ):
        tensors: dict[str, Any] = {**good, **change}
        forge(file, {key: value for key, value in tensors.items() if value is not None})
        refused(file, message)


def test_each_kind_refuses_the_tensors_of_another(file: Path) -> None:
    forge(file, kind="recurrent")
    refused(file, "tensor")


def test_recurrent_networks_of_the_first_edition_are_refused_by_the_version_that_reads_them(tmp_path: Path) -> None:
    first = save(tmp_path / "first.safetensors", MODELS["recurrent"]())
    config = {"num_classes": 3, "encoder": "plain", "head": "embedding", "feedback": "explained", "grid": 8}
    forge(first, {"head.trust": torch.ones(1)}, format="recseg-1", config=json.dumps(config))
    refused(first, "recurrent network of recseg 0.1", "pip install recseg==0.1.0")


@pytest.mark.parametrize("kind", ["dense", "published"])
def test_other_networks_of_the_first_edition_still_load(tmp_path: Path, kind: str) -> None:
    model = MODELS[kind]()
    first = save(tmp_path / "first.safetensors", model)
    forge(first, format="recseg-1")
    loaded = load(first)
    assert loaded.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


# --- configurations


@dataclass(frozen=True)
class Config:
    size: int = 1
    rate: float = 0.5
    widths: tuple[int, ...] = (1,)
    encoder: str = "plain"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Config()),
        ({"rate": 1}, Config(rate=1.0)),
        ({"widths": [1, 2], "encoder": "resnet18"}, Config(widths=(1, 2), encoder="resnet18")),
        ({"widths": []}, Config(widths=())),
    ],
)
def test_json_fits_the_fields(values: dict[str, Any], expected: Config) -> None:
    fitted = checkpoints.config_from_json(Path("file"), Config, json.loads(json.dumps(values)))
    assert fitted == expected
    assert [type(value) for value in vars(fitted).values()] == [type(value) for value in vars(expected).values()]


@pytest.mark.parametrize(
    "values",
    [{"size": 1.5}, {"size": True}, {"rate": "1"}, {"widths": 3}, {"widths": [1.0]}, {"widths": [True]},
     {"widths": ["1"]}, {"encoder": 1}, {"encoder": None}, {"size": None}, {"size": {}}],
)  # fmt: skip
def test_json_that_does_not_fit_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RecsegError, match=f"file: configuration {next(iter(values))} = "):
        checkpoints.config_from_json(Path("file"), Config, values)


# --- the registry


def test_published_weights_load_by_name(weights: Path, file: Path) -> None:
    entry = register("cats-1", file, RESULT, folder=weights)
    (listed,) = published_weights()
    assert listed == {"name": "cats-1", **entry}
    assert (listed["bytes"], listed["file"]) == (file.stat().st_size, "cats-1.safetensors")
    assert (listed["kind"], listed["miou"], listed["command"]) == ("dense", 0.5, "recseg evaluate")
    assert "other" not in listed
    assert load("cats-1").classes == NAMES


def test_a_published_name_wins_over_a_file(
    weights: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("cats", file, RESULT, folder=weights)
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "cats" / "weights.safetensors", MODELS["recurrent"]())
    assert load("cats").kind == "dense"
    assert load("./cats").kind == load(Path("cats")).kind == "recurrent"


def test_a_changed_byte_is_found_before_the_file_is_read(
    weights: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("cats", file, RESULT, folder=weights)
    target = weights / "cats.safetensors"
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    monkeypatch.setattr(checkpoints, "open_tensors", lambda *_, **__: pytest.fail("read before it was checked"))
    with pytest.raises(RecsegError, match="sha256"):
        load("cats")
    target.unlink()
    with pytest.raises(RecsegError, match=r"cats\.safetensors"):
        load("cats")


def test_publishing_again_replaces_and_keeps_the_others(weights: Path, file: Path) -> None:
    register("cats", file, RESULT, folder=weights)
    register("dogs", file, RESULT, folder=weights)
    register("cats", weights / "cats.safetensors", {**RESULT, "miou": 0.9}, folder=weights)
    assert {entry["name"]: entry["miou"] for entry in published_weights()} == {"cats": 0.9, "dogs": 0.5}


@pytest.mark.parametrize("name", ["", "Cats", "../cats", "a b", ".hidden", "x" * 65])
def test_bad_names_are_refused(weights: Path, file: Path, name: str) -> None:
    with pytest.raises(RecsegError, match="expected a name"):
        register(name, file, RESULT, folder=weights)
    assert not list(weights.iterdir())


def test_only_what_loads_and_was_measured_is_published(weights: Path, file: Path) -> None:
    with pytest.raises(RecsegError, match="lacks split"):
        register("cats", file, {key: value for key, value in RESULT.items() if key != "split"}, folder=weights)
    file.write_bytes(b"nothing")
    with pytest.raises(RecsegError, match="not a safetensors file"):
        register("cats", file, RESULT, folder=weights)
    assert not list(weights.iterdir())


@pytest.mark.parametrize(
    "content", ["", "[]", '{"a": 1}', '{"a": {"file": "x"}}', '{"a": {"file": "../x", "sha256": ""}}', "\xff"]
)
def test_a_damaged_registry_is_named(weights: Path, content: str) -> None:
    (weights / "registry.json").write_text(content, encoding="latin-1")
    with pytest.raises(RecsegError, match=r"registry\.json"):
        published_weights()


def test_the_published_weights_of_this_project_load() -> None:
    for entry in published_weights():
        assert entry["bytes"] < 10_000_000
        model = load(entry["name"])
        assert len(model.classes) == model.num_classes
