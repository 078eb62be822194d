"""What the live page needs besides its own modules: networks as ONNX graphs, the runtime that runs them, a gallery.

`make book` calls it before the pages are rendered. All of it goes to book/_live/site/live/files, which the book copies
and git ignores. What is missing on this machine (npm, the onnx packages) does not fail the book: the page says so.

Files are compressed here and expanded by the page: a plain web server sends them as they are.
"""

import argparse
import gzip
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import recseg
from recseg.classes import palette
from recseg.data import open_dataset
from recseg.data.images import LONGEST, MEAN_COLOUR
from recseg.errors import RecsegError
from recseg.export.onnx import export
from recseg.export.runtime import PARTS, part_path
from recseg.weights.registry import published_weights

HERE = Path(__file__).resolve().parent / "_live"
FILES = HERE / "site" / "live" / "files"
NETWORKS = {"pictograms-recurrent": "Pictograms (drawn shapes)", "voc-recurrent": "PASCAL VOC (photographs)"}
RUNTIMES = {  # script, loader and binary of ONNX Runtime, by what it computes with; a reader fetches one of them
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.jspi.min.mjs", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
SMALLEST = 256  # weights; below it, rounding saves nothing
IMAGES = 8


def rounded(proto: Any) -> Any:
    """The same graph with weights as 16-bit integers, and a scale for each row: half the bytes.

    ONNX Runtime turns them back into 32-bit floats when it loads the graph, so nothing is slower. The error is below a
    30,000th of a row's largest weight. 16-bit floats, as long, are off by up to a 2,000th of each weight.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    for tensor in list(proto.graph.initializer):
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.ndim < 2 or weights.size < SMALLEST:
            continue
        scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / np.float32(32767)
        scale[scale == 0] = 1
        name, short, long, by = tensor.name, tensor.name + ".short", tensor.name + ".long", tensor.name + ".scale"
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(numpy_helper.from_array(np.rint(weights / scale).astype(np.int16), short))
        proto.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), by))
        nodes += [helper.make_node("Cast", [short], [long], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Mul", [long, by], [name])]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes + rest)
    return proto


def with_gates(proto: Any) -> Any:
    """The step's graph with its gates as outputs: all are computed anyway (i, f, g, o: `recseg.models.convlstm`)."""
    from onnx import TensorProto, helper

    splits = [node for node in proto.graph.node if node.op_type == "Split" and len(node.output) == 4]
    if len(splits) != 1:
        return proto
    after = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "Sigmoid"}
    for place, name in ((0, "input_gate"), (1, "forget_gate"), (3, "output_gate")):
        if source := after.get(splits[0].output[place]):
            proto.graph.node.append(helper.make_node("Identity", [source], [name]))
            proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return proto


def compress(content: bytes, path: Path) -> int:
    """Write content as gzip, the same bytes at every build; the size on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    return path.stat().st_size


def write_network(model: Any, name: str, title: str, folder: Path, *, exact: bool = False) -> dict[str, Any]:
    """Export a network into a folder; what the page has to know of it. `exact` keeps the weights in 32 bits."""
    import onnx

    raw = folder / "export" / f"{name}.onnx"
    raw.parent.mkdir(parents=True, exist_ok=True)
    export(model, raw)
    graphs = {}
    for part in PARTS:
        proto = onnx.load(part_path(raw, part))
        proto = with_gates(proto) if part == "step" else proto
        file = f"{part_path(raw, part).name}.gz"
        content = (proto if exact else rounded(proto)).SerializeToString()
        graphs[part] = {"file": file, "bytes": compress(content, folder / file)}
    if not exact:
        shutil.rmtree(raw.parent)
    return {
        "name": name, "title": title, "classes": list(model.classes), "image_size": model.image_size,
        "max_steps": model.max_steps, "stride": model.encoder.strides[-1], "graphs": graphs,
    }  # fmt: skip


def published(name: str, title: str, folder: Path) -> dict[str, Any]:
    """`write_network` of published weights, left alone where neither they nor the code have changed since."""
    sources = [Path(__file__), *sorted(Path(recseg.__file__).parent.rglob("*.py"))]
    digest = next(entry["sha256"] for entry in published_weights() if entry["name"] == name)
    state = hashlib.sha256(digest.encode() + b"".join(path.read_bytes() for path in sources)).hexdigest()
    note = folder / f"{name}.json"
    if note.is_file() and (facts := json.loads(note.read_text(encoding="utf-8")))["state"] == state:
        return dict(facts)
    facts = write_network(recseg.load(name), name, title, folder) | {"state": state}
    note.write_text(json.dumps(facts), encoding="utf-8")
    return facts


def published_networks(folder: Path) -> list[dict[str, Any]]:
    """`published`, for each of `NETWORKS` that there is. One that cannot be exported leaves the page to the other."""
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
    """The packages of package-lock.json, by npm, unless they are there in these versions."""
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    abouts = {name: HERE / "node_modules" / name / "package.json" for name in wanted}
    there = {
        name: json.loads(path.read_text(encoding="utf-8"))["version"] for name, path in abouts.items() if path.is_file()
    }
    if there != wanted:
        command = ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        command += ["--fetch-retries=1", "--fetch-retry-mintimeout=2000"]  # without a network, say so soon
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


def write_gallery(folder: Path) -> list[dict[str, Any]]:
    """A few images of the embedded set that no network was trained on, most of them with several classes."""
    dataset = open_dataset("pictograms", "val")
    names = dataset.classes
    chosen: list[tuple[int, list[int]]] = []  # index and labels
    for classes in (3, 2, 2, 1, 2, 3, 1, 4):  # for each, the next image that has so many
        for index in range(chosen[-1][0] + 1 if chosen else 0, len(dataset)):
            present = sorted(set(dataset.labels(index).ravel().tolist()) - {0, 255})
            if len(present) == classes:
                chosen.append((index, present))
                break
    images = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (index, present) in enumerate(chosen[:IMAGES]):
        file = f"image_{number}.png"  # no JPEG: its decoders differ by a grey level here and there
        Image.fromarray(dataset.pixels(index)).save(folder / file, optimize=True)
        images.append({"file": file, "classes": [names[label] for label in present]})
    return images


def build(folder: Path = FILES, networks: Callable[[Path], Sequence[dict[str, Any]]] = published_networks) -> list[str]:
    """Write everything; what is missing, in words for a reader (nothing, as a rule)."""
    folder.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    manifest: dict[str, Any] = {
        "longest": LONGEST, "padding": list(MEAN_COLOUR), "palette": palette().tolist(),
        "gallery": write_gallery(folder),
    }  # fmt: skip
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
