"""What the book's own extensions do to a page: a policy that names its scripts, images as files, results."""

import base64
import hashlib
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book" / "_ext"))
pytest.importorskip("docutils")

import cards  # noqa: E402
import images  # noqa: E402
import plain_chapters  # noqa: E402
import policy  # noqa: E402
import results  # noqa: E402
import still_widgets  # noqa: E402
import styles  # noqa: E402
import verified  # noqa: E402
from docutils import nodes  # noqa: E402
from PIL import Image  # noqa: E402

PAGE = """<html><head><meta charset="utf-8" /><script src="a.js"></script>
<script data-cfasync="false">let a = "é";</script><script type="application/json">{"b": 1}</script></head>
<body></body></html>"""


def test_a_policy_names_the_scripts_that_run_in_the_page() -> None:
    digest = base64.b64encode(hashlib.sha256('let a = "é";'.encode()).digest()).decode()
    said = policy.policy(PAGE)
    assert f"script-src 'self' 'sha256-{digest}';" in said  # neither the file nor the data
    assert said.startswith("default-src 'self';") and "wasm" not in said and "blob:" not in said
    compiling = policy.policy(PAGE, compiles=True)
    assert f"'sha256-{digest}' 'wasm-unsafe-eval';" in compiling and "img-src 'self' data: blob:" in compiling


def test_a_page_says_what_it_is_made_of(tmp_path: Path) -> None:
    assert "outside a git clone" in verified.commit(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    (tmp_path / "_config.yml").write_text("a: 1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    made = verified.commit(tmp_path)
    assert made.startswith("commit ") and "not committed" not in made
    (tmp_path / "_config.yml").write_text("a: 2")
    assert verified.commit(tmp_path) == f"{made} with changes that are not committed"


def test_plain_markdown_becomes_what_a_page_wants() -> None:
    known = {"gate": "gate", "count-accuracy": "count accuracy"}
    for plain, wanted in {
        "its [gates](glossary.md#gate)": "its {term}`gates <gate>`",
        "[count\naccuracy](glossary.md#count-accuracy)": "{term}`count accuracy <count accuracy>`",
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


def test_a_policy_comes_before_all_that_a_page_loads() -> None:
    page = policy.finished(PAGE)
    assert page.index("Content-Security-Policy") < page.index("<script")


def test_a_page_is_mended() -> None:
    icons = '<script src="_static/vendor/fontawesome/6/js/all.min.js?digest=1"></script>'
    font = '\n<link rel="preload" as="font" href="_static/vendor/fontawesome/6/webfonts/fa-solid-900.woff2" />'
    assert policy.finished(icons + font + '<div role="doc-biblioentry">') == '<div role="listitem">'
    assert policy.finished('<th class="head"><p></p></th><th>a</th>') == '<td class="head"></td><th>a</th>'
    code = '<span class="n">a</span><span class="o">=</span><span class="nn">b</span>'
    assert policy.finished(code) == 'a<span class="o">=</span>b'
    assert policy.finished('<summary aria-label="Toggle hidden content">') == "<summary>"
    beside = "<ul><li>a</li>\n<ul><li>a.b</li></ul><li>c</li></ul>"
    proper = "<ul><li>a\n<ul><li>a.b</li></ul></li><li>c</li></ul>"
    assert policy.finished(beside) == policy.finished(proper) == proper


def test_thebe_and_scripts_in_attributes_are_left_out() -> None:
    said = SimpleNamespace(attributes={"body": "var x = 1;"})
    link, script = {"type": "link", "icon": "fas fa-file"}, {"type": "javascript", "icon": "fas fa-expand"}
    context: dict[str, Any] = {
        "script_files": ["a.js", said, "sphinx-thebe.js", SimpleNamespace(attributes={"body": "const THEBE_JS_URL"})],
        "css_files": ["sphinx-thebe.css", "b.css"],
        "header_buttons": [{"type": "group", "buttons": [link, script]}, script, link],
    }
    policy._left_out(None, "index", "page.html", context, None)
    assert context["script_files"] == ["a.js", said] and context["css_files"] == ["b.css"]
    assert [one["type"] for one in context["header_buttons"]] == ["group", "link"]
    assert context["header_buttons"][0]["buttons"] == [link]


def test_style_sheets_keep_what_is_used() -> None:
    sheet = (
        "/* a */ .used,.not{color:red} .not:hover{top:0} p:not(.not){left:0} .used .not{top:0}"
        "@media print{.not{top:1px} .used > a{top:2px}} @font-face{font-family:a;src:url(b.woff2)} :root{--x:0}"
    )
    kept = styles.used(sheet, {"used"})
    for rule in (".used,.not{color:red}", "p:not(.not){left:0}", ".used > a{top:2px}", "@font-face{", ":root{--x:0}"):
        assert rule in kept
    assert kept.count("{") == 6 and kept.count("}") == 6


def test_images_of_a_cell_become_files(tmp_path: Path) -> None:
    content = base64.b64encode(b"<svg/>").decode()
    page = f'<img src="data:image/svg+xml;base64,{content}" alt="a"><img src="b.png">'
    changed = images.as_files(page, tmp_path / "_images")
    (file,) = (tmp_path / "_images").iterdir()
    assert changed == f'<img loading="lazy" src="_images/{file.name}" alt="a"><img src="b.png">'
    assert file.suffix == ".svg" and file.read_bytes() == b"<svg/>"


def test_an_image_weighs_less_and_keeps_its_pixels(tmp_path: Path) -> None:
    drawn = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 9).convert("RGB")
    drawn.save(stream := io.BytesIO(), "PNG")
    images.as_files(f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">', tmp_path)
    (file,) = tmp_path.iterdir()
    with Image.open(file) as shown:
        assert file.suffix == ".webp" and shown.convert("RGB").tobytes() == drawn.tobytes()
    assert file.stat().st_size < stream.tell()


def test_widgets_stand_still() -> None:
    def widget(kind: str, **state: Any) -> dict[str, Any]:
        return {"model_name": f"{kind}Model", "state": state}

    models = {
        "all": widget("VBox", children=["IPY_MODEL_slider", "IPY_MODEL_tab", "IPY_MODEL_closed"]),
        "slider": widget("IntSlider", description="picture:", value=3),
        "tab": widget("Tab", children=["IPY_MODEL_one", "IPY_MODEL_two"]),
        "one": widget("HTML", value='<img alt="One" src="data:,">'),
        "two": widget("HTML", value="<p>two</p>"),
    }
    assert still_widgets.still("all", models) == '<img alt="One" src="data:,"><p>two</p>'


def test_results_stand_in_tables() -> None:
    rows: dict[str, dict[str, Any]] = {
        "It holds": {"tests": ["a.py::b", "c.py"], "passed": 1200, "figures": {"rows": 3}},
        "Too": {"passed": None},
    }
    assert results.table(rows, "promise").splitlines() == [
        "| promise | tests | passed | figures |",
        "| --- | --- | --- | --- |",
        "| It holds | `a.py › b`<br>`c.py` | 1,200 | rows: 3 |",
        "| Too | – | – | – |",
    ]
    where = {"date": "2000-01-01", "commit": None, "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None}}
    assert results.origin(where) == "on 2000-01-01, at no known commit, on 2 cores of a CPU"


def test_a_page_has_a_card_for_searches_and_links() -> None:
    config = SimpleNamespace(html_title="Book", html_baseurl="https://host.org/", cards_image="_static/a.svg")
    context: dict[str, Any] = {"title": "<span>1. </span>One", "body": '<img alt="b" src="_images/b.png">'}
    document = nodes.section("", nodes.paragraph("", 'Words & "more".'))
    cards._add(SimpleNamespace(config=config), "a", "page.html", context, document)
    assert 'name="description" content="Words &amp; &quot;more&quot;."' in context["metatags"]
    assert 'name="og:title" content="1. One"' in context["metatags"]
    assert 'content="https://host.org/_images/b.png"' in context["metatags"]
