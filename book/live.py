"""Files for the live page besides its own modules: networks as ONNX graphs, ONNX Runtime, a gallery.

`make book` runs it before the pages are rendered. Files go to book/_live/site/live/files, which the book copies and git
ignores. If something is missing on this machine (npm, the onnx packages), the build does not fail: the page says so.

Files are compressed here and decompressed by the page, since a plain web server sends them as they are.
"""

import argparse
import colorsys
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from live_gallery import GalleryImage, drawn, photographed, write_image
from live_graphs import compress, write_graphs

import recseg
from recseg.classes import VOID
from recseg.data.images import LONGEST, MEAN_COLOUR
from recseg.errors import RecsegError
from recseg.weights.registry import published_weights

HERE = Path(__file__).resolve().parent / "_live"
FILES = HERE / "site" / "live" / "files"
NETWORKS = {"voc-recurrent": "PASCAL VOC (photographs)", "pictograms-recurrent": "Pictograms (drawn shapes)"}
RUNTIMES = {  # script, loader and binary of ONNX Runtime, by backend; a reader downloads one of them
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue: ITU-R BT.709
BRIGHT = 0.35
GOLDEN = 0.618034  # of a turn: successive hues are far apart, however many there are


def colours() -> list[tuple[int, ...]]:
    """A bright colour for each label, since some of VOC's are hard to see on a photograph; void is grey."""

    def bright(hue: float) -> tuple[int, ...]:
        for lightness in (0.5, 0.55, 0.6, 0.65, 0.7):  # blue and red are dark at a lightness where yellow is not
            rgb = colorsys.hls_to_rgb(hue, lightness, 1)
            if sum(part * share for part, share in zip(rgb, LUMINANCE, strict=True)) > BRIGHT:
                break
        return tuple(round(255 * part) for part in rgb)

    return [*(bright(label * GOLDEN % 1) for label in range(VOID)), (150, 150, 150)]


def write_network(
    model: Any, name: str, title: str, folder: Path, gallery: Sequence[GalleryImage], *, exact: bool = False
) -> dict[str, Any]:
    """Export a network with its results for some images into a folder; returns what the page needs to know of it."""
    return {
        "name": name, "title": title, "classes": list(model.classes), "image_size": model.image_size,
        "max_steps": model.max_steps, "stride": model.encoder.strides[-1],
        "graphs": write_graphs(model, name, folder, exact=exact),
        "gallery": [write_image(image, model, name, folder) for image in gallery],
    }  # fmt: skip


def published(name: str, title: str, folder: Path) -> dict[str, Any]:
    """`write_network` for published weights; skipped if neither they nor the code have changed."""
    # Without scikit-image, drawn images are better than none.
    gallery = (photographed() if name.startswith("voc") else []) or drawn()
    sources = [*sorted(Path(__file__).parent.glob("live*.py")), *sorted(Path(recseg.__file__).parent.rglob("*.py"))]
    digest = next(entry["sha256"] for entry in published_weights() if entry["name"] == name)
    shown = "".join(image.name for image in gallery)
    state = hashlib.sha256((digest + shown).encode() + b"".join(path.read_bytes() for path in sources)).hexdigest()
    note = folder / f"{name}.json"
    if note.is_file() and (facts := json.loads(note.read_text(encoding="utf-8")))["state"] == state:
        return dict(facts)
    facts = write_network(recseg.load(name), name, title, folder, gallery) | {"state": state}
    note.write_text(json.dumps(facts), encoding="utf-8")
    return facts


def published_networks(folder: Path) -> list[dict[str, Any]]:
    """`published` for each available network of `NETWORKS`. One that cannot be exported is left out."""
    known = {entry["name"] for entry in published_weights()}
    found, refused = [], []
    for name in filter(known.__contains__, NETWORKS):
        try:
            found.append(published(name, NETWORKS[name], folder))
        except RecsegError as error:
            refused.append(f"{name}: {error}")
    if refused and not found:
        raise RecsegError("; ".join(refused))
    for why in refused:
        print(f"live page: without {why}", file=sys.stderr)
    return found


def fetch() -> None:
    """Install the packages of package-lock.json with npm, unless they are there in these versions."""
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    abouts = {name: HERE / "node_modules" / name / "package.json" for name in wanted}
    there = {
        name: json.loads(path.read_text(encoding="utf-8"))["version"] for name, path in abouts.items() if path.is_file()
    }
    if there != wanted:
        command = ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        command += ["--fetch-retries=1", "--fetch-retry-mintimeout=2000"]  # without a network, fail fast
        subprocess.run(command, cwd=HERE, check=True, capture_output=True, timeout=240)


def write_runtimes(folder: Path) -> dict[str, dict[str, Any]]:
    """ONNX Runtime for browsers, in the version of package-lock.json."""
    fetch()
    package = HERE / "node_modules" / "onnxruntime-web"
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind, (script, loader, binary) in RUNTIMES.items():
        for file in (script, loader):
            shutil.copyfile(package / "dist" / file, folder / file)
        size = compress((package / "dist" / binary).read_bytes(), folder / f"{binary}.gz")
        size += sum((folder / file).stat().st_size for file in (script, loader))
        found[kind] = {"script": script, "loader": loader, "binary": f"{binary}.gz", "bytes": size}
    return found


def build(folder: Path = FILES, networks: Callable[[Path], Sequence[dict[str, Any]]] = published_networks) -> list[str]:
    """Write everything; returns what is missing, in words for a reader (usually nothing)."""
    folder.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    manifest: dict[str, Any] = {"longest": LONGEST, "padding": list(MEAN_COLOUR), "palette": colours()}
    try:
        manifest["runtimes"] = write_runtimes(folder)
    except FileNotFoundError:
        missing.append("npm (it comes with Node.js) was not found, so ONNX Runtime could not be fetched")
    except (subprocess.SubprocessError, OSError):
        missing.append("npm could not fetch ONNX Runtime (is the network reachable?)")
    try:
        importlib.import_module("onnx")
        manifest["networks"] = list(networks(folder))
    except (ImportError, RecsegError) as error:
        missing.append(f"the networks could not be exported ({' '.join(str(error).split())})")
    manifest["missing"] = missing
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return missing


def main() -> None:
    argparse.ArgumentParser(description="Fetch and export what the live page of the book needs.").parse_args()
    missing = build()
    for what in missing:
        print(f"live page: {what}; the page will say so", file=sys.stderr)
    if not missing:
        runtimes = [about["bytes"] for about in json.loads((FILES / "manifest.json").read_text())["runtimes"].values()]
        size = sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file())
        most = size - sum(runtimes) + max(runtimes)
        print(
            f"live page: {size / 1e6:.1f} MB in {FILES.relative_to(HERE.parent.parent)}, "
            f"{most / 1e6:.1f} MB at most for one reader"
        )


if __name__ == "__main__":
    main()
