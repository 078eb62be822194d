"""Ask which versions of constraints.txt have known faults: `make audit`. It needs the network, and says so without it.

Exit code 0: every version was looked up, and what is known of it stands in `EXPLAINED`; 1: a fault that is not
explained, or an explanation that no fault needs any more; 2: nothing, or not everything, could be looked up.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Known faults that are let pass: number → why it harms nobody who uses recseg or reads its book.
EXPLAINED: dict[str, str] = {}
SHOWN = 3  # packages that are named where many could not be looked up
TOOL = ["uv", "tool", "run", "pip-audit"]
OPTIONS = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]


def ask(requirements: Path) -> dict[str, Any] | str:
    """The answer of pip-audit for exact versions; a line of text where there is none."""
    beside = Path(sys.executable).with_name(TOOL[0])
    program = str(beside) if beside.exists() else shutil.which(TOOL[0])
    if program is None:
        return "uv is not installed: pip install uv"
    command = [program, *TOOL[1:], "--requirement", str(requirements), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return f"pip-audit gave no answer ({said[-1] if said else f'exit code {done.returncode}'}); is there a network?"
    return answer


def report(answer: dict[str, Any] | str, explained: dict[str, str]) -> tuple[list[str], int]:
    """What to print, and the exit code."""
    if isinstance(answer, str):
        return [f"audit: nothing was looked up: {answer}"], 2
    packages = answer.get("dependencies", [])
    if not packages:
        return ["audit: nothing was looked up: the answer names no package"], 2
    skipped = [package for package in packages if "skip_reason" in package]
    lines, code, met = [], 0, set()
    for package in packages:
        for fault in package.get("vulns", []):
            numbers = {fault["id"], *fault.get("aliases", [])}
            met |= numbers
            reason = next((explained[number] for number in sorted(numbers) if number in explained), None)
            fixed = ", ".join(fault.get("fix_versions", [])) or "no version"
            lines.append(f"audit: {package['name']} {package['version']}: {fault['id']}, mended in {fixed}: "
                         f"{reason or 'NOT EXPLAINED'}")  # fmt: skip
            code |= reason is None
    if skipped:  # the faults that were found all the same stand above
        names = ", ".join(package["name"] for package in skipped[:SHOWN]) + (" …" if len(skipped) > SHOWN else "")
        lines.append(f"audit: {len(skipped)} of {len(packages)} versions were not looked up: {names} "
                     f"({skipped[0]['skip_reason']})")  # fmt: skip
        return lines, 2
    idle = sorted(explained.keys() - met)
    lines += [f"audit: {number}: explained, and no longer there" for number in idle]
    lines.append(f"audit: {len(packages)} versions looked up, {len(lines) - len(idle)} known faults")
    return lines, int(code or bool(idle))


if __name__ == "__main__":
    printed, status = report(ask(ROOT / "constraints.txt"), EXPLAINED)
    print("\n".join(printed))
    raise SystemExit(status)
