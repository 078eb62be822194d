"""Functions of the book's figures, asked of node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="node (Node.js) is not installed: the figures' formulas cannot run"
)


def ask(*questions: tuple[str, str, list[Any]]) -> list[Any]:
    """Answers of functions of the modules: (module, function, arguments)."""
    program = str(Path(__file__).with_name("figures_formulas.mjs"))
    done = subprocess.run(
        [str(NODE), program], input=json.dumps(questions), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
