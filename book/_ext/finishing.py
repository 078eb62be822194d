"""What the page-mending extensions share: a change of every rendered page, made once all of them are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def each_page(app: Any, error: Exception | None, change: Callable[[str, str], str]) -> None:
    """Rewrite each page of a finished HTML build: `change` takes a page's name, such as `glossary`, and its text."""
    if error is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root).with_suffix("").as_posix()
        if not name.startswith("_static/"):
            text = path.read_text(encoding="utf-8")
            if (changed := change(name, text)) != text:
                path.write_text(changed, encoding="utf-8", newline="\n")
