"""Sphinx extension: a Content-Security-Policy in each page, which makes the browser restrict what it may load.

Everything is loaded from the page's own server. Only inline scripts present when the book was built may run: the policy
lists their SHA-256. Inline styles are allowed, since notebooks and formulas use them. Parts of the theme's pages that
would violate the policy, or are large and unused, are removed.
Source: W3C, Content Security Policy Level 3.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

_ELSE = r'src=|type="(?!text/javascript|module|")'  # in a file, or data
_SCRIPT = re.compile(rf"<script\b(?![^>]*\b(?:{_ELSE}))[^>]*>(.*?)</script>", re.DOTALL)
_START = re.compile(r'<meta charset="[^"]*"\s*/?>')
MENDS: dict[str, str] = {
    r"\s*<(?:link|script)\b[^>]*/fontawesome/[^>]*>(?:</script>)?": "",  # 1.8 MB: _static/icons.css has those in use
    r' aria-label="Toggle hidden content"': "",  # it would hide each fold's own label
    r"<th([^>]*)>(?:<p></p>)?</th>": r"<td\1></td>",  # the empty corner of a table is no header
    r'role="doc-biblioentry"': 'role="listitem"',  # the only role allowed in a list
    r'<span class="(?:n|nn|p|w)">([^<]*)</span>': r"\1",  # code without a colour of its own
    r"</li>(\s*<ul>)": r"\1",  # the list of modules has lists beside items instead of inside them …
    r"</ul>(?=\s*(?:<li>|</ul>))": "</ul></li>",
}


def policy(page: str, *, compiles: bool = False) -> str:
    """The policy of a page; `compiles` allows WebAssembly and images that the page generates."""
    inline = dict.fromkeys(body for body in _SCRIPT.findall(page) if body.strip())
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in inline]
    scripts = ["'self'", *(f"'sha256-{digest}'" for digest in digests), *(["'wasm-unsafe-eval'"] if compiles else [])]
    shown = " ".join(["'self'", "data:", *(["blob:"] if compiles else [])])
    return (
        f"default-src 'self'; script-src {' '.join(scripts)}; style-src 'self' 'unsafe-inline'; img-src {shown}; "
        f"media-src {shown}; object-src 'none'; base-uri 'none'; form-action 'self'"
    )


def finished(page: str, *, compiles: bool = False) -> str:
    """A rendered page with its fixes applied, and its policy placed before everything that it loads."""
    for pattern, instead in MENDS.items():
        page = re.sub(pattern, instead, page)
    tag = f'\n<meta http-equiv="Content-Security-Policy" content="{policy(page, compiles=compiles)}">'
    return _START.sub(lambda found: found[0] + tag, page, count=1)


def _finish(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            if "_static" not in path.parts:
                page = finished(
                    path.read_text(encoding="utf-8"), compiles=path.stem in app.config.policy_compiling_pages
                )
                path.write_text(page, encoding="utf-8", newline="\n")


def _left_out(app: Any, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Remove Thebe, which would run cells on a third-party server, and buttons with `onclick="…"`."""
    for kind in ("script_files", "css_files"):
        said = [f"{file} {getattr(file, 'attributes', {}).get('body')}".lower() for file in context[kind]]
        context[kind] = [file for file, words in zip(context[kind], said, strict=True) if "thebe" not in words]
    for group in (context, *context["header_buttons"]):
        name = "header_buttons" if group is context else "buttons"
        group[name] = [button for button in group.get(name, []) if button.get("type") != "javascript"]
        for button in group[name]:  # avoids loading a font for one icon
            button["icon"] = button.get("icon", "").replace("fab fa-github", "fas fa-code-branch")


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("policy_compiling_pages", [], "html")
    app.connect("html-page-context", _left_out, priority=900)
    app.connect("build-finished", _finish, priority=900)  # after everything that changes scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
