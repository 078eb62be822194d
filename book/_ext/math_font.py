"""Sphinx extension: formulas in one font on every machine, cut down to the characters that the book's formulas use.

Browsers draw MathML with a mathematical font of the system, and some systems have none: then letters come from several
fonts, and accents and brackets do not grow. STIX Two Math (SIL Open Font License 1.1) is fetched with the live page's
packages (book/live.py); where it is missing, the system's fonts draw.
"""

import html
import re
import shutil
from pathlib import Path
from typing import Any

from finishing import each_page

PACKAGE = Path(__file__).resolve().parent.parent / "_live" / "node_modules" / "@fontsource" / "stix-two-math"
SOURCE = PACKAGE / "files" / "stix-two-math-latin-400-normal.woff"
STYLE = """@font-face { font-family: "Formulas"; src: url("formulas.woff") format("woff"); font-display: swap; }
math { font-family: "Formulas", math; }
"""
_FORMULA = re.compile(r"<math\b.*?</math>", re.DOTALL)


def characters(page: str) -> set[int]:
    """The characters of a page's formulas, and of those the slanted and bold twins that browsers put in their place."""
    used = {
        ord(letter) for formula in _FORMULA.findall(page) for letter in html.unescape(re.sub("<[^>]+>", "", formula))
    }
    twins = {0x210E, 0x221A, 0x2212}  # a slanted h stands apart from its alphabet; roots and minus signs have no letter
    for first, last, starts in (
        (0x41, 0x5A, (0x1D434, 0x1D400)), (0x61, 0x7A, (0x1D44E, 0x1D41A)),  # A to Z, a to z
        (0x391, 0x3A9, (0x1D6E2, 0x1D6A8)), (0x3B1, 0x3C9, (0x1D6FC, 0x1D6C2)),  # Α to Ω, α to ω
    ):  # fmt: skip
        twins |= {start + code - first for code in used if first <= code <= last for start in starts}
    return used | twins


def write_font(used: set[int], path: Path) -> None:
    """The font with these characters, their larger and stretched forms, and its rules for setting formulas."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    options = subset.Options(layout_features=["*"], flavor="woff", name_IDs=[0, 13, 14])  # whose it is, and its terms
    font, cut = TTFont(SOURCE, recalcTimestamp=False), subset.Subsetter(options)
    cut.populate(unicodes=used)
    cut.subset(font)
    font.flavor = "woff"
    font.save(path)


def setup(app: Any) -> dict[str, bool]:
    def begin(app: Any) -> None:
        if SOURCE.is_file():
            app.add_css_file("formulas.css")

    def finish(app: Any, error: Exception | None) -> None:
        used: set[int] = set()

        def collect(name: str, page: str) -> str:
            used.update(characters(page))
            return page

        if not SOURCE.is_file():
            return
        each_page(app, error, collect)
        if not used:  # the build failed, or its pages are no HTML
            return
        static = Path(app.outdir) / "_static"
        write_font(used, static / "formulas.woff")
        shutil.copyfile(PACKAGE / "LICENSE", static / "formulas-LICENSE.txt")
        (static / "formulas.css").write_text(STYLE, encoding="utf-8")

    app.connect("builder-inited", begin)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
