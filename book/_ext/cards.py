"""Sphinx extension: metadata for search results and link previews: a page's first sentences and first image."""

import html
import re
from typing import Any

from docutils import nodes

_IMAGE = re.compile(r'<img[^>]* src="(_images/[^"]+(?:png|gif|jpeg|webp))"')


def _add(app: Any, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    first = next(doctree.findall(nodes.paragraph), None) if doctree is not None else None
    said = " ".join(first.astext().split()) if first is not None else app.config.html_title
    said = said if len(said) <= 200 else said[:200].rsplit(" ", 1)[0] + " …"  # about as much as searches show
    image = _IMAGE.search(context.get("body") or "")
    base = app.config.html_baseurl  # these links must be absolute
    title = re.sub("<[^>]+>", "", context.get("title", ""))  # the chapter's number is an element
    card = {"description": said, "og:title": title, "og:description": said, "og:type": "article"}
    card["og:image"] = base + (image[1] if image else app.config.cards_image)
    metas = (f'<meta property="{key}" name="{key}" content="{html.escape(text)}">' for key, text in card.items())
    context["metatags"] = context.get("metatags", "") + "\n".join(metas)


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("cards_image", "_static/logo.svg", "html")
    app.connect("html-page-context", _add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
