"""Sphinx extension: the theme's pages without what this book has no use for, and without scripts in attributes.

Left out are Thebe, which would run cells on a server of others, and a script of 1.4 MB that draws each icon a second
time. A Content-Security-Policy forbids `onclick="…"`: `_static/reader.js` listens to the same buttons instead.
"""

import re
from typing import Any

from finishing import each_page

ACTIONS = {"toggleFullScreen()": "fullscreen", "window.print()": "print"}
_ICONS = re.compile(r'\s*<script src="[^"]*/fontawesome/[^"]*\.js[^"]*"></script>')
_LIST_BESIDE = re.compile(r"</li>(\s*<ul>)")  # the list of modules sets a list beside an item, not in it
_LIST_ENDS = re.compile(r"</ul>(?=\s*(?:<li>|</ul>))")
_VIEWPORT = re.compile(r'<meta name="viewport"[^>]*>')


def mended(page: str) -> str:
    """The text of a page, mended; mending it again changes nothing."""
    page = _ICONS.sub("", page)
    for script, action in ACTIONS.items():
        page = page.replace(f'onclick="{script}"', f'type="button" data-reader-action="{action}"')
    page = page.replace('role="doc-biblioentry"', 'role="listitem"')  # in a list, which takes no other
    page = _LIST_ENDS.sub("</ul></li>", _LIST_BESIDE.sub(r"\1", page))
    first = _VIEWPORT.search(page)  # the theme, Sphinx and docutils each write one
    return page[: first.end()] + _VIEWPORT.sub("", page[first.end() :]) if first else page


def _without_thebe(app: Any, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    for kind in ("script_files", "css_files"):
        kept: list[Any] = []
        for file in context.get(kind, []):
            said = f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {}).get('body', '')}"
            if "thebe" not in said.lower() and file not in kept:
                kept.append(file)
        context[kind] = kept


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", _without_thebe, priority=900)
    app.connect("build-finished", lambda app, error: each_page(app, error, lambda name, page: mended(page)), 400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
