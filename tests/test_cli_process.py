"""The command line as a process: help, version, wrong use, full disks, readers that leave, Ctrl-C."""

import argparse
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refuses
from odd_pictures import BAD

from recseg.cli import benchmark, train, weights
from recseg.cli.main import main
from recseg.models.config import ENCODERS, RecurrentUNetConfig
from recseg.training.config import TrainConfig


def test_help_names_every_command_and_needs_no_torch() -> None:
    code = (
        "import sys; from recseg.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("data", "train", "evaluate", "predict", "video", "weights"))


COMMANDS = ["data", "data voc", "data pictograms", "train", "evaluate", "report", "predict", "video", "weights"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0 and "example: recseg " in capsys.readouterr().out


def options_of(name: str) -> dict[str, argparse.Action]:
    """The options of a command, by the name of what they set."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    train.add(commands)
    benchmark.add(commands)
    return {action.dest: action for action in commands.choices[name]._actions}


def test_choices_are_those_of_the_code() -> None:
    from recseg.benchmark import PARTS
    from recseg.benchmark.run import MEASURES
    from recseg.training import config

    options = options_of("train")
    choices = {
        "model": config.MODELS, "order": config.ORDERS, "optimiser": config.OPTIMISERS, "amp": config.AMP,
        "on_bad_image": config.ON_BAD_IMAGE,
    }  # fmt: skip
    for name, values in choices.items():
        assert options[name].choices == values, name
        for value in values:  # each of which a training takes
            option: dict[str, Any] = {name: value}
            config.TrainConfig(data="voc", **option)
    named = options["encoder"].help  # not choices: timm has a thousand names more
    assert named is not None and ", ".join(ENCODERS) in named
    assert tuple(MEASURES) == PARTS


# Made of other options, of the data, of what `init` lacks, and in Python only.
NO_OPTIONS = {"network", "num_classes", "fresh", "augmentation"}


def test_everything_that_a_user_may_set_has_an_option() -> None:
    fields_of = {field.name for kind in (TrainConfig, RecurrentUNetConfig) for field in fields(kind)}
    options = options_of("train").keys() - {"help", "resume", "out"}
    assert fields_of - NO_OPTIONS == options, "an option without a field, or a field without an option"


def test_what_is_typed_is_what_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every field of the network, each with a value that is not its default."""
    seen: list[TrainConfig] = []

    def begin(config: TrainConfig, out: Path) -> Path:
        seen.append(config)
        return out / "weights.safetensors"

    monkeypatch.setattr("recseg.training.train.train", begin)
    typed = "train --data voc --encoder-widths 4 5 6 --decoder-widths 7 8 --hidden 9 --reduced 10 --max-steps 3"
    assert main([*typed.split(), "--out", str(tmp_path / "run")]) == 0
    network = RecurrentUNetConfig(encoder_widths=(4, 5, 6), decoder_widths=(7, 8), hidden=9, reduced=10)
    assert seen == [TrainConfig(data="voc", network=network, max_steps=3)]
    assert main(["train", "--data", "voc", "--out", str(tmp_path / "run")]) == 0
    assert seen[1] == TrainConfig(data="voc")  # what is not typed is what the code says


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"recseg {version('recseg')}\n"


def test_wrong_use_is_one_line(refuses: Refuses) -> None:
    refuses([], "COMMAND")
    refuses(["segment"], "segment")
    refuses(["predict", "--weights", "x"], "--out")
    refuses(["weights", "--jsno"], "--jsno")


def test_a_process_ends_with_2_and_no_traceback(tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "recseg.cli",
        "predict",
        tmp_path / "absent.jpg",
        "--weights",
        "x",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"recseg: error: {tmp_path / 'absent.jpg'}: no such file\n"


def ends_with_one_line(path: Path, shown: str) -> None:
    options: list[str | Path] = ["--weights", "x", "--out", path.parent / "out"]
    command = [sys.executable, "-m", "recseg.cli", "predict", path, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr.startswith("recseg: error: ") and done.stderr.count("\n") == 1 and shown in done.stderr
    assert not (path.parent / "out").exists()


FEW = ("cut short", "pipe", "bomb")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in FEW else pytest.mark.slow, id=kind) for kind in BAD]
)
def test_bad_pictures_end_a_process_with_2(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "two  spaces.png"
    BAD[kind](np.random.default_rng(0), path)
    ends_with_one_line(path, "two  spaces.png")


def test_names_that_are_no_text_are_spelt_out(tmp_path: Path) -> None:
    """A byte of another encoding, a line end, an escape sequence: one line, and none of it reaches a terminal."""
    path = tmp_path / os.fsdecode(b"a\xff\x1b[31m\nb.png")
    try:
        path.write_text("no image")
    except OSError:
        pytest.skip("this file system takes text alone")
    ends_with_one_line(path, "a\\udcff\\x1b[31m b.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(unbuffered: str) -> None:
    command = [sys.executable, "-m", "recseg.cli", "weights"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "recseg: error: output: the disk is full\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        command = [sys.executable, "-m", "recseg.cli", "weights"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_130_and_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "run", interrupted)
    assert main(["weights"]) == 130
    assert capsys.readouterr().err == "recseg: interrupted\n"
