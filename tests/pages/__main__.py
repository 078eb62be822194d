"""Check the rendered book in a browser: `make check-book`; `--json FILE` measures their weight and speed instead.

Every page is opened twice, light at the root of a server and dark in a folder of it: no serious finding of axe-core, no
request to anyone else, nothing against the policy, nothing wider than a telephone. Then the pages are used.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accessibility
import behaviour
import chromium
import demo
import layout
import reading
import self_contained
import speed
from server import FOLDER, serving

ROOT = Path(__file__).resolve().parent.parent.parent
FORWARDS = {path.name for path in (ROOT / "book" / "_forwards").glob("*.html")}
THEMES = {"light": "", "dark": FOLDER}
STORE = "localStorage.setItem('mode', '{0}'); localStorage.setItem('theme', '{0}');"


def pages_of(html: Path, only: list[str]) -> list[str]:
    """The pages of a rendered book, as addresses below its root: without parts of the theme, without forwards."""
    found = sorted(path.relative_to(html) for path in html.rglob("*.html") if "_static" not in path.parts)
    found = [path for path in found if path.name not in FORWARDS]
    return [path.as_posix() for path in found if not only or any(part in path.as_posix() for part in only)]


def look(
    browser: chromium.Browser, address: str, name: str, theme: str, axe: str | None, shots: Path | None
) -> list[str]:
    """Open one page in one theme; what is wrong with it."""
    page = browser.page()
    page.before_scripts(self_contained.LISTEN + STORE.format(theme))
    page.size(1400, 900)
    page.open(f"{address}{THEMES[theme]}/{name}")
    if shots:
        page.picture(shots / f"{Path(name).stem}-{theme}.png")
    found = reading.findings(page) if "_modules" not in name else []
    found += accessibility.findings(page, axe) if axe else []
    found += layout.findings(page)
    found += accessibility.findings(page, axe) if axe else []  # what scrolls on a telephone is reached by keys
    if shots:
        page.picture(shots / f"{Path(name).stem}-{theme}-phone.png")
    found += self_contained.findings(page, address)
    page.close()
    return found


def use(browser: chromium.Browser, address: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """Use the pages as a reader does; page and what does not work, or breaks the policy meanwhile."""
    wanted = {
        "02_convlstm.html": behaviour.chapter, "index.html": behaviour.glossary,
        "search.html": behaviour.search, "live.html": demo.live,
    }  # fmt: skip
    for name, check in wanted.items():
        if name in names:
            page = browser.page()
            page.before_scripts(self_contained.LISTEN)
            browser.command(
                "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
                browserContextId=page.context,
            )  # fmt: skip
            page.open(f"{address}{FOLDER}/{name}")
            for wrong in check(page) + self_contained.findings(page, address):
                yield name, wrong
            page.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/pages", description=__doc__)
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the rendered book")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="pages whose name holds one of these")
    parser.add_argument("--json", type=Path, help="measure every page and write the figures there")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of every page")
    given = parser.parse_args()
    if not (given.html / "index.html").is_file():
        print(f"{given.html}: no rendered book; type make book first", file=sys.stderr)
        return 2
    executable = chromium.find()
    if executable is None:
        print(f"skipped: no browser; none of {', '.join(chromium.NAMES)} is installed")
        return 0
    names, wrong = pages_of(given.html, given.only), 0
    with serving(given.html) as address, chromium.Browser(executable) as browser:
        if given.json:
            return measure(browser, address, names, given.html, given.json)
        axe, missing = accessibility.fetch()
        if axe is None:
            print(f"skipped: the accessibility of the pages; {missing}")
        if given.shots:
            given.shots.mkdir(parents=True, exist_ok=True)
        for name in names:
            for theme in THEMES:
                for problem in look(browser, address, name, theme, axe, given.shots):
                    wrong += 1
                    print(f"{name}, {theme}: {problem}", flush=True)
        for name, problem in use(browser, address, names):
            wrong += not problem.partition(": ")[2].startswith("skipped")
            print(f"{name}, in use: {problem}", flush=True)
    print(f"{len(names)} pages in {len(THEMES)} themes: " + (f"{wrong} problems" if wrong else "nothing wrong"))
    return int(wrong > 0)


def measure(browser: chromium.Browser, address: str, names: list[str], html: Path, path: Path) -> int:
    """Measure the pages that a reader reads, and write the result; 1 where one is too heavy or slow."""
    from recseg.evaluation.results import write_result

    result: dict[str, Any] = {}
    for name in names:
        if "/" not in name:  # not the listings of source code
            before, figures = speed.weigh(browser, f"{address}/{name}", html / name)
            result[name] = {"bytes_before_figures": before, "bytes_of_figures": figures}
            result[name] |= speed.measure(browser, f"{address}/{name}")
            if name == "live.html":
                page = browser.page()
                page.before_scripts(demo.WATCH)
                page.open(f"{address}/{name}")
                result[name] |= demo.measure(page)
                page.close()
            print(name, result[name], flush=True)
    details = {
        "rounds": speed.ROUNDS,
        "quiet_ms": speed.QUIET,
        "limit_bytes": speed.HEAVIEST,
        "limit_whole": speed.HEAVIEST_WHOLE,
    }
    write_result(path, {"pages": result}, command="make measure-book", **details)
    heavy = [
        name
        for name, page in result.items()
        if page["bytes_before_figures"] > speed.HEAVIEST
        or page["bytes_before_figures"] + page["bytes_of_figures"] > speed.HEAVIEST_WHOLE
    ]
    for name in heavy:
        print(f"{name}: more than {speed.HEAVIEST} bytes before its figures, or {speed.HEAVIEST_WHOLE} with them")
    late = [name for name, page in result.items() if page.get("first_live_step", 0) > demo.SLOWEST]
    for name in late:
        print(f"{name}: more than {demo.SLOWEST} ms to the network's first step")
    return int(bool(heavy or late))


if __name__ == "__main__":
    raise SystemExit(main())
