"""Two processes compute what one does: gradients, scores, and a run that goes on with another number of them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import recurrent_model, refusal
from safetensors.torch import load_file

import recseg.distributed as distributed
from recseg.classes import VOC_CLASSES
from recseg.data.folder import SegmentationFolder
from recseg.data.stream import StreamSampler
from recseg.distributed import (
    all_gather,
    all_reduce_max,
    from_first,
    global_count,
    mean,
    shard,
)
from recseg.errors import RecsegError
from recseg.weights.io import save_weights

WORK = Path(__file__).with_name("distributed_work.py")


def run(processes: int, program: Sequence[str]) -> tuple[int, str]:
    """Start a program once, or in several processes with what torchrun tells them; worst exit code, and stderr.

    Without torchrun itself, which looks up the machine's name for minutes where no server knows it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *program]
    with contextlib.ExitStack() as stack:
        started, errors = [], []
        for process in range(processes):
            own = {"RANK": str(process), "LOCAL_RANK": str(process), "WORLD_SIZE": str(processes)}
            error = stack.enter_context(tempfile.TemporaryFile())  # not a pipe: a full one that nobody reads blocks
            environment = os.environ | shared | own
            started.append(subprocess.Popen(command, stderr=error, stdout=subprocess.DEVNULL, env=environment))
            stack.callback(started[-1].kill)  # where one hangs, none is left behind
            errors.append(error)
        codes = [process.wait(timeout=300) for process in started]  # a busy machine takes minutes to import PyTorch
        for error in errors:
            error.seek(0)
        return max(codes, key=abs), "".join(error.read().decode() for error in errors)


@pytest.fixture
def data(tiny_voc: Path) -> Path:
    """`tiny_voc`, with masks that differ in how much of them is void: a share of the batch is no fair share of it."""
    import numpy as np
    from conftest import save_indexed

    for index in range(4):
        labels = np.full((32, 48), 255 if index % 2 else 0)
        labels[2 : 8 + 5 * index, 2:40] = index + 1
        labels[20:30, 30:40] = 7 + index
        save_indexed(labels, tiny_voc / "SegmentationClass" / f"tiny_{index}.png")
    (tiny_voc / "ImageSets/Segmentation/train.txt").write_text("tiny_0\ntiny_1\ntiny_2\ntiny_3\n")
    (tiny_voc / "ImageSets/Segmentation/val.txt").write_text("tiny_0\ntiny_1\ntiny_2\n")
    return tiny_voc


def test_two_processes_have_the_gradients_and_the_scores_of_one(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    save_weights(weights, recurrent_model(), classes=VOC_CLASSES, image_size=32, metadata={})
    for processes in (1, 2):
        code, errors = run(processes, [str(WORK), str(data), str(weights), str(tmp_path / f"{processes}")])
        assert code == 0, errors
    for part in ("0", "1"):
        one, two = (load_file(tmp_path / f"{processes}-{part}.safetensors") for processes in (1, 2))
        assert any(grad.abs().max() > 1e-3 for grad in one.values())
        assert two.keys() == one.keys()  # the steps have none while single pixels learn
        for name, grad in one.items():
            torch.testing.assert_close(two[name], grad, rtol=1e-4, atol=1e-6, msg=name)
    assert json.loads((tmp_path / "1.json").read_text()) == json.loads((tmp_path / "2.json").read_text())


def test_a_run_of_two_processes_goes_on_with_one(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--size", "32", "--batch-size", "4", "--workers", "0", "--device", "cpu", "--steps", "3"]
    options += ["--val-split", "none"]
    command = ["-m", "recseg.cli", "train", "--data", str(data), "--out", str(out), *options]
    code, errors = run(2, command)
    assert code == 0, errors
    config = json.loads((out / "config.json").read_text())
    assert config["steps"] == 3
    (out / "config.json").write_text(json.dumps(config | {"steps": 5}))
    code, errors = run(1, ["-m", "recseg.cli", "train", "--resume", str(out)])
    assert code == 0, errors
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 5]  # one writer, no line twice


def test_more_processes_than_pictures_are_refused(data: Path, tmp_path: Path) -> None:
    options = ["--size", "16", "--batch-size", "1", "--device", "cpu", "--steps", "1", "--val-split", "none"]
    code, errors = run(2, ["-m", "recseg.cli", "train", "--data", str(data), "--out", str(tmp_path / "run"), *options])
    assert code == 2 and "batch_size 1: expected at least one image for each of 2 processes" in errors


def test_a_fault_that_one_process_meets_ends_all_of_them_in_a_line_each(data: Path, tmp_path: Path) -> None:
    image = data / "JPEGImages" / "tiny_3.jpg"
    image.write_bytes(image.read_bytes()[:200])  # in the middle of the training, in the process that draws it
    options = ["--size", "32", "--batch-size", "4", "--workers", "0", "--device", "cpu", "--steps", "9"]
    command = ["-m", "recseg.cli", "train", "--data", str(data), "--out", str(tmp_path / "run"), *options]
    code, errors = run(2, [*command, "--val-split", "none"])
    lines = [line for line in errors.splitlines() if "error" in line.lower()]
    assert code == 2 and "Traceback" not in errors, errors
    assert sorted("tiny_3.jpg" in line for line in lines) == [False, True], errors
    assert any("another process has failed" in line for line in lines), errors


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("number", [5, 16, 421])
def test_shares_are_a_partition(world: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    shares = []
    for process in range(world):
        monkeypatch.setattr(distributed, "rank", lambda process=process: process)
        shares.append(shard(number))
    assert [place for part in shares for place in part] == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_changes() -> None:
    assert (global_count(3), global_count(0), all_reduce_max(2.0, 1.0), mean(4.0), all_gather("a")) == (
        3,
        1,
        [2.0, 1.0],
        [4.0],
        ["a"],
    )
    count = global_count(torch.tensor(0))
    assert isinstance(count, torch.Tensor) and int(count) == 1


@pytest.mark.parametrize("error", [None, RecsegError("no masks")])
def test_what_the_first_process_finds_reaches_all(error: RecsegError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    asked: list[int] = []

    def act() -> str:
        asked.append(distributed.rank())
        if error is not None:
            raise error
        return "found"

    def broadcast(values: list[Any], source: int) -> None:
        if distributed.rank() == source:
            sent[:] = values
        values[:] = sent

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    for process in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda process=process: process)
        if error is None:
            assert from_first(act) == "found"
        else:
            refusal(lambda: from_first(act), "no masks")
    assert asked == [0]


def test_parts_of_a_batch_make_the_batch(tiny_voc: Path) -> None:
    size = len(SegmentationFolder(tiny_voc, "train"))
    whole = iter(StreamSampler(size, 5, seed=1, start=2))
    parts = [iter(StreamSampler(size, 5, seed=1, start=2, part=part)) for part in (range(2), range(2, 5))]
    for _ in range(4):
        assert next(whole) == [key for part in parts for key in next(part)]


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def join() -> Any:
        with distributed.process_group("cuda"):
            raise AssertionError("joined")

    refusal(join, "process 1", "one GPU per process")
