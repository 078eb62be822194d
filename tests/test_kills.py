"""Exact resume: a training that is killed again and again ends as one that is left alone does, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runs import same_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork and no SIGKILL on Windows")


def killed(data: Path, folder: Path, *, model: str, kills: int, seed: int = 0, workers: int = 0) -> dict[str, Any]:
    command = [
        sys.executable, Path(__file__).with_name("kill_work.py"), data, folder, model, kills, seed, workers,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def same(folder: Path, steps: int) -> None:
    """The killed run and the other one, and what each step of them saw."""
    whole, cut = folder / "whole", folder / "cut"
    same_run(whole, cut, steps)
    seen = [(run.with_suffix(".trace")).read_text().splitlines() for run in (whole, cut)]
    assert len(seen[0]) == steps < len(seen[1])  # steps after the last checkpoint were done again …
    assert set(seen[0]) == set(seen[1])  # … with the very images, in the very augmentation


def test_a_killed_run_ends_as_if_it_had_not_been(tiny_voc: Path, tmp_path: Path) -> None:
    found = killed(tiny_voc, tmp_path, model="recurrent", kills=7, seed=2)
    assert found["kills"] == 7 and found["leftovers"] == []
    same(tmp_path, found["steps"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kills", "workers"), [("recurrent", 60, 0), ("recurrent", 20, 2), ("published", 20, 0)]
)
def test_a_hundred_kills(
    tiny_voc: Path, tmp_path: Path, model: str, kills: int, workers: int, record_property: Callable[[str, object], None]
) -> None:
    found = killed(tiny_voc, tmp_path, model=model, kills=kills, seed=1, workers=workers)
    record_property("kills", found["kills"])
    record_property("of them inside a checkpoint's write", found["places"]["half"])
    assert found["kills"] == kills and found["leftovers"] == []
    assert found["places"]["half"] > 0 and found["places"]["moment"] > 0
    same(tmp_path, found["steps"])
