"""Sphinx extension: convert the plain Markdown of the chapters, which any notebook viewer renders, to MyST.

| A chapter has | its page shows |
|---|---|
| `[gates](glossary.md#gate)` | the word, linked, with its definition |
| `([Shi et al. 2015](bibliography.md#shi2015convlstm))` | a citation in brackets |
| `[Shi et al. (2015)](bibliography.md#shi2015convlstm)` | one in the sentence |
| a name of the package as code, as in `recseg.models.convlstm` | a link to the reference, where that lists the name |
| a quotation that begins with **What you will learn** | the coloured box |

Links to other chapters work as they are. Code cells are not changed, since the outputs cached by
`book/run_chapters.py` are found by them.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

GOALS = "What you will learn"
_FENCE = re.compile(r"(^ *(`{3,}|~{3,}).*?^ *\2 *$)", re.MULTILINE | re.DOTALL)
_TERM = re.compile(r"\[([^\]]+)\]\(glossary\.md#([\w-]+)\)")
_WORK = r"\[[^\]]+\]\(bibliography\.md#(\w+)\)"
_IN_BRACKETS = re.compile(rf"\({_WORK}(?:; {_WORK})*\)")
_NAME = re.compile(r"(?<![`}])`(recseg(?:\.\w+)+)(?:\(\))?`(?!`)")
_GOALS = re.compile(rf"^> \*\*{GOALS}\*\*\n>\n((?:> .*\n?)+)", re.MULTILINE)


@cache
def terms(glossary: Path) -> dict[str, str]:
    """The terms of the glossary by link target: `count accuracy` is count-accuracy."""
    body = glossary.read_text(encoding="utf-8").split("```{glossary}\n")[1].split("```\n")[0]
    return {re.sub(r"\W+", "-", line).lower(): line for line in body.splitlines() if line and not line.startswith(" ")}


def to_myst(text: str, known: Mapping[str, str]) -> str:
    """Convert a Markdown cell to MyST roles and directives; code blocks are not changed."""
    parts = _FENCE.split(text)  # prose, block, its fence, prose, …
    parts[::3] = [_prose(part, known) for part in parts[::3]]
    return "".join(part for place, part in enumerate(parts) if place % 3 != 2)


def _prose(text: str, known: Mapping[str, str]) -> str:
    def goals(found: re.Match[str]) -> str:
        body = re.sub(r"^> ", "", found[1], flags=re.MULTILINE).rstrip("\n")
        return f"```{{admonition}} {GOALS}\n:class: goals\n{body}\n```\n"

    def term(found: re.Match[str]) -> str:
        target = known.get(found[2])  # MyST warns about unknown ones
        return f"{{term}}`{' '.join(found[1].split())} <{target}>`" if target else found[0]

    text = _GOALS.sub(goals, text)
    text = _TERM.sub(term, text)
    text = _IN_BRACKETS.sub(lambda found: f"{{cite}}`{','.join(re.findall(_WORK, found[0]))}`", text)
    text = re.sub(_WORK, r"{cite:t}`\1`", text)
    return _NAME.sub(r"{py:obj}`\1`", text)


def _read(app: Any, docname: str, source: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    known = terms(Path(app.srcdir) / "glossary.md")
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = to_myst("".join(cell["source"]), known)
    source[0] = json.dumps(notebook)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
