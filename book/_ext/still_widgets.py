"""Sphinx extension: Jupyter widgets as they stood when the page was built, as plain HTML.

Without a kernel a slider moves nothing, and the scripts that would draw it come from servers of others. So a page shows
what the widgets showed: pictures and text stay, tabs become folded parts, controls are named with their value.
"""

import html
import json
import re
from typing import Any

from docutils import nodes

STATE = "ipywidgets_state"
_VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*)</script>', re.DOTALL)
NOTE = "Controls that move need Python: open this chapter in Colab or Jupyter. They stood so when the page was built."


def controls(widget: dict[str, Any], models: dict[str, Any]) -> list[str]:
    """The names of the controls within a widget, each with its value where it has one to tell."""
    state = widget["state"]
    found = [name for child in _children(widget, models) for name in controls(child, models)]
    name = str(state.get("description") or "").strip(" :")
    if name and "HTML" not in widget["model_name"]:
        value, options = state.get("value"), state.get("_options_labels")
        if options and isinstance(state.get("index"), int):
            value = options[state["index"]]
        told = isinstance(value, int | float | str) and not isinstance(value, bool) and value != ""
        found.append(f"{name}: {value}" if told else name)
    return found


def contents(widget: dict[str, Any], models: dict[str, Any]) -> str:
    """What a widget shows without being moved."""
    state, kind = widget["state"], widget["model_name"]
    if kind in {"HTMLModel", "HTMLMathModel"}:
        return str(state.get("value", ""))
    if kind == "LabelModel":
        return f"<p>{html.escape(str(state.get('value', '')))}</p>"
    children = [contents(child, models) for child in _children(widget, models)]
    if kind not in {"TabModel", "AccordionModel"}:
        return "".join(children)
    titles = state.get("titles") or [state.get("_titles", {}).get(str(n), str(n + 1)) for n in range(len(children))]
    parts = []
    for number, (title, child) in enumerate(zip(titles, children, strict=False)):
        open_ = " open" if number == (state.get("selected_index") or 0) else ""
        parts.append(f"<details{open_}><summary>{html.escape(title)}</summary>{child}</details>")
    return "".join(parts)


def still(widget: dict[str, Any], models: dict[str, Any]) -> str:
    """The HTML of a whole widget."""
    named = controls(widget, models)
    said = f'<p class="controls">{NOTE} <em>{html.escape("; ".join(named))}</em></p>' if named else ""
    return f'<div class="still-widget">{contents(widget, models)}{said}</div>'


def _children(widget: dict[str, Any], models: dict[str, Any]) -> list[dict[str, Any]]:
    names = [name.removeprefix("IPY_MODEL_") for name in widget["state"].get("children", [])]
    return [models[name] for name in names if name in models]


def _replace(app: Any, doctree: nodes.document) -> None:
    """Exchange the views of the page just read; the state and its scripts are no longer asked for."""
    files = getattr(app.env, "nb_metadata", {}).get(app.env.docname, {}).get("js_files", {})
    if app.builder.format != "html" or STATE not in files:
        return
    models = json.loads(files[STATE][1]["body"].replace("<\\/", "</"))["state"]
    for node in list(doctree.findall(nodes.raw)):
        if view := _VIEW.fullmatch(node.astext().strip()):
            named = json.loads(view[1].replace("<\\/", "</"))
            name = (json.loads(named) if isinstance(named, str) else named)["model_id"]
            node.replace_self(nodes.raw("", still(models[name], models) if name in models else "", format="html"))
    for key in [key for key in files if key.startswith("ipywidgets_")]:
        del files[key]


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", _replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
