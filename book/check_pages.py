"""Check the rendered pages: images have alt text, internal links work, tables are rendered.

`--external` lists the external links instead; they are not followed, so no network is needed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent / "_build" / "html"
MADE_BY_TOOLS = {"genindex.html", "search.html", "py-modindex.html"}


class Page(HTMLParser):
    """The parts of a page to check: links, anchors, images, tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.without_alt: list[str] = []
        self.undrawn: list[str] = []  # tables left as Markdown source
        self.tag = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values, self.tag = dict(attrs), tag
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        self.links += [value for key in ("href", "src") if (value := values.get(key)) and tag != "link"]
        if tag == "img" and not (values.get("alt") or "").strip():
            self.without_alt.append((values.get("src") or "?")[:60])

    def handle_data(self, data: str) -> None:
        if self.tag == "p" and data.lstrip().startswith("| "):
            self.undrawn.append(data.strip()[:60])


def read(root: Path = ROOT) -> dict[Path, Page]:
    """Every page except listings of source code."""
    return {path: Page(path) for path in sorted(root.rglob("*.html")) if not {"_static", "_modules"} & set(path.parts)}


def external(pages: dict[Path, Page]) -> list[str]:
    """Each external address, and the pages that link to it."""
    found: dict[str, set[str]] = {}
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).netloc:
                found.setdefault(link, set()).add(path.stem)
    return [f"{link}: {', '.join(sorted(names))}" for link, names in sorted(found.items())]


def problems(pages: dict[Path, Page]) -> list[str]:
    found = [f"{path.name}: no alt text: {source}" for path, page in pages.items() for source in page.without_alt]
    found += [
        f"{path.name}: a table that was not drawn: {text}" for path, page in pages.items() for text in page.undrawn
    ]
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name in MADE_BY_TOOLS:
                continue  # external links are not checked
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{path.name}: leads nowhere: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{path.name}: no such anchor: {link}")
    return sorted(set(found))


if __name__ == "__main__":
    if sys.argv[1:] == ["--external"]:
        print("\n".join(external(read())))
        raise SystemExit(0)
    wrong = problems(read())
    print("\n".join(wrong) or "every image has an alt text, every link leads somewhere, every table is drawn")
    raise SystemExit(bool(wrong))
