"""The chapters as files: thin, without outputs, readable by everyone, and saying no number that was not computed."""

import json
import re
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from prose import BOOK, CHAPTERS, prose, without_blocks, without_code

ROOT = Path(__file__).resolve().parent.parent
LONGEST_CELL = 15

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


@cache
def cells(chapter: Path, kind: str | None = None) -> list[dict[str, Any]]:
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def test_chapters_are_numbered_in_order() -> None:
    numbers = [int(chapter.name[:2]) for chapter in CHAPTERS]
    assert numbers == list(range(1, 16))


@pytest.mark.parametrize("forward", sorted((BOOK / "_forwards").glob("*.html")), ids=lambda path: path.stem)
def test_an_old_address_leads_to_its_chapter(forward: Path) -> None:
    text = forward.read_text(encoding="utf-8")
    leads = re.search(r'content="0; url=(.+)\.html"', text)
    link = re.search(r'<a href="(.+)\.html">(.+)</a>', text)
    assert leads and link and leads[1] == link[1]
    assert forward.stem[3:] == link[1][3:], "the same chapter under another number"
    assert forward.stem not in {chapter.stem for chapter in CHAPTERS}
    assert cells(BOOK / f"{link[1]}.ipynb")[0]["source"].startswith(f"# {link[2]}\n")


def test_contents_list_every_page() -> None:
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    listed = [contents["root"], *(page["file"] for part in contents["parts"] for page in part["chapters"])]
    assert sorted(listed) == sorted(path.stem for path in [*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")])


def test_reference_covers_every_module() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in BOOK.glob("api*.md"))
    described = set(re.findall(r"automodule:: (recseg[\w.]*)", pages))
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "recseg").rglob("*.py")
    }
    # Packages that only hold modules: their one line says what is in them.
    names = ("models", "training", "inference", "evaluation", "export", "viz", "weights", "benchmark", "book", "report")
    shelves = {f"recseg.{name}" for name in names}
    # Described as commands.
    doors = {name for name in modules if name == "recseg" or f"{name}.".startswith("recseg.cli.")}
    # Parts of recseg.data.pictograms, each too much for a page.
    drawings = {name for name in modules if name.startswith("recseg.data.pictograms.")}
    # Parts of recseg.book.exercises: a chapter's checkers each, and what they share.
    checkers = {name for name in modules if name.startswith("recseg.book.exercises.")}
    assert modules - shelves - doors - drawings - checkers == described


@each_chapter
def test_no_outputs_are_stored(chapter: Path) -> None:
    for cell in cells(chapter, "code"):
        assert not cell["outputs"] and cell["execution_count"] is None, "make format strips them"


@each_chapter
def test_every_cell_has_an_identity(chapter: Path) -> None:
    identities = [cell.get("id") for cell in cells(chapter)]
    assert None not in identities and len(set(identities)) == len(identities)


@each_chapter
def test_cells_are_thin(chapter: Path) -> None:
    for cell in cells(chapter, "code"):
        code = [line for line in cell["source"].splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(code) <= LONGEST_CELL, f"{len(code)} lines, starting with {code[0]!r}: longer code belongs in recseg"


@each_chapter
def test_first_cell_installs_the_package_and_not_torch(chapter: Path) -> None:
    with open(ROOT / "pyproject.toml", "rb") as stream:
        address = tomllib.load(stream)["project"]["urls"]["Repository"]
    first = cells(chapter, "code")[0]["source"]
    assert first.startswith("try:\n    import recseg\nexcept ImportError:")
    assert f"git+{address}" in first and "recseg[notebook" in first
    assert first.endswith("\n    import recseg"), "where it had to be installed, it has not been imported"
    assert "torch" not in first.replace("Colab's own torch", "")


@each_chapter
def test_prose_reads_well_in_every_notebook_program(chapter: Path) -> None:
    """Jupyter and Colab know neither roles nor directives nor targets: they would show them as they are typed."""
    text = without_blocks(prose(chapter))
    assert not re.findall(r"\{[a-z:]+\}`|^:::.*|^\([\w-]+\)=$", text, re.MULTILINE)
    assert not re.findall(r"^ *(?:`{3,}|~{3,})\{.*", prose(chapter), re.MULTILINE)


@each_chapter
def test_links_to_pages_say_their_titles(chapter: Path) -> None:
    for found, page in re.findall(r"\[([^\]]+)\]\(([\w/]+\.(?:ipynb|md))\)", prose(chapter)):
        title = re.search(r"^# (.+)$", prose(BOOK / page), re.MULTILINE)
        words = re.sub(r"\s+", " ", found)
        assert title and (words == title[1] or re.match(r"[Cc]hapter \d|[\da-z]", words)), words


@each_chapter
def test_frame_of_a_chapter(chapter: Path) -> None:
    text = prose(chapter)
    assert re.match(r"# \S", cells(chapter)[0]["source"]), "a chapter starts with its title"
    assert len(re.findall(r"^# ", re.sub(r"```[\s\S]*?```", "", text), re.MULTILINE)) == 1, "one title"
    assert "> **What you will learn**\n>\n> - " in text
    for part in ("What can go wrong", "Summary", "Exercises"):
        assert re.search(rf"^## {part}\b", text, re.MULTILINE), f"no section {part!r}"
    assert re.search(r"`recseg(\.\w+)+`|\]\(api\.md\)", text), "name its module: it becomes a link"


@each_chapter
def test_a_picture_stands_on_the_first_screen(chapter: Path) -> None:
    opening = "\n".join(cell["source"] for cell in cells(chapter)[:6])
    assert re.search(r"!\[|\{figure\}|\{image\}|show\(|<img", opening)


@each_chapter
def test_figures_are_numbered_in_order(chapter: Path) -> None:
    captions = re.findall(r"^\*\*Figure (\d+\.\d+)\.\*\*", prose(chapter), re.MULTILINE)
    assert captions == [f"{int(chapter.name[:2])}.{k}" for k in range(1, len(captions) + 1)]


def test_figures_that_are_named_are_there() -> None:
    captions = {n for chapter in CHAPTERS for n in re.findall(r"\*\*Figure (\d+\.\d+)\.\*\*", prose(chapter))}
    named = {n for chapter in CHAPTERS for n in re.findall(r"[Ff]igure\s+(\d+\.\d+)", prose(chapter))}
    assert captions and not named - captions


@each_chapter
def test_exercises_have_folded_solutions(chapter: Path) -> None:
    folded: list[str] = []  # of each exercise, what holds its solution
    for cell in cells(chapter):
        if cell["cell_type"] == "markdown":
            before, *exercises = re.split(r"\*\*Exercise \d+\.\*\*", cell["source"])
            assert not folded or "<details" not in before, "a solution stands in the cell of its exercise"
            folded += ["text" if "<details" in exercise else "" for exercise in exercises]
        elif "solution" in cell["metadata"].get("tags", []):
            folded[-1] += "code"
    assert len(folded) >= 5, "from quick to open"
    assert all(folded), f"exercise {folded.index('') + 1} has no solution"


@each_chapter
def test_exercises_are_numbered_in_order(chapter: Path) -> None:
    numbers = re.findall(r"\*\*Exercise (\d+)\.\*\*", prose(chapter))
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


class _Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.without_alt: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img" and not (dict(attrs).get("alt") or "").strip():
            self.without_alt.append(dict(attrs).get("src") or "?")


@each_chapter
def test_pictures_in_prose_have_alt_text(chapter: Path) -> None:
    text = prose(chapter)
    assert not re.findall(r"!\[\s*\]\(", text), "![what it shows](…)"
    for directive in re.findall(r"```\{(?:figure|image)\}[\s\S]*?```", text):
        assert re.search(r"^:alt: \S", directive, re.MULTILINE), directive
    images = _Images()
    images.feed(text)
    assert not images.without_alt


@each_chapter
def test_plots_have_alt_text(chapter: Path) -> None:
    for cell in cells(chapter, "code"):
        source = cell["source"]
        assert not re.search(r"plt\.show\(|^\s*display\(", source, re.MULTILINE), (
            "recseg.viz.plotting.show(figure, alt=…)"
        )
        for call in re.finditer(r"(?<![\w.])(?:plotting\.)?show\(", source):
            assert "alt=" in source[call.start() :] or source[call.start() :].count(",") >= 1, source
        # A figure of pyplot shows itself at the end of a cell, without a word; one of `new_figure` has to be shown.
        drawn = re.search(r"\bplt\.|\bpyplot\.", source)
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
        assert not drawn or alt or "show(" in source or "plt.close" in source, f"a picture without alt text: {source}"


@each_chapter
def test_what_a_loop_prints_stays_beside_what_it_draws(chapter: Path) -> None:
    """The book makes one output of all that a cell prints, ahead of its pictures, unless the cell says otherwise."""
    for cell in cells(chapter, "code"):
        both = all(
            re.search(rf"^ +(?:plotting\.)?{name}\(", cell["source"], re.MULTILINE) for name in ("print", "show")
        )
        merged = cell["metadata"].get("mystnb", {}).get("merge_streams", True)
        assert not (both and merged), cell["source"]


@each_chapter
def test_folded_cells_say_what_is_in_them(chapter: Path) -> None:
    for cell in cells(chapter, "code")[1:]:  # the page leaves out the first, which installs the package on Colab
        if any(tag.startswith("hide") for tag in cell["metadata"].get("tags", [])):
            said = cell["metadata"].get("mystnb", {})
            assert said.get("code_prompt_show") and said.get("code_prompt_hide"), cell["source"]


@each_chapter
def test_no_score_is_typed_into_prose(chapter: Path) -> None:
    text = without_code(prose(chapter))
    typed = re.findall(
        r"[^.\n]*(?:\d+\.\d+ ?%|(?:m?IoU|accuracy|F1|Dice)\s+(?:of|is|was|=|:)\s*(?:about )?(?:\d*\.\d|\d\d))[^.\n]*",
        text,
    )
    assert not typed, f"read it from data/results, or compute it in a cell: {typed}"


@each_chapter
def test_small_scale_is_the_packages_affair(chapter: Path) -> None:
    for cell in cells(chapter, "code"):
        assert "RECSEG_SMALL" not in cell["source"], "recseg.resources.small_mode() knows"


def test_formulas_of_docstrings_become_formulas_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    from docstrings import formulas

    assert formulas(["With $x_t$ and `$HOME`, $5 or $6."]) == ["With :math:`x_t` and `$HOME`, $5 or $6."]
    assert formulas(["  $$ a = b $$", "end"]) == ["  .. math::", "", "     a = b", "", "end"]
