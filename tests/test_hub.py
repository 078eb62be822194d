"""Networks as folders, from the Hugging Face Hub (a stand-in for it), and through torch.hub from this clone."""

import json
import re
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import TINY, recurrent_model, refusal, uninstall

import recseg
from recseg.classes import VOC_CLASSES
from recseg.models.config import UNetConfig
from recseg.models.unet import UNet
from recseg.weights.hub import from_pretrained, save_pretrained

ROOT = Path(__file__).resolve().parent.parent
Model = Any  # carries classes, image_size and metadata once loaded


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A Hub of repositories: name → folder, or the error that it answers with; and what it was asked."""
    served: dict[str, Any] = {"asked": []}

    def hf_hub_download(name: str, file: str, *, revision: str | None = None) -> str:
        served["asked"].append((name, file, revision))
        if isinstance(served[name], Exception):
            raise served[name]
        return str(served[name] / file)

    module: Any = ModuleType("huggingface_hub")
    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return served


@pytest.mark.parametrize("kind", ["recurrent", "dense"])
def test_a_folder_round_trip_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    uninstall("huggingface_hub", monkeypatch)
    model = recurrent_model() if kind == "recurrent" else UNet(UNetConfig(**TINY))
    folder = save_pretrained(model, tmp_path / "new" / "cats", classes=VOC_CLASSES, image_size=32, metadata={"seed": 1})
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]
    loaded: Model = from_pretrained(folder)
    assert same(model, loaded) and loaded.config == model.config and not loaded.training
    assert (loaded.classes, loaded.image_size, loaded.metadata) == (tuple(VOC_CLASSES), 32, {"seed": 1})
    assert same(loaded, recseg.load(folder))
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (described["library_name"], described["kind"], described["image_size"]) == ("recseg", kind, 32)
    assert described["config"]["num_classes"] == len(described["classes"]) == 21

    again: Model = from_pretrained(save_pretrained(loaded, tmp_path / "again"))  # what it carries goes with it
    assert (again.classes, again.image_size, again.metadata) == (loaded.classes, 32, {"seed": 1})


def test_a_new_network_is_asked_for_its_classes(tmp_path: Path) -> None:
    model = UNet(UNetConfig(**TINY))
    refusal(lambda: save_pretrained(model, tmp_path / "x", image_size=32), tmp_path / "x", "classes=")
    refusal(lambda: save_pretrained(model, tmp_path / "x", classes=VOC_CLASSES), tmp_path / "x", "image_size=")
    assert not (tmp_path / "x").exists()


def test_published_names_and_files_load_as_ever(tiny_dense: Path, hub: dict[str, Any]) -> None:
    assert same(from_pretrained(tiny_dense), recseg.load(tiny_dense))
    assert same(from_pretrained("pictograms-dense"), recseg.load("pictograms-dense"))
    refusal(lambda: from_pretrained("no-such-name"), "no-such-name", "published")
    assert not hub["asked"]


def test_a_repository_is_fetched_from_the_hub(tmp_path: Path, hub: dict[str, Any]) -> None:
    model = recurrent_model()
    hub["some/cats"] = save_pretrained(model, tmp_path / "there", classes=VOC_CLASSES, image_size=32)
    assert same(from_pretrained("some/cats", revision="v1"), model)
    assert hub["asked"] == [("some/cats", "weights.safetensors", "v1")]


def test_a_folder_here_wins_over_a_repository_there(
    tmp_path: Path, hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(recurrent_model(), tmp_path / "some" / "cats", classes=VOC_CLASSES, image_size=32)
    monkeypatch.chdir(tmp_path)
    assert same(from_pretrained("some/cats"), recurrent_model())
    assert not hub["asked"]


def test_what_the_hub_cannot_give_is_said_in_a_line(
    tmp_path: Path, hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub["some/dogs"] = OSError("404 Client Error.\n\nRepository Not Found")
    refusal(lambda: from_pretrained("some/dogs"), "some/dogs", "Hugging Face Hub", "404", "Not Found")
    (tmp_path / "weights.safetensors").write_bytes(b"a pickle, maybe")
    hub["some/other"] = tmp_path
    refusal(lambda: from_pretrained("some/other"), "weights.safetensors", "not a safetensors file")
    uninstall("huggingface_hub", monkeypatch)
    refusal(lambda: from_pretrained("some/dogs"), "some/dogs", "no such folder", "recseg[hub]")


# torch.hub


def entry(name: str, **arguments: Any) -> Model:
    return torch.hub.load(str(ROOT), name, source="local", **arguments)


def test_torch_hub_gives_published_weights() -> None:
    model = entry("recurrent_unet", weights="pictograms-recurrent")
    assert same(model, recseg.load("pictograms-recurrent")) and not model.training
    assert entry("unet", weights="pictograms-dense").kind == "dense"


def test_torch_hub_lists_networks_alone() -> None:
    specification = spec_from_file_location("hubconf", ROOT / "hubconf.py")
    assert specification and specification.loader
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    entries = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    assert entries == ["recurrent_unet", "unet"]  # what torch.hub.list shows


def test_torch_hub_gives_new_networks() -> None:
    assert entry("recurrent_unet").config == recseg.RecurrentUNetConfig()
    assert entry("unet", **TINY).config == UNetConfig(**TINY)


def test_torch_hub_refuses_what_contradicts_itself() -> None:
    refusal(lambda: entry("unet", weights="pictograms-recurrent"), "pictograms-recurrent", "RecurrentUNet", "a UNet")
    refusal(lambda: entry("recurrent_unet", weights="pictograms-recurrent", max_steps=3), "max_steps")
    refusal(lambda: entry("recurrent_unet", weights="nothing"), "nothing", "published")


def test_torch_hub_asks_for_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", line)[0] for line in project["dependencies"]]
    hubconf = (ROOT / "hubconf.py").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = (\[.+\])$", hubconf, re.MULTILINE)
    assert listed and sorted(json.loads(listed[1])) == sorted("PIL" if name == "pillow" else name for name in names)
