"""Sphinx extension: what the tests behind each promise found, a table for `promises`; `book/promises.py` runs them.

`{{ promises_table }}` and `{{ promises_origin }}` stand for the table and for when and where they ran.
"""

from typing import Any

from measured import place, substitute


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
    seconds = sum(row.get("seconds", 0) for row in result["promises"].values())
    return f"`python book/promises.py` ran them {place(result)}, in {seconds / 60:.0f} minutes."


def setup(app: Any) -> dict[str, bool]:
    return substitute(app, "promises", table, origin, "Not run yet: `python book/promises.py`.")
