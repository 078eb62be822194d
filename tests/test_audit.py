"""The audit never passes in silence: not without an answer, not with a fault that nobody has explained."""

import subprocess
from pathlib import Path
from typing import Any

import audit
import pytest
import yaml
from audit import ask, report

ROOT = Path(__file__).resolve().parent.parent
SOUND = {"name": "sound", "version": "1", "vulns": []}
FAULTY = {"name": "torch", "version": "2", "vulns": [{"id": "F-1", "aliases": ["CVE-9"], "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("packages", "explained", "code", "word"),
    [
        ([SOUND], {}, 0, "1 versions looked up, 0 known faults"),
        ([SOUND, FAULTY], {}, 1, "torch 2: F-1, mended in 3: NOT EXPLAINED"),
        ([SOUND, FAULTY], {"CVE-9": "harmless"}, 0, "torch 2: F-1, mended in 3: harmless"),
        ([SOUND], {"CVE-9": "harmless"}, 1, "CVE-9: explained, and no longer there"),
        (
            [SOUND, {"name": "lost", "skip_reason": "unknown"}],
            {},
            2,
            "1 of 2 versions were not looked up: lost (unknown)",
        ),
        ([FAULTY, {"name": "lost", "skip_reason": "unknown"}], {}, 2, "torch 2: F-1, mended in 3: NOT EXPLAINED"),
        ([], {}, 2, "nothing was looked up"),
    ],
)
def test_what_is_said(packages: list[dict[str, Any]], explained: dict[str, str], code: int, word: str) -> None:
    lines, found = report({"dependencies": packages}, explained)
    assert found == code and word in "\n".join(lines)


def test_no_network_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(stdout: str, stderr: str) -> None:
        done = subprocess.CompletedProcess([], 1, stdout, stderr)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    for stdout, stderr, word in (
        ("", "a\nConnectionError: no route\n", "no route"),
        ("", "", "exit code 1"),
        ("3", "", "network"),
    ):
        run(stdout, stderr)
        lines, code = report(ask(Path("constraints.txt")), {})
        assert code == 2 and len(lines) == 1 and word in lines[0]


def test_no_tool_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "TOOL", ["no-such-tool"])
    assert report(ask(Path("constraints.txt")), {})[1] == 2


def test_it_is_a_step_of_its_own_in_ci() -> None:
    steps = []
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
        found = [step for job in jobs.values() for step in job.get("steps", ())]  # a job may be another workflow
        steps += [step.get("run", "") for step in found]
        assert not any(step.get("continue-on-error") for step in found)
    assert any("tests/audit.py" in step for step in steps)
    assert any("make reproducible" in step for step in steps)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "audit" not in makefile.split("\ntest:")[1].split("\n\n")[0]  # make test needs no network
