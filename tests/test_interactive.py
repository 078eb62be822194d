"""The interactive figures: each chapter has one, readable without JavaScript, and no other server is contacted."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import browse

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
MODULES = BOOK / "_figures" / "figures"
SHARED = {"page", "kit", "chart", "classes"}
FIGURES = sorted({path.stem for path in MODULES.glob("*.mjs")} - SHARED)
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
# No inline script, no inline style, nothing from elsewhere.
STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"


def places(chapter: Path) -> list[tuple[str, str]]:
    """Name and words of each figure of a chapter."""
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.findall(r'<div data-figure="([^"]*)">\n\n(.*?)\n\n</div>', text, re.DOTALL)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_has_a_figure_told_in_words(chapter: Path) -> None:
    found = places(chapter)
    assert found, "a Markdown cell with <div data-figure=…>, as in the other chapters"
    for name, words in found:
        assert name in FIGURES
        assert "<p data-figure-note>" in words, "says that the figure is elsewhere; the page removes it"
        described = words.split("</p>")[1]
        assert len(described.split()) >= 40, "what the figure shows, for those who cannot see or use it"


def test_no_figure_is_shown_twice() -> None:
    shown = [name for chapter in CHAPTERS for name, _ in places(chapter)]
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("module", sorted(MODULES.glob("*.mjs")), ids=lambda path: path.stem)
def test_modules_are_small_and_import_their_neighbours_alone(module: Path) -> None:
    source = module.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 150
    assert all(re.fullmatch(r"\./\w+\.mjs", path) for path in re.findall(r"from '([^']+)'", source))
    assert re.findall(r"https?://[^'\s]+", source) in ([], ["http://www.w3.org/2000/svg"])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser finds on a page with every figure, after each control was moved to several values."""
    root = tmp_path_factory.mktemp("page")
    shutil.copytree(MODULES, root / "figures")
    shutil.copyfile(Path(__file__).with_name("figures_page.mjs"), root / "harness.mjs")
    described = "<p data-figure-note><em>elsewhere</em></p><p>What the figure shows, in words.</p>"
    divisions = "".join(f'<div data-figure="{name}">{described}</div>' for name in FIGURES)
    style = '<link rel="stylesheet" href="figures/figures.css">'
    script = '<script type="module" src="harness.mjs"></script>'
    (root / "index.html").write_text(f'<!doctype html><html lang="en"><meta charset="utf-8">{style}{divisions}{script}')
    return browse(root, tmp_path_factory.mktemp("profile"), STRICT)


def test_figures_ask_no_one_and_break_no_policy(report: dict[str, Any]) -> None:
    assert report["errors"] == [] and report["violations"] == []
    assert len(report["asked"]) > len(FIGURES)
    assert all(name.startswith("http://127.0.0.1:") for name in report["asked"])


def test_figures_can_be_used_and_read(report: dict[str, Any]) -> None:
    assert sorted(report["figures"]) == FIGURES
    for name, figure in report["figures"].items():
        assert figure["controls"] >= 2 and not figure["unlabelled"] and not figure["silent"], name
        assert figure["group"] and figure["drawings"] and all(figure["drawings"]), f"{name}: a name for each drawing"
        assert len(figure["said"]) > figure["controls"], f"{name}: what the controls do is said in words"
        assert not figure["note"] and figure["words"] > 20, f"{name}: the words stay, the note goes"
        assert figure["odd"] == [], f"{name}: inline styles or handlers, or numbers that are none"
        assert report["heard"][name], f"{name}: a screen reader hears the last sentence"


def test_the_mask_can_be_dragged(report: dict[str, Any]) -> None:
    dragged, released, later = report["places"]
    assert 0 < dragged < 10 and dragged == released == later
