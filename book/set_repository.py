"""Set the repository's address everywhere: `make repository URL=https://github.com/OWNER/NAME`.

The address is defined in pyproject.toml, `[project.urls]`. Every other place that must spell it out (pages, badges,
first cells) is listed here, and a test checks them. `--check` only compares.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+?")
# Each pattern has one group, at the place of OWNER/NAME.
SLUG = r"([\w.-]+/[\w-]+(?:\.[\w-]+)*?)"
END = r"(?=[\s\\\"'`@]|$)"
CLONE, INSTALL = rf"git clone https://github\.com/{SLUG}{END}", rf"git\+https://github\.com/{SLUG}{END}"
HUB = rf'torch\.hub\.load\("{SLUG}"'
PAGES = r"https://([\w-]+\.github\.io/[\w.-]+)/"  # where GitHub Pages shows the book
COLAB = rf"colab\.research\.google\.com/github/{SLUG}/blob/"
PLACES = {
    "pyproject.toml": [rf'Repository = "https://github\.com/{SLUG}"'],
    "_config.yml": [rf'  url: "https://github\.com/{SLUG}"', PAGES],
    "CITATION.cff": [rf'repository-code: "https://github\.com/{SLUG}"'],
    "*.md": [CLONE, INSTALL, COLAB, HUB, PAGES],
    "hubconf.py": [HUB],
    "book/*.md": [CLONE, INSTALL, COLAB],
    "book/*.ipynb": [CLONE, INSTALL, COLAB],
}


def address() -> str:
    """The address in pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as stream:
        return str(tomllib.load(stream)["project"]["urls"]["Repository"])


def differences(slug: str) -> list[str]:
    """Places that name another repository than `slug` ("OWNER/NAME")."""
    return [
        f"{path.relative_to(ROOT)}: {found}"
        for path, pattern in _places()
        for found in re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
        if found not in {slug, _page(slug)}
    ]


def rewrite(slug: str) -> list[Path]:
    """Write `slug` to every place; returns the files that changed."""
    changed = []
    for path, pattern in _places():
        before = path.read_text(encoding="utf-8")
        place = _page(slug) if pattern == PAGES else slug
        after = before
        for found in re.finditer(pattern, before, re.MULTILINE):
            after = after.replace(found[0], found[0].replace(found[1], place))
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return sorted(set(changed))


def _page(slug: str) -> str:
    return slug.replace("/", ".github.io/")


def _places() -> list[tuple[Path, str]]:
    return [(path, p) for glob, patterns in PLACES.items() for path in sorted(ROOT.glob(glob)) for p in patterns]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        wrong = differences(address().removeprefix("https://github.com/"))
        print("\n".join(wrong) or f"every place names {address()}")
        return bool(wrong)
    url = arguments[0].rstrip("/").removesuffix(".git") if arguments else ""
    if len(arguments) != 1 or not ADDRESS.fullmatch(url):
        print("expected one address like https://github.com/OWNER/NAME: make repository URL=…", file=sys.stderr)
        return 2
    changed = rewrite(url.removeprefix("https://github.com/"))
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(changed)} files changed; every place names {url}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
