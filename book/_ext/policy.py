"""Sphinx extension: each page says what it may load, in a Content-Security-Policy; the browser holds it to that.

Everything comes from the server that the page came from. Of scripts in the page, those run that were there when the
book was built: the policy names their SHA-256. Styles in the page are allowed, as notebooks and formulas carry some.
Source: W3C, Content Security Policy Level 3.
"""

import base64
import hashlib
import re
from typing import Any

from finishing import each_page

_SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r'\n?<meta http-equiv="Content-Security-Policy"[^>]*>')
_START = re.compile(r'<meta charset="[^"]*"\s*/?>')
_RUN = {None, "", "text/javascript", "module"}


def inline_scripts(page: str) -> list[str]:
    """The scripts that stand in a page and run there, in the order of their first appearance."""
    found: dict[str, None] = {}
    for attributes, body in _SCRIPT.findall(page):
        kind = re.search(r'\btype="([^"]*)"', attributes)
        if not re.search(r"\bsrc=", attributes) and (kind[1] if kind else None) in _RUN and body.strip():
            found[body] = None
    return list(found)


def policy(page: str, *, compiles: bool = False) -> str:
    """The policy of a page; `compiles` lets it compile WebAssembly and show pictures that it made itself."""
    digests = [hashlib.sha256(script.encode()).digest() for script in inline_scripts(page)]
    scripts = ["'self'", *(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)]
    made = ["blob:"] if compiles else []
    directives = {
        "default-src": ["'self'"],
        "script-src": scripts + (["'wasm-unsafe-eval'"] if compiles else []),
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:", *made],
        "media-src": ["'self'", "data:", *made],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
    }
    return "; ".join(" ".join([name, *values]) for name, values in directives.items())


def with_policy(page: str, *, compiles: bool = False) -> str:
    """The page with its policy ahead of everything that it loads; an older policy is replaced."""
    page = _TAG.sub("", page)
    tag = f'\n<meta http-equiv="Content-Security-Policy" content="{policy(page, compiles=compiles)}">'
    return _START.sub(lambda found: found[0] + tag, page, count=1)


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("policy_compiling_pages", [], "html")

    def finish(app: Any, error: Exception | None) -> None:
        pages = app.config.policy_compiling_pages
        each_page(app, error, lambda name, page: with_policy(page, compiles=name in pages))

    app.connect("build-finished", finish, 900)  # after all that changes scripts
    return {"parallel_read_safe": True, "parallel_write_safe": True}
