"""Sphinx extension: each page says at its foot when it was made, from which commit, and with which versions."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("book", "data", "recseg", "_config.yml")


def commit(root: Path = ROOT) -> str:
    """The commit that a build is made of, in words."""
    if not (root / ".git").exists():
        return "no known commit (built outside a git clone)"
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *SOURCES)
    except (OSError, subprocess.SubprocessError):
        return "no known commit (git could not tell)"
    return f"commit {head}" + (" with changes that are not committed" if changed else "")


def _git(root: Path, *words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=20)
    return answer.stdout.strip()


def day() -> str:
    """The day of the build in UTC; `SOURCE_DATE_EPOCH` says another, as reproducible builds want it."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(seconds), UTC) if seconds.isdecimal() else datetime.now(UTC)
    return moment.strftime("%Y-%m-%d")


def versions() -> str:
    """Python and the packages that figures depend on."""
    named = [f"Python {platform.python_version()}"]
    for name, package in {"PyTorch": "torch", "torchvision": "torchvision", "recseg": "recseg"}.items():
        try:
            named.append(f"{name} {version(package)}")
        except PackageNotFoundError:
            named.append(f"no {name}")
    return ", ".join(named)


def sentence(made: str, *, is_chapter: bool, executed: bool) -> str:
    """What the foot of a page says."""
    if is_chapter and not executed:
        return f"Rendered on {made}. Its code was not run in this build."
    return f"{'Last verified: its code was run' if is_chapter else 'Last verified: rendered'} on {made}."


def setup(app: Any) -> dict[str, bool]:
    made = f"{day()} from {commit()}, with {versions()}"

    def add(app: Any, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
        is_chapter = name in app.env.found_docs and app.env.doc2path(name).endswith(".ipynb")
        said = sentence(made, is_chapter=is_chapter, executed=app.config.nb_execution_mode != "off")
        context["theme_extra_footer"] = f'{context.get("theme_extra_footer") or ""}<p class="verified">{said}</p>'

    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
