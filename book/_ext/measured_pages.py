"""Sphinx extension: how heavy and fast the pages are, a table for `about_the_pages`; `make measure-book` measures.

`{{ pages_table }}` and `{{ pages_origin }}` stand for the table and for how it was measured.
"""

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent.parent.parent / "data" / "results" / "pages.json"


def table(result: dict[str, Any]) -> str:
    """The figures of each page, as a Markdown table."""
    lines = [
        "| page | before figures, kB | figures, kB | first paint, ms | interactive, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, page in result["pages"].items():
        sizes = [f"{page[key] / 1000:,.0f}" for key in ("bytes_before_figures", "bytes_of_figures")]
        lines.append(
            f"| `{name.removesuffix('.html')}` | {' | '.join(sizes)} | {page['paint']} | {page['interactive']} |"
        )
    return "\n".join(lines)


def origin(result: dict[str, Any]) -> str:
    """Where, when and how they were measured, in a sentence."""
    machine = result["hardware"]
    changed = " with changes" if result.get("uncommitted_changes") else ""
    commit = f"at commit `{result['commit'][:12]}`{changed}" if result.get("commit") else "at no known commit"
    return (
        f"`{result['command']}` measured this on {result['date']}, {commit}, on {machine['cores']} cores of "
        f"{machine['cpu']}: each time is the median of {result['rounds']} openings with an empty cache, and a page is "
        f"interactive once no task has held it for 50 ms during {result['quiet_ms'] / 1000:g} s."
    )


def _substitute(app: Any, config: Any) -> None:
    if RESULT.is_file():
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        said = {"pages_table": table(result), "pages_origin": origin(result)}
    else:
        said = {"pages_table": "Not measured yet: `make measure-book`.", "pages_origin": ""}
    config.myst_substitutions = {**config.myst_substitutions, **said}


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", _substitute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
