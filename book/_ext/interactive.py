"""Sphinx extension: pages that hold a figure to play with load the modules that draw it; other pages load nothing.

A figure's place is `<div data-figure="NAME">` in the Markdown of a page, with the figure told in words inside. So it is
read as it stands in Jupyter, in Colab and without JavaScript; book/_figures/figures/NAME.mjs adds the rest.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.util import logging

_logger = logging.getLogger(__name__)
_PLACE = re.compile(r'<div data-figure="([^"]*)">')


def figures_of(doctree: nodes.document) -> list[str]:
    """Names of the figures that a page holds."""
    return [name for node in doctree.findall(nodes.raw) for name in _PLACE.findall(node.astext())]


def _add_modules(app: Any, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    names = figures_of(doctree) if doctree is not None else []
    known = {path.stem for folder in app.config.html_extra_path for path in (app.srcdir / folder).glob("figures/*.mjs")}
    for name in sorted({*names} - known):
        _logger.warning("no figure %r: expected book/_figures/figures/%s.mjs", name, name, location=page)
    if names:
        script, style = (context["pathto"](f"figures/{file}", 1) for file in ("page.mjs", "figures.css"))
        context["metatags"] = context.get("metatags", "") + (
            f'<link rel="stylesheet" href="{style}"><script type="module" src="{script}"></script>\n'
        )


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", _add_modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
