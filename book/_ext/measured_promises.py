"""Sphinx extension: what the tests behind each promise found, a table for `promises`; `book/promises.py` runs them.

`{{ promises_table }}` and `{{ promises_origin }}` stand for the table and for when and where they ran.
"""

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent.parent.parent / "data" / "results" / "promises.json"


def table(result: dict[str, Any]) -> str:
    """Each promise, the tests that show it and what they found, as a Markdown table."""
    lines = ["| promise | shown by | found |", "|---|---|---|"]
    for promise, row in result["promises"].items():
        tests = ", ".join(f"`{test.replace('::', ' › ')}`" for test in row["tests"])
        lines.append(f"| {promise} | {tests} | {found(row)} |")
    return "\n".join(lines)


def found(row: dict[str, Any]) -> str:
    """One row's outcome in words."""
    if row["passed"] is None:
        return "not run yet"
    counts = [f"{row['passed']:,} test{'s' * (row['passed'] != 1)} passed"]
    counts += [f"**{row[kind]:,} {kind}**" for kind in ("failed", "skipped") if row[kind]]
    figures = [
        f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}" for name, value in row["figures"].items()
    ]
    return "; ".join(counts + figures)


def origin(result: dict[str, Any]) -> str:
    """When and where the tests ran, in a sentence."""
    machine = result["hardware"]
    changed = " with changes" if result.get("uncommitted_changes") else ""
    commit = f"at commit `{result['commit'][:12]}`{changed}" if result.get("commit") else "at no known commit"
    seconds = sum(row.get("seconds", 0) for row in result["promises"].values())
    return (
        f"`python book/promises.py` ran them on {result['date']}, {commit}, on {machine['cores']} cores of "
        f"{machine['cpu']}, in {seconds / 60:.0f} minutes."
    )


def _substitute(app: Any, config: Any) -> None:
    if RESULT.is_file():
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        said = {"promises_table": table(result), "promises_origin": origin(result)}
    else:
        said = {"promises_table": "Not run yet: `python book/promises.py`.", "promises_origin": ""}
    config.myst_substitutions = {**config.myst_substitutions, **said}


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", _substitute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
