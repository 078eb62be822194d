"""Sphinx extension: remove the CSS rules that nothing in the book uses, about two thirds of them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tinycss2

_WORD = re.compile(r"[\w-]+")
_CLASS = re.compile(r"\.(-?[a-zA-Z_][\w-]*)")
_NOT = re.compile(r":not\([^)]*\)")


def used(sheet: str, words: set[str]) -> str:
    """A style sheet without the rules for classes that occur in no page or script."""
    return str(tinycss2.serialize(_used(tinycss2.parse_stylesheet(sheet, skip_comments=True), words)))


def _used(rules: Iterable[Any], words: set[str]) -> Iterator[Any]:
    for rule in rules:
        if rule.type == "at-rule" and rule.lower_at_keyword == "media":
            rule.content = list(_used(tinycss2.parse_rule_list(rule.content), words))
        elif rule.type == "qualified-rule":
            selectors = _NOT.sub("", tinycss2.serialize(rule.prelude)).split(",")
            if not any(words.issuperset(_CLASS.findall(selector)) for selector in selectors):
                continue
        yield rule


def _finish(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        out = Path(app.outdir)
        texts = (path.read_text(encoding="utf-8") for end in ("html", "*js") for path in out.rglob(f"*.{end}"))
        words = {word for text in texts for word in _WORD.findall(text)}
        for path in (out / "_static").rglob("*.css"):
            path.write_text(used(path.read_text(encoding="utf-8"), words), encoding="utf-8", newline="\n")


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
