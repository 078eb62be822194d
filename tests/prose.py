"""The book's prose, apart from its code and its formulas, for tests that read it."""

import json
import re
from functools import cache
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent / "book"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
FORMULA = re.compile(r"\$\$[\s\S]*?\$\$|(?<![\w$`])\$(?! )[^$\n]+?(?<! )\$(?!\w)")


@cache
def prose(path: Path) -> str:
    """The text of a page: of a notebook, its cells of prose."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return "\n\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def without_blocks(text: str) -> str:
    """Without code blocks; the text of directives stays."""
    kept: list[str] = []
    fences: list[tuple[str, bool]] = []  # of the blocks around a line: how each began, and whether it holds text
    for line in text.splitlines():
        fence = re.match(r"\s*(`{3,}|:{3,})(.*)", line)
        if fence and fences and fence[1] == fences[-1][0] and not fence[2].strip():
            fences.pop()
        elif fence and all(is_text for _, is_text in fences):
            is_text = fence[2].strip().startswith(("{", "::")) and not re.search(r"\{(code|raw)", fence[2])
            fences.append((fence[1], is_text))
        elif all(is_text for _, is_text in fences):
            kept.append(line)
    return "\n".join(kept)


def without_code(text: str) -> str:
    """Prose alone: no code blocks, code spans, roles or formulas; the text of directives stays."""
    return re.sub(r"`[^`\n]+`", "", FORMULA.sub("", without_blocks(text)))


def formulas(path: Path) -> list[str]:
    """The formulas of a page."""
    return FORMULA.findall(re.sub(r"`[^`\n]+`", "", without_blocks(prose(path))))
