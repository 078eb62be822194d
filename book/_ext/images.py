"""Sphinx extension: images embedded in a cell's HTML output become files, which are loaded lazily.

Embedded images, as a notebook has them, would make the pages heavy. PNGs become lossless WebPs, which are a third
smaller.
"""

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image

_IMAGE = re.compile(r'src="data:image/(png|gif|jpeg|webp|svg\+xml);base64,([^"]*)"')


def as_files(html: str, folder: Path) -> str:
    """The HTML with its images written to a folder, and links to them in their place."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(found: re.Match[str]) -> str:
        content, kind = base64.b64decode(found[2]), found[1].removesuffix("+xml")
        if kind == "png":
            content, kind = _smaller(content)
        name = f"{hashlib.sha256(content).hexdigest()[:20]}.{kind}"
        (folder / name).write_bytes(content)
        return f'loading="lazy" src="{folder.name}/{name}"'

    return _IMAGE.sub(write, html)


def _smaller(png: bytes) -> tuple[bytes, str]:
    """An image as lossless WebP, or unchanged if that is no smaller; and its format."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).save(stream, "WEBP", lossless=True)
    return (stream.getvalue(), "webp") if stream.tell() < len(png) else (png, "png")


def _write(app: Any, doctree: nodes.document) -> None:
    for node in doctree.findall(nodes.raw):
        node.children = [nodes.Text(as_files(node.astext(), Path(app.outdir) / "_images"))]


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
