"""Sphinx extension: docstrings are written for two readers, in an editor and on a page; this serves the page.

`$…$` and `$$ … $$` become formulas as they do in the chapters, and the fields of named tuples, which the docstring of
their class has already described, are left out.
"""

import re
from typing import Any


def formulas(lines: list[str]) -> list[str]:
    """Markdown's formulas as reStructuredText's."""
    text = re.sub(r"^( *)\$\$(.+?)\$\$", _displayed, "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<![\w$`])\$(?! )([^$\n]+?)(?<! )\$(?!\w)", r":math:`\1`", text).split("\n")


def _displayed(found: re.Match[str]) -> str:
    body = "".join(f"{found[1]}   {line.strip()}\n" for line in found[2].strip().splitlines())
    return f"{found[1]}.. math::\n\n{body}"


def _process(*arguments: Any) -> None:
    lines = arguments[-1]
    lines[:] = formulas(lines)


def _skip(app: Any, what: str, name: str, member: object, skip: bool, options: Any) -> bool | None:
    # Each field carries a docstring that Python made, "Alias for field number 0": noise, and a second definition.
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
