r"""Sphinx extension: formulas as MathML, which browsers draw themselves, so that a page needs no network for them.

`html_math_renderer = "mathml"` chooses it. A formula that cannot be converted is a warning, which ends `make book`.
"""

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

# The converter sets an index under a letter that has an accent: m̂ with t below, not m̂ₜ.
_ACCENT_AND_INDEX = re.compile(
    r"<munderover>\s*(<mi>[^<]*</mi>)\s*(.*?)\s*(<mo stretchy=\"false\">[ˆˉ~˜¯→˙¨]</mo>)\s*</munderover>", re.DOTALL
)
# In MathML fences grow with their row. TeX's grow where \left and \right say so, which begin and end a row here.
_FENCE = re.compile(r"(<mrow>\s*)?<mo>([⟨⟩⌈⌉⌊⌋‖])</mo>(\s*</mrow>)?")
_logger = logging.getLogger(__name__)


def to_mathml(formula: str, *, block: bool) -> str:
    """LaTeX to a `<math>` element; the source stands in `alttext`, for copying and for readers of screens."""
    source = re.sub(r"\\dots[a-z]?(?![a-z])", r"\\ldots", formula.strip())  # the converter knows the plain name alone
    source = re.sub(r"(\\[td]?frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", source)  # to the converter, 12 is one number
    # A displayed formula is aligned by itself: the environment around the whole of it says nothing more.
    whole = re.fullmatch(r"\\begin\{(aligned|align\*?|split|equation\*?)\}(.*)\\end\{\1\}", source, re.DOTALL)
    mathml = tex2mathml(whole[2].strip() if block and whole else source, as_block=block)
    mathml = _ACCENT_AND_INDEX.sub(_accent_first, mathml)
    mathml = _FENCE.sub(_as_it_is, mathml)
    spoken = html.escape(re.sub(r"\s+", " ", source))
    return mathml.replace("<math", f'<math alttext="{spoken}"', 1)


def _as_it_is(found: re.Match[str]) -> str:
    begins, fence, ends = found.groups()
    return found[0] if begins or ends else f'<mo stretchy="false">{fence}</mo>'


def _accent_first(found: re.Match[str]) -> str:
    letter, index, accent = found.groups()
    return f'<msub><mover accent="true">{letter}{accent}</mover>{index}</msub>'


def _convert(node: nodes.Element, *, block: bool) -> str:
    try:
        return to_mathml(node.astext(), block=block)
    except (MathError, SyntaxError) as error:
        _logger.warning("formula %r: %s", node.astext(), error, location=node, type="mathml")
        return f"<code>{html.escape(node.astext())}</code>"


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(f'<span class="math">{_convert(node, block=False)}</span>')
    raise nodes.SkipNode


def _displayed(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})</span>')
    translator.body.append(_convert(node, block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_displayed, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
