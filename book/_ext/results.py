"""Sphinx extension: `{{ NAME_table }}` shows the result file NAME of `data/results`, `{{ NAME_origin }}` its origin."""

import json
import math
from pathlib import Path
from typing import Any

from recseg.book import finding

RESULTS = Path(__file__).resolve().parent.parent.parent / "data" / "results"
NAMES = ("pages", "promises")
STUDY = "voc-study"  # of `recseg compare`: {{ finding }}, {{ study_table }}, and how long it trained
LONG = "voc-long"  # likewise: {{ longer }}


def table(rows: dict[str, dict[str, Any]], name: str) -> str:
    """Rows with common keys as a Markdown table; `name` is the heading of the column of row names."""
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [[name, *(key.replace("_", " ") for key in keys)], ["---"] * (len(keys) + 1)]
    lines += [[title, *(_cell(row.get(key)) for key in keys)] for title, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "<br>".join(f"{name}: {_cell(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "<br>".join(f"`{one.replace('::', ' › ')}`" for one in value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def origin(result: dict[str, Any]) -> str:
    """When and where a result was measured, as the end of a sentence."""
    commit = f"commit `{result['commit'][:12]}`" if result.get("commit") else "no known commit"
    changed = " with changes" if result.get("uncommitted_changes") else ""
    machine = result["hardware"]
    return f"on {result['date']}, at {commit}{changed}, on {machine['cores']} cores of {machine['cpu']}"


def _before_reading(app: Any, config: Any) -> None:
    found = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in (*NAMES, STUDY, LONG)}
    said = {"finding": finding.sentence(found[STUDY]), "study_table": finding.table(found[STUDY])}
    said["longer"] = finding.longer(found[LONG])
    runs = [run for each in found[STUDY]["runs"].values() for run in each]
    said["study_updates"] = f"{max(run['updates'] for run in runs):,}"
    said["study_minutes"] = str(math.ceil(max(run["seconds"] for run in runs) / 60))
    said |= {f"{name}_table": table(found[name][name], name[:-1]) for name in NAMES}
    said |= {f"{name}_origin": origin(found[name]) for name in NAMES} | {"study_origin": origin(found[STUDY])}
    config.myst_substitutions = {**config.myst_substitutions, **said}


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", _before_reading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
