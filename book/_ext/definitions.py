"""Sphinx extension: a link to a word of the glossary carries the word's definition, which `_static/reader.js` shows."""

import html
import re
from typing import Any

from docutils import nodes
from finishing import each_page

GLOSSARY = "glossary"
_LINK = re.compile(r'<a class="reference internal" href="([^"#]*)#(term-[^"]*)">(?=<span class="xref std std-term">)')


def definitions(doctree: nodes.document) -> dict[str, str]:
    """The definition of each anchor of a glossary, as plain text."""
    found: dict[str, str] = {}
    for item in doctree.findall(nodes.definition_list_item):
        text = " ".join(map(_plain, item.findall(nodes.definition)))
        for term in item.findall(nodes.term):
            found |= dict.fromkeys(term["ids"], text)
    return found


def _plain(definition: nodes.Element) -> str:
    """The words of a definition, without citations, and without formulas that say more than one letter."""
    copy = definition.deepcopy()
    for node in list(copy.findall(nodes.Element)):
        cites = node.get("refdomain") == "cite" or isinstance(node, nodes.citation_reference)
        if (cites or (isinstance(node, nodes.math) and len(node.astext()) > 1)) and node.parent is not None:
            node.parent.remove(node)
    text = re.sub(r"\s+", " ", copy.astext()).strip()
    return re.sub(r"[:\s]*(?=[.;]$)| (?=[.,;])", "", text)


def with_definitions(page: str, known: dict[str, str]) -> str:
    """The page with a definition at each of its links to the glossary."""

    def add(link: re.Match[str]) -> str:
        text = known.get(link[2])
        return f'{link[0][:-1]} data-definition="{html.escape(text)}">' if text else link[0]

    return _LINK.sub(add, page)


def setup(app: Any) -> dict[str, bool]:
    def finish(app: Any, error: Exception | None) -> None:
        if error is None and GLOSSARY in app.env.found_docs:
            known = definitions(app.env.get_doctree(GLOSSARY))
            each_page(app, error, lambda name, page: with_definitions(page, known) if name != GLOSSARY else page)

    app.connect("build-finished", finish, 500)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
