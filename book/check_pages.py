"""Check the rendered pages: every picture has an alt text, and every link within the book leads somewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent / "_build" / "html"
MADE_BY_TOOLS = {"genindex.html", "search.html", "py-modindex.html"}


class Page(HTMLParser):
    """What of a page can be wrong: its links, its anchors, its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.without_alt: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        self.links += [value for key in ("href", "src") if (value := values.get(key)) and tag != "link"]
        if tag == "img" and not (values.get("alt") or "").strip():
            self.without_alt.append((values.get("src") or "?")[:60])


def problems() -> list[str]:
    pages = {path: Page(path) for path in sorted(ROOT.rglob("*.html")) if not {"_static", "_modules"} & set(path.parts)}
    found = [f"{path.name}: no alt text: {source}" for path, page in pages.items() for source in page.without_alt]
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name in MADE_BY_TOOLS:
                continue  # the network is not this check's affair
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{path.name}: leads nowhere: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{path.name}: no such place: {link}")
    return sorted(set(found))


if __name__ == "__main__":
    wrong = problems()
    print("\n".join(wrong) or "every picture has an alt text, every link within the book leads somewhere")
    raise SystemExit(bool(wrong))
