"""What is done to a rendered page: a policy that names its scripts, no scripts in attributes, definitions."""

import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book" / "_ext"))
pytest.importorskip("docutils")

import definitions  # noqa: E402
import math_font  # noqa: E402
import measured_pages  # noqa: E402
import plain_chapters  # noqa: E402
import policy  # noqa: E402
import still_widgets  # noqa: E402
import theme_mends  # noqa: E402
import verified  # noqa: E402
from docutils import nodes  # noqa: E402
from finishing import each_page  # noqa: E402

PAGE = """<html><head><meta charset="utf-8" /><script src="a.js"></script>
<script>let a = "é";</script><script type="application/json">{"b": 1}</script></head><body></body></html>"""


def test_a_policy_names_the_scripts_that_run_in_the_page() -> None:
    digest = base64.b64encode(hashlib.sha256('let a = "é";'.encode()).digest()).decode()
    said = policy.policy(PAGE)
    assert f"script-src 'self' 'sha256-{digest}';" in said  # neither the file nor the data
    assert said.startswith("default-src 'self';") and "wasm" not in said and "blob:" not in said
    compiling = policy.policy(PAGE, compiles=True)
    assert f"'sha256-{digest}' 'wasm-unsafe-eval';" in compiling and "img-src 'self' data: blob:" in compiling


def test_a_policy_comes_first_and_once() -> None:
    once = policy.with_policy(PAGE)
    assert once.index("Content-Security-Policy") < once.index("<script")
    assert policy.with_policy(once) == once
    other = policy.with_policy(once.replace("let a", "let b"))
    assert other.count("Content-Security-Policy") == 1 and policy.policy(PAGE) not in other


def test_the_theme_has_no_scripts_in_attributes() -> None:
    page = '<meta name="viewport" content="1"><meta name="viewport" content="2">' + (
        '<script src="_static/vendor/fontawesome/6/js/all.min.js?digest=1"></script><button onclick="window.print()">'
    )
    mended = theme_mends.mended(page)
    assert mended == '<meta name="viewport" content="1"><button type="button" data-reader-action="print">'
    assert theme_mends.mended(mended) == mended


def test_a_list_stands_in_its_item() -> None:
    proper = "<ul><li>a\n<ul><li>a.b</li></ul></li><li>c</li></ul>"
    assert theme_mends.mended('<div role="doc-biblioentry">') == '<div role="listitem">'
    assert theme_mends.mended("<ul><li>a</li>\n<ul><li>a.b</li></ul><li>c</li></ul>") == proper
    assert theme_mends.mended(proper) == proper
    assert theme_mends.mended("<ul><li>a</li><ul><li>a.b</li></ul></ul>") == "<ul><li>a<ul><li>a.b</li></ul></li></ul>"


def test_thebe_is_left_out_and_nothing_comes_twice() -> None:
    said = SimpleNamespace(filename=None, attributes={"body": "var x = 1;"})
    context: dict[str, Any] = {
        "script_files": [
            "a.js",
            said,
            "sphinx-thebe.js",
            said,
            SimpleNamespace(attributes={"body": "const THEBE_JS_URL"}),
        ],
        "css_files": ["sphinx-thebe.css", "b.css"],
    }
    theme_mends._without_thebe(None, "index", "page.html", context, None)
    assert context == {"script_files": ["a.js", said], "css_files": ["b.css"]}


def test_links_to_the_glossary_carry_definitions() -> None:
    item = nodes.definition_list_item()
    item += nodes.term("void", "void", ids=["term-void"])
    item += nodes.definition("", nodes.paragraph("", 'Label 255:\n"doubt" & outlines.'))
    known = definitions.definitions(nodes.definition_list("", item))
    assert known == {"term-void": 'Label 255: "doubt" & outlines.'}
    paragraph = nodes.paragraph("", "The output ", nodes.math("", "h"), nodes.Text(" "))
    paragraph += [
        nodes.inline("", "key2000", refdomain="cite"),
        nodes.Text(": "),
        nodes.math("", "a_t = 1"),
        nodes.Text("."),
    ]
    assert definitions._plain(nodes.definition("", paragraph)) == "The output h."
    link = '<a class="reference internal" href="glossary.html#term-{}"><span class="xref std std-term">x</span></a>'
    page = definitions.with_definitions(link.format("void") + link.format("other"), known)
    assert page.count("data-definition") == 1
    assert 'data-definition="Label 255: &quot;doubt&quot; &amp; outlines."' in page
    assert definitions.with_definitions(page, known) == page


def test_widgets_stand_still() -> None:
    def widget(kind: str, **state: Any) -> dict[str, Any]:
        return {"model_name": f"{kind}Model", "state": state}

    models = {
        "all": widget("VBox", children=["IPY_MODEL_slider", "IPY_MODEL_tab", "IPY_MODEL_choice"]),
        "slider": widget("IntSlider", description="picture:", value=3),
        "choice": widget("Dropdown", description="order", _options_labels=["area", "<b>"], index=1),
        "tab": widget("Tab", children=["IPY_MODEL_one", "IPY_MODEL_two"], titles=["a & b", "two"], selected_index=1),
        "one": widget("HTML", value='<img alt="One" src="data:,">'),
        "two": widget("Label", value="1 < 2"),
    }
    shown = still_widgets.still(models["all"], models)
    assert '<details><summary>a &amp; b</summary><img alt="One" src="data:,"></details>' in shown
    assert "<details open><summary>two</summary><p>1 &lt; 2</p></details>" in shown
    assert "picture: 3; order: &lt;b&gt;" in shown and still_widgets.NOTE in shown
    assert still_widgets.NOTE not in still_widgets.still(models["one"], models)


def test_a_page_says_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "outside a git clone" in verified.commit(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "_config.yml").write_text("a: 1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    made = verified.commit(tmp_path)
    assert made.startswith("commit ") and "not committed" not in made
    (tmp_path / "_config.yml").write_text("a: 2")
    assert verified.commit(tmp_path) == f"{made} with changes that are not committed"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert verified.day() == "1970-01-02"
    assert "Python 3" in verified.versions() and "PyTorch" in verified.versions()


def test_a_chapter_that_was_not_run_is_not_called_verified() -> None:
    assert "erified" not in verified.sentence("x", is_chapter=True, executed=False)
    assert "its code was run on x" in verified.sentence("x", is_chapter=True, executed=True)
    assert "rendered on x" in verified.sentence("x", is_chapter=False, executed=True)


def test_pages_are_rewritten_only_after_a_good_build(tmp_path: Path) -> None:
    (tmp_path / "_static").mkdir()
    for name in ("a.html", "_static/b.html"):
        (tmp_path / name).write_text("old")
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=tmp_path)
    each_page(app, ValueError(), lambda name, page: "new")
    assert (tmp_path / "a.html").read_text() == "old"
    each_page(app, None, lambda name, page: f"new {name}")
    assert (tmp_path / "a.html").read_text() == "new a" and (tmp_path / "_static" / "b.html").read_text() == "old"


def test_measured_pages_stand_in_a_table() -> None:
    page = {"bytes_before_figures": 1_234_567, "bytes_of_figures": 1_000, "paint": 7, "interactive": 8}
    result = {
        "pages": {"a.html": page}, "rounds": 3, "quiet_ms": 2000, "command": "make x", "date": "2000-01-01",
        "commit": None, "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None},
    }  # fmt: skip
    assert measured_pages.table(result).splitlines()[-1] == "| `a` | 1,235 | 1 | 7 | 8 |"
    assert "at no known commit" in measured_pages.origin(result) and "2 cores of a CPU" in measured_pages.origin(result)


def test_formulas_are_drawn_as_they_are_meant() -> None:
    from mathml import to_mathml

    drawn = [
        re.sub(r"\s+", "", to_mathml(formula, block=False)) for formula in (r"\hat m_t", r"\bar p_{t-1}", r"\hat f")
    ]
    assert '<msub><moveraccent="true"><mi>m</mi><mostretchy="false">ˆ</mo></mover><mi>t</mi></msub>' in drawn[0]
    assert '<msub><moveraccent="true"><mi>p</mi><mostretchy="false">ˉ</mo></mover><mrow><mi>t</mi>' in drawn[1]
    assert "<msub>" not in drawn[2] and "<moveraccent" in drawn[2]
    plain = re.sub(r"\s+", "", to_mathml(r"\tfrac12 (\langle l, h \rangle)", block=False))
    assert '<mostretchy="false">⟨</mo>' in plain and '<mostretchy="false">⟩</mo>' in plain
    assert "<mrow><mo>⟨</mo>" in re.sub(r"\s+", "", to_mathml(r"x \left\langle l \right\rangle", block=False))
    half = re.sub(r"\s+", "", to_mathml(r"x > \tfrac12 \in y", block=False))
    assert "<mn>1</mn><mn>2</mn></mfrac><mo>∈</mo>" in half


def test_plain_markdown_becomes_what_a_page_wants() -> None:
    known = {"gate": "gate", "count-accuracy": "count accuracy"}
    for plain, wanted in {
        "its [gates](glossary.md#gate)": "its {term}`gates <gate>`",
        "[count\naccuracy](glossary.md#count-accuracy)": "{term}`count accuracy`",
        "[no word](glossary.md#none)": "[no word](glossary.md#none)",  # MyST then says so
        "([Shi et al. 2015](bibliography.md#shi2015convlstm))": "{cite}`shi2015convlstm`",
        "([A 1](bibliography.md#a1); [B 2](bibliography.md#b2))": "{cite}`a1,b2`",
        "as [Shi et al. (2015)](bibliography.md#shi2015convlstm) do": "as {cite:t}`shi2015convlstm` do",
        "`recseg.models.unet` and `recseg.predict()`": "{py:obj}`recseg.models.unet` and {py:obj}`recseg.predict`",
        "`recseg train`, `predict`, `recseg.check(1)`": "`recseg train`, `predict`, `recseg.check(1)`",
        "```\n`recseg.errors`\n```\n`recseg.errors`": "```\n`recseg.errors`\n```\n{py:obj}`recseg.errors`",
        "> **What you will learn**\n>\n> - this;\n> - that.\n\nText": (
            "```{admonition} What you will learn\n:class: goals\n- this;\n- that.\n```\n\nText"
        ),
        "[Data](06_data.ipynb)": "[Data](06_data.ipynb)",
    }.items():
        assert plain_chapters.to_myst(plain, known) == wanted


def test_the_glossary_names_its_words() -> None:
    found = plain_chapters.terms(Path(__file__).resolve().parent.parent / "book" / "glossary.md")
    assert found["count-accuracy"] == "count accuracy" and found["miou"] == "mIoU" and len(found) > 40


def test_the_font_of_formulas_holds_what_they_use(tmp_path: Path) -> None:
    used = math_font.characters('<p>z</p><math alttext="h"><msqrt><mi>h</mi></msqrt><mo>&lt;</mo><mi>α</mi></math>')
    assert {ord(letter) for letter in "h<α√"} | {0x210E, 0x1D6FC} <= used  # letters, and what browsers draw for them
    assert ord("z") not in used and ord("p") not in used
    if not math_font.SOURCE.is_file():
        pytest.skip("the font is fetched by make book, where npm is at hand")
    from fontTools.ttLib import TTFont

    math_font.write_font(used, tmp_path / "formulas.woff")
    font = TTFont(tmp_path / "formulas.woff")
    assert {0x221A, 0x1D6FC} <= set(font.getBestCmap()) and "MATH" in font and len(font.getGlyphOrder()) < 200
