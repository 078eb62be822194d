"""Sphinx extension: how heavy and fast the pages are, a table for `about_the_pages`; `make measure-book` measures.

`{{ pages_table }}` and `{{ pages_origin }}` stand for the table and for how it was measured.
"""

from typing import Any

from measured import place, substitute


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
    return (
        f"`{result['command']}` measured this {place(result)}: "
        f"each time is the median of {result['rounds']} openings with an empty cache, and a page is "
        f"interactive once no task has held it for 50 ms during {result['quiet_ms'] / 1000:g} s."
    )


def setup(app: Any) -> dict[str, bool]:
    return substitute(app, "pages", table, origin, "Not measured yet: `make measure-book`.")
