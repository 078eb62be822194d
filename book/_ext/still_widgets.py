"""Sphinx extension: Jupyter widgets as plain HTML, in their state when the page was built.

Without a kernel a slider has no effect, and its scripts would be loaded from third-party servers.
"""

import json
import re
from typing import Any

from docutils import nodes

_VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*)</script>', re.DOTALL)
NOTE = '<p class="controls">The controls need Python: open this chapter in Colab or Jupyter to move them.</p>'


def still(name: str, models: dict[str, Any]) -> str:
    """The HTML of a widget and its children."""
    widget = models.get(name, {"model_name": "", "state": {}})
    if widget["model_name"] == "HTMLModel":
        return str(widget["state"]["value"])
    return "".join(still(child.removeprefix("IPY_MODEL_"), models) for child in widget["state"].get("children", []))


def _replace(app: Any, doctree: nodes.document) -> None:
    """Replace the widget views of the page just read, and drop the widget state and its scripts."""
    files = getattr(app.env, "nb_metadata", {}).get(app.env.docname, {}).get("js_files", {})
    if "ipywidgets_state" not in files:
        return
    models = json.loads(files["ipywidgets_state"][1]["body"].replace("<\\/", "</"))["state"]
    for node in list(doctree.findall(nodes.raw)):
        if view := _VIEW.fullmatch(node.astext().strip()):
            named = json.loads(view[1].replace("<\\/", "</"))
            name = (json.loads(named) if isinstance(named, str) else named)["model_id"]
            shown = f'<div class="output text_html">{still(name, models)}</div>'  # scrolls if it is too wide
            node.replace_self(nodes.raw("", shown + NOTE, format="html"))
    for key in [key for key in files if key.startswith("ipywidgets_")]:
        del files[key]


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", _replace, priority=400)  # before images.py
    return {"parallel_read_safe": True, "parallel_write_safe": True}
