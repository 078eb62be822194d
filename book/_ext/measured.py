"""What the extensions share that put a result file of `data/results` into a page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tell = Callable[[dict[str, Any]], str]
RESULTS = Path(__file__).resolve().parent.parent.parent / "data" / "results"


def place(result: dict[str, Any]) -> str:
    """When and where a result was measured, as the end of a sentence."""
    machine = result["hardware"]
    changed = " with changes" if result.get("uncommitted_changes") else ""
    commit = f"at commit `{result['commit'][:12]}`{changed}" if result.get("commit") else "at no known commit"
    return f"on {result['date']}, {commit}, on {machine['cores']} cores of {machine['cpu']}"


def substitute(app: Any, name: str, table: Tell, origin: Tell, missing: str) -> dict[str, bool]:
    """Set up an extension: `{{ NAME_table }}` and `{{ NAME_origin }}` stand for what it says of NAME.json.

    Args:
        app: Sphinx.
        name: of the result.
        table: the result as a Markdown table.
        origin: how it was measured, in a sentence.
        missing: what the page says where there is no such result yet.
    """

    def before_reading(app: Any, config: Any) -> None:
        said = {f"{name}_table": missing, f"{name}_origin": ""}
        file = RESULTS / f"{name}.json"
        if file.is_file():
            result = json.loads(file.read_text(encoding="utf-8"))
            said = {f"{name}_table": table(result), f"{name}_origin": origin(result)}
        config.myst_substitutions = {**config.myst_substitutions, **said}

    app.connect("config-inited", before_reading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
