"""Sphinx extension: adapt docstrings, which are also read in editors, for the pages.

`$…$` and `$$ … $$` become formulas as in the chapters. The fields of named tuples are left out, since the docstring of
their class describes them.
"""

import re
from typing import Any


def formulas(lines: list[str]) -> list[str]:
    """Convert Markdown formulas to reStructuredText."""
    text = re.sub(r"^( *)\$\$(.+?)\$\$", _displayed, "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<![\w$`])\$(?! )([^$\n]+?)(?<! )\$(?!\w)", r":math:`\1`", text).split("\n")


def _displayed(found: re.Match[str]) -> str:
    body = "".join(f"{found[1]}   {line.strip()}\n" for line in found[2].strip().splitlines())
    return f"{found[1]}.. math::\n\n{body}"


def _process(*arguments: Any) -> None:
    lines = arguments[-1]
    lines[:] = formulas(lines)


def _skip(app: Any, what: str, name: str, member: object, skip: bool, options: Any) -> bool | None:
    # Each field has an automatic docstring, "Alias for field number 0": noise, and a duplicate definition.
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
