"""A run goes on with the data that it began with, wherever they are now; and a folder belongs to one training."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import Refuses, refusal, save_indexed
from kill_work import recurrent
from safetensors.torch import save_file

from recseg.cli.main import main
from recseg.data.folder import SegmentationFolder
from recseg.data.pack import write_pack
from recseg.data.pictograms import dataset as pictograms
from recseg.data.pictograms import write_dataset
from recseg.models.config import RecurrentUNetConfig
from recseg.training import train as beginning
from recseg.training import trainer as training
from recseg.training.config import TrainConfig, build_model, load_config
from recseg.training.train import resume, train
from recseg.training.trainer import Trainer
from recseg.weights.io import load
from runs import QUICK, same_run, step_of, stopped_at_two, two_lists

STEPS = 4
CLASSES = ["background", "aeroplane", "bicycle", "bird", "boat"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "build_model", recurrent)


@pytest.fixture
def data(tiny_voc: Path) -> Path:
    (tiny_voc / "classes.txt").write_text("\n".join(CLASSES))
    two_lists(tiny_voc)
    return tiny_voc


def config(data: Path | str, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**QUICK, "data": str(data), "steps": STEPS, **changes})


def stopped(data: Path | str, run: Path, **changes: Any) -> Path:
    """A run that was stopped after two steps."""
    return stopped_at_two(config(data, checkpoint_seconds=1e-9, **changes), run)


# The data have changed


def swapped(data: Path) -> None:
    (data / "classes.txt").write_text("\n".join([*CLASSES[:3], CLASSES[4], CLASSES[3]]))


def one_more_class(data: Path) -> None:
    (data / "classes.txt").write_text("\n".join([*CLASSES, "bottle"]))


def shortened(data: Path) -> None:
    (data / "ImageSets/Segmentation/train.txt").write_text("tiny_0\ntiny_1\n")


def reordered(data: Path) -> None:
    (data / "ImageSets/Segmentation/train.txt").write_text("tiny_1\ntiny_0\ntiny_2\n")


def other_validation(data: Path) -> None:
    (data / "ImageSets/Segmentation/val.txt").write_text("tiny_3\nagain\n")
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        shutil.copy(data / folder / f"tiny_3{suffix}", data / folder / f"again{suffix}")


def more_in_an_image(data: Path) -> None:
    labels = np.zeros((32, 48), dtype=np.uint8)
    labels[:8], labels[8:16] = 1, 2
    save_indexed(labels, data / "SegmentationClass/tiny_0.png")


def other_values(data: Path) -> None:
    rows = [(0, "background"), (2, "aeroplane"), (1, "bicycle"), (3, "bird"), (4, "boat")]
    (data / "classes.txt").write_text("value,name\n" + "".join(f"{value},{name}\n" for value, name in rows))


def another_void(data: Path) -> None:
    rows = "".join(f"{value},{name}\n" for value, name in enumerate(CLASSES))
    (data / "classes.txt").write_text(f"value,name\n{rows}254,void\n255,void\n")


CHANGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "two classes swapped": (swapped, ["class 3", "'boat'", "'bird'"]),
    "a class more": (one_more_class, ["6 classes", "5"]),
    "a shorter list": (shortened, ["'train'", "2 ids", "3"]),
    "another order": (reordered, ["'train'", "order"]),
    "another validation": (other_validation, ["validation", "'val'", "2 ids", "1"]),
    "other values": (other_values, ["values of its masks"]),
    "another void": (another_void, ["values of its masks"]),
    "more classes in an image": (more_in_an_image, ["up to 2", "1"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_does_not_go_on_with_other_data(name: str, data: Path, tmp_path: Path, refuses: Refuses) -> None:
    change, words = CHANGES[name]
    run = stopped(data, tmp_path / "run")
    change(data)
    refuses(["train", "--resume", run], str(data), "when this run began", *words)


def test_a_pack_of_another_size_is_other_data(data: Path, tmp_path: Path, refuses: Refuses) -> None:
    small, large = tmp_path / "small.pack", tmp_path / "large.pack"
    for pack, size in ((small, 16), (large, 24)):
        write_pack(SegmentationFolder(data, "train"), pack, size, progress=False)
    run = stopped(small, tmp_path / "run")
    refuses(["train", "--resume", run, "--data", large], "large.pack", "pack size")


# The data, the folder or the machine is another


def test_a_run_goes_on_from_another_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    whole = tmp_path / "whole"
    train(config(data.name), whole, progress=False)
    run = stopped(data.name, tmp_path / "cut")
    assert load_config(run / "config.json").data == str(data)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["train", "--resume", str(run)]) == 0
    same_run(whole, run, STEPS)
    assert str(tmp_path) not in json.dumps(load(run).metadata)  # weights name no path of somebody's machine


def test_data_that_have_moved_are_given_anew(
    data: Path, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    train(config(data), whole, progress=False)
    run = stopped(data, tmp_path / "cut")
    (tmp_path / "there").mkdir()
    data.rename(tmp_path / "there" / data.name)
    refuses(["train", "--resume", run], str(data), "--data")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", str(run), "--data", f"there/{data.name}"]) == 0
    same_run(whole, run, STEPS)
    assert load_config(run / "config.json").data == str(tmp_path / "there" / data.name)
    assert main(["train", "--resume", str(run)]) == 0  # from now on they are found there


def test_a_device_that_is_not_here_is_given_anew(data: Path, tmp_path: Path, refuses: Refuses) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    run = stopped(data, tmp_path / "run")
    text = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(text | {"device": "cuda"}))
    refuses(["train", "--resume", run], "'cuda'", "expected cpu")
    assert main(["train", "--resume", str(run), "--device", "cpu", "--workers", "0"]) == 0
    assert step_of(run) == STEPS and load_config(run / "config.json").device == "cpu"


def test_a_run_that_goes_on_needs_no_file_of_the_encoder(tiny_voc: Path, tmp_path: Path) -> None:
    """Given by a relative path, or gone since: all weights are in the checkpoint."""
    torch.manual_seed(0)
    file = tmp_path / "encoder.safetensors"
    save_file(torchvision.models.resnet18().state_dict(), file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_model", build_model)
        patch.chdir(tmp_path)
        small = RecurrentUNetConfig(encoder="resnet18", decoder_widths=(8, 8, 8, 8), hidden=8, reduced=8)
        settings = {"network": small, "encoder_weights": file.name, "size": 64, "image_size": 64, "freeze": 1}
        run = stopped(tiny_voc, tmp_path / "run", **settings)
        assert load_config(run / "config.json").encoder_weights == str(file)
        file.unlink()
        resume(run, progress=False)
    assert step_of(run) == STEPS


def test_what_a_run_learns_is_not_changed_when_it_goes_on(data: Path, tmp_path: Path, refuses: Refuses) -> None:
    run = stopped(data, tmp_path / "run")
    for option in (["--seed", 1], ["--batch-size", 2], ["--out", tmp_path / "new"], ["--split", "val"]):
        refuses(["train", "--resume", run, *option], "--resume", str(option[0]))


# Two at one folder


def test_of_two_trainings_that_begin_at_once_one_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is through while the first is between its check of the folder and its first file."""
    run, opened, ran = tmp_path / "run", beginning._open, list[Path]()

    def slow(*arguments: Any, **more: Any) -> Trainer:
        if not ran:
            ran.append(run)
            train(config(data, seed=2), run, progress=False)
        return opened(*arguments, **more)

    monkeypatch.setattr(beginning, "_open", slow)
    refusal(lambda: train(config(data, seed=1), run, progress=False), run, "another run")
    assert load_config(run / "config.json").seed == load(run).metadata["seed"] == 2


def test_of_two_sets_of_pictograms_in_one_folder_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, ran = tmp_path / "set", pictograms._write_text, list[Path]()

    def slow(path: Path, *arguments: Any, **named: Any) -> None:
        if not ran:
            ran.append(path)
            write_dataset(out, 2, 5, progress=False)
        write(path, *arguments, **named)

    monkeypatch.setattr(pictograms, "_write_text", slow)
    refusal(lambda: write_dataset(out, 2, 6, progress=False), out, "seed 5 instead of 6")
    assert all(path.stem.startswith("pictogram_5_") for path in (out / "JPEGImages").iterdir())


# Scripts that start readers


@pytest.mark.skipif(sys.platform == "win32", reason="the script asks for spawn, which is all that Windows has")
def test_a_script_without_a_main_guard_is_told_so(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from recseg.training.train import TrainConfig, train\n"
        "multiprocessing.set_start_method('spawn', force=True)\n"
        f"train(TrainConfig(data={str(data)!r}, steps=1, size=16, batch_size=2, workers=1, device='cpu'), 'run')\n"
    )
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and "if __name__ == '__main__':" in last and "workers=0" in last
    assert "memory" not in done.stderr
    assert not (tmp_path / "run").exists()
