"""Sphinx extension: each page's footer says when it was built, from which commit and with which versions."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sphinx.util.i18n import format_date


def commit(root: Path) -> str:
    """The commit that the book is built from, in words."""
    git = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty= with changes that are not committed"]
    try:
        return f"commit {subprocess.run(git, cwd=root, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.SubprocessError):
        return "no known commit (built outside a git clone)"


def setup(app: Any) -> dict[str, bool]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "recseg"))
    day = format_date("%Y-%m-%d", language="en")  # or that of SOURCE_DATE_EPOCH
    made = f"Built on {day} from {commit(Path(app.srcdir))}, with Python {platform.python_version()}, {packages}."
    app.config.html_theme_options["extra_footer"] += f'<p class="verified">{made}</p>'
    return {"parallel_read_safe": True, "parallel_write_safe": True}
