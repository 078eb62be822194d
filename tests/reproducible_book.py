"""Run the chapters twice, from two clean clones of one commit, and compare every number and every pixel.

    python tests/reproducible_book.py                        # the whole book, at the small scale of a build
    python tests/reproducible_book.py --only 02_convlstm     # some chapters

What a reader sees are the outputs of cells: text, tables, pictures, films, widgets. Two runs must give the same ones,
pixel by pixel, but for what is stated here: how long something took, when it was done, the names of temporary folders,
and the cells of `MEASURING`, which show little else. Exit code 1 where anything else differs.
"""

import argparse
import base64
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

ROOT = Path(__file__).resolve().parent.parent
# Cells whose outputs are what this machine needs, in time or memory, through and through: chapter → ids of cells.
MEASURING: dict[str, set[str]] = {
    "08_gpu_training": {
        "08a00005",
        "08a00025",
        "08a00026",
        "08a00047",
        "08a00061",
        "08a00062",
        "1f2bb896",
    },  # fmt: skip
    "14_output_space_and_scale": {
        "e55a2405",
        "99ea0765",
        "95d76fe2",
        "db129a41",
        "3b853b43",
        "ef829fdb",
        "7d2d1e25",
    },  # fmt: skip
}
TIMES = re.compile(
    r" *\d[\d,]*(?:\.\d+)?(?:e-?\d+)? ?(?:µs|us|ms|seconds?|minutes?|min|s|pictures/s|images/s|it/s)(?![\w/])"
)
SECONDS = re.compile(r'"seconds": [\d.]+')  # in a training's log
TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/\w+")
DATES = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?")
EMBEDDED = re.compile(r"data:image/(?:png|gif|jpeg|webp);base64,([A-Za-z0-9+/=\s]+)")
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(clone: Path, chapters: list[str]) -> dict[str, dict[str, Any]]:
    """Execute chapters of a clone, each in a fresh kernel that imports the clone's own recseg."""
    import nbformat
    from nbclient import NotebookClient
    from tqdm import tqdm

    small = {"RECSEG_SMALL": "1", "RECSEG_CACHE": str(clone / ".cache"), "PYTHONPATH": str(clone)}
    os.environ.update(small, JUPYTER_PREFER_ENV_PATH="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    found = {}
    for chapter in tqdm(chapters, desc=clone.name, unit="chapter"):
        notebook = nbformat.read(clone / "book" / f"{chapter}.ipynb", as_version=4)
        place = {"metadata": {"path": str(clone / "book")}}
        NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place).execute()
        found[chapter] = json.loads(nbformat.writes(notebook))
    return found


def differences(chapter: str, first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """One line for each output of a chapter that two runs do not share."""
    found = []
    for number, (one, other) in enumerate(zip(first["cells"], second["cells"], strict=True)):
        if one["cell_type"] != "code" or one.get("id") in MEASURING.get(chapter, ()):
            continue
        mine, theirs = list(_outputs(one)), list(_outputs(other))
        where = f"{chapter}, cell {number} ({one.get('id', '?')})"
        if [kind for kind, _ in mine] != [kind for kind, _ in theirs]:
            found.append(f"{where}: {len(mine)} outputs and {len(theirs)}, or of other kinds")
            continue
        for (kind, a), (_, b) in zip(mine, theirs, strict=True):
            if wrong := _compare(a, b):
                found.append(f"{where}: {kind}: {wrong}")
    states = [_widgets(notebook) for notebook in (first, second)]
    if wrong := _compare(*states):
        found.append(f"{chapter}, widgets: {wrong}")
    return found


def _outputs(cell: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and content of what a cell shows; progress on stderr is no part of a page."""
    text = ""
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            if output["name"] == "stdout":  # in how many pieces it arrives is chance
                text += "".join(output["text"])
            continue
        for kind, content in sorted(output.get("data", {}).items()):
            if kind != WIDGET:  # its state is compared with those of all others
                yield kind, "".join(content) if isinstance(content, (list, str)) else json.dumps(content)
    if text:
        yield "text", text


def _widgets(notebook: dict[str, Any]) -> str:
    """The states of all widgets, without the random ids by which they are named, referred to and stored in order."""
    states = notebook.get("metadata", {}).get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    found = states.get("state", {})
    named = re.compile("|".join(map(re.escape, found)) or "(?!)")
    return "\n".join(sorted(named.sub("widget", json.dumps(state, sort_keys=True)) for state in found.values()))


def _compare(mine: str, theirs: str) -> str | None:
    """What differs between two contents, in words; None where nothing does but times and dates."""
    if mine == theirs:
        return None
    pictures = [_pictures(content) for content in (mine, theirs)]
    if len(pictures[0]) != len(pictures[1]):
        return f"{len(pictures[0])} pictures and {len(pictures[1])}"
    for one, other in zip(*pictures, strict=True):
        if wrong := _pixels(one, other):
            return wrong
    texts = [_masked(content) for content in (mine, theirs)]
    for one, other in zip(*(text.splitlines() for text in texts), strict=False):
        if one != other:
            at = next(
                (k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
            )
            return f"{one[max(at - 20, 0) : at + 40]!r} and {other[max(at - 20, 0) : at + 40]!r}"
    return None if texts[0] == texts[1] else "one is longer"


def _pictures(content: str) -> list[bytes]:
    """The pictures in a content: itself, if it is one, or those embedded in it."""
    if re.fullmatch(r"(?:iVBORw0KGgo|R0lGOD|/9j/|UklGR)[A-Za-z0-9+/=\s]+", content):
        return [base64.b64decode(content)]
    return [base64.b64decode(found) for found in EMBEDDED.findall(content)]


def _masked(content: str) -> str:
    if re.fullmatch(r"(?:iVBORw0KGgo|R0lGOD|/9j/|UklGR)[A-Za-z0-9+/=\s]+", content):
        return "PICTURE"
    content = TEMPORARY.sub("FOLDER", SECONDS.sub("TIME", EMBEDDED.sub("PICTURE", content)))
    return DATES.sub("DATE", TIMES.sub(" TIME", content))


def _pixels(mine: bytes, theirs: bytes) -> str | None:
    """How two pictures, or two films, differ."""
    frames = [[np.asarray(f.convert("RGBA")).astype(int) for f in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]
              for data in (mine, theirs)]  # fmt: skip
    if [frame.shape for frame in frames[0]] != [frame.shape for frame in frames[1]]:
        return "pictures of another size, or of another number of frames"
    gaps = np.stack([np.abs(a - b).max(axis=-1) for a, b in zip(*frames, strict=True)])  # (frames, H, W)
    return f"{(gaps > 0).sum()} of {gaps.size} pixels differ, by at most {gaps.max()}" if gaps.any() else None


def clone(target: Path) -> Path:
    """A clean clone of the commit at hand."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="CHAPTER", help="such as 02_convlstm (default: all)")
    wanted = parser.parse_args().only or sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
    unknown = [chapter for chapter in wanted if not (ROOT / "book" / f"{chapter}.ipynb").is_file()]
    if unknown:
        parser.error(f"no such chapter: {', '.join(unknown)}")
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    if changed.stdout:
        print("note: changes that are not committed take no part", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        first, second = (run(clone(Path(folder) / name), wanted) for name in ("first", "second"))
    wrong = [line for chapter in wanted for line in differences(chapter, first[chapter], second[chapter])]
    print(
        "\n".join(wrong) or f"{len(wanted)} chapters run twice: the same text, the same pixels, but for times and dates"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
