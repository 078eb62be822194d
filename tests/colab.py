"""Run chapters as Colab does, in a clean environment that holds what Colab holds but not recseg: `make check-colab`.

    python tests/colab.py                        # every chapter
    python tests/colab.py --only 02_convlstm     # some

Each chapter stands alone in an empty folder, and its own first cell installs recseg, from a clean clone of the commit
at hand instead of the repository's address. torch may not change on the way, since that would ask for a restart, and
the first picture is to be there within a minute. Exit code 1 where a chapter fails, or is late.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reproducible_book import clone

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"git\+https://\S+?(?=\")")
PYTHON = "3.12"
# What Colab has, as far as a chapter could meet it; ipywidgets is of the old line there.
HELD = ("ipykernel", "ipywidgets<8", "matplotlib", "numpy", "pandas", "pillow", "pip", "requests", "scipy", "tqdm")
PINNED = ("torch", "torchvision")  # by constraints.txt, where Colab has its own
FIRST_PICTURE = 60.0  # seconds
SHOWN = ("image/png", "image/gif", "image/svg+xml", "text/html")


def environment(folder: Path, interpreter: str) -> Path:
    """A new environment; returns its interpreter."""
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", interpreter, str(folder)], check=True)
    python = folder / "bin" / "python"
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
            if line.partition("==")[0] in PINNED]  # fmt: skip
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *HELD, *pins], check=True)
    return python


def versions(python: Path) -> str:
    """Of what must not change."""
    asked = f"from importlib.metadata import version; print(*map(version, {PINNED!r}))"
    return subprocess.run([str(python), "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


def run(chapter: str, python: Path, source: Path, folder: Path) -> tuple[float | None, float]:
    """Execute a chapter; seconds to its first picture, and to its end."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "recseg"], check=True)
    notebook: Any = nbformat.read(ROOT / "book" / f"{chapter}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source, replaced = ADDRESS.subn(f"git+file://{source}", first.source)
    assert replaced == 1, f"{chapter}: its first cell installs nothing"
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=[str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    pictures: list[float] = []

    def seen(cell: Any, cell_index: int, **_: Any) -> None:
        if any(kind in output.get("data", {}) for output in cell.get("outputs", []) for kind in SHOWN):
            pictures.append(time.monotonic() - started)

    started = time.monotonic()
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, km=manager, timeout=None, resources=resources, on_cell_executed=seen)
    try:
        client.execute()
    except Exception:
        if not manager.has_kernel:  # nbclient answers SIGINT and SIGTERM by ending the kernel, and no more
            raise SystemExit(f"{chapter}: told to end") from None
        raise
    finally:  # the client leaves a kernel alone that it was given
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
    return (pictures[0] if pictures else None), time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="CHAPTER", help="such as 02_convlstm (default: all)")
    parser.add_argument("--python", default=PYTHON, help=f"interpreter or version (default {PYTHON}, as Colab's)")
    arguments = parser.parse_args()
    wanted = arguments.only or sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
    os.environ["RECSEG_SMALL"] = "1"
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):  # nothing of this environment reaches into the other
        os.environ.pop(name, None)
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        source, cache = clone(Path(place) / "clone"), Path(place) / "cache"
        os.environ["RECSEG_CACHE"] = str(cache)
        python = environment(Path(place) / "environment", arguments.python)
        before = versions(python)
        for chapter in wanted:
            shutil.rmtree(cache, ignore_errors=True)  # each reader's first chapter may be this one
            folder = Path(place) / chapter
            folder.mkdir()
            try:
                picture, end = run(chapter, python, source, folder)
            except Exception as error:  # whatever a cell may raise: the next chapter may do
                last = str(error).strip().splitlines()[-1:]
                print(f"{chapter}: fails: {' '.join(last)}", flush=True)
                wrong += 1
                continue
            late = picture is None or picture > FIRST_PICTURE
            changed = f", torch is another: {before} → {now}" if (now := versions(python)) != before else ""
            wrong += late or bool(changed)
            first = "no picture" if picture is None else f"first picture after {picture:.0f} s"
            print(f"{chapter}: {first}, the end after {end:.0f} s{changed}", flush=True)
    print(f"{len(wanted)} chapters, {wrong} with something wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
