"""The measurement of a GPU, tried in its tiny form on the CPU: every part has its rows, and no failure ends it."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recseg.book import gpu_parts, measure_gpu
from recseg.book.gpu_parts import PARTS, Plan
from recseg.book.measure_gpu import attempt, measure, table


def tiny(out: Path, seconds: float = 600) -> Plan:
    return Plan(
        torch.device("cpu"), out, time.monotonic() + seconds, encoder="plain", sides=(32,), batches=(2, 1),
        precisions=("float32",), ways=("contiguous", "CUDA graph"), rounds=1, least=0.0,
    )  # fmt: skip


def test_every_part_has_its_rows_and_failures_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "gpu-cpu.json"
    found = measure(tiny(tmp_path), file, command=["python"])
    assert json.loads(file.read_text()) == found and all(found[name]["complete"] for name in PARTS)
    (row,) = found["waits"]["rows"]
    assert row["milliseconds"] > 0 and row["waits"] is None  # a CPU does not wait for itself
    networks = {(row["network"], row["batch"]): row for row in found["training"]["rows"]}
    assert networks["recurrent", 2]["images_a_second"] > 0
    assert "expected a multiple" in networks["published", 1]["error"]  # which takes no image of 32 pixels
    ways = {(row["network"], row["way"]): row for row in found["ways"]["rows"]}
    assert ways["recurrent", "contiguous"]["milliseconds"] > 0 and "error" in ways["recurrent", "CUDA graph"]
    assert [row.get("error") for row in found["memory"]["rows"]] == [None] * len(found["memory"]["rows"])
    assert all(row["crops_a_second"] > 0 for row in found["loader"]["rows"])
    assert found["recipe"]["rows"] == []  # no packed data
    first, *lines = table(found).splitlines()
    assert "training, batch 2" in first and any(line.startswith("| recurrent |") for line in lines)


def test_a_part_ends_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep() -> dict[str, Any]:
        time.sleep(0.05)
        return {}

    slow: Any = (lambda plan: (({"case": n}, sleep) for n in range(100)), 0.2)
    quick = (lambda plan: (({"case": n}, lambda: {"found": 1}) for n in range(2)), 1.0)
    monkeypatch.setattr(measure_gpu, "PARTS", {"slow": slow, "quick": quick})
    found = measure(tiny(tmp_path, seconds=5), tmp_path / "gpu-cpu.json")
    assert 0 < len(found["slow"]["rows"]) < 100 and not found["slow"]["complete"]
    assert found["quick"] == {"rows": [{"case": 0, "found": 1}, {"case": 1, "found": 1}], "complete": True}


def test_what_was_measured_before_a_kill_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> dict[str, Any]:
        raise KeyboardInterrupt

    cases = [({"case": 1}, lambda: {"found": 1}), ({"case": 2}, killed)]
    monkeypatch.setattr(measure_gpu, "PARTS", {"part": (lambda plan: iter(cases), 1.0)})
    with pytest.raises(KeyboardInterrupt):
        measure(tiny(tmp_path), tmp_path / "gpu-cpu.json")
    assert json.loads((tmp_path / "gpu-cpu.json").read_text())["part"]["rows"] == [{"case": 1, "found": 1}]


def test_an_error_is_one_line() -> None:
    def full() -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate all of it")

    assert attempt(full) == {"error": "OutOfMemoryError: CUDA out of memory."}


def test_the_recipe_trains_for_the_minutes_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def train(config: Any, out: Path, progress: bool) -> None:
        asked.append(config)
        out.mkdir()
        (out / "log.jsonl").write_text(json.dumps({"step": 3, "seconds": 1.5}) + "\n")

    monkeypatch.setattr(gpu_parts, "train", train)
    plan = replace(tiny(tmp_path, seconds=135), data=Path("voc.pack"))
    ((facts, act),) = gpu_parts.recipe(plan)
    assert facts["data"] == "voc.pack" and act()["images_a_second"] == pytest.approx(3 * 16 / 1.5)
    assert asked[0].minutes == pytest.approx(2, abs=0.1) and asked[0].network.encoder == "plain"


def test_arithmetic_is_put_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    for precision, kind in {"float32": None, "tf32": None, "bfloat16": torch.bfloat16}.items():
        with gpu_parts.arithmetic(precision) as found:
            assert found is kind and torch.backends.cudnn.allow_tf32 == (
                precision == "tf32" or kind is not None and before
            )
    assert torch.backends.cudnn.allow_tf32 == before
