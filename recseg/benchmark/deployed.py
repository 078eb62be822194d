"""Exported networks in 32 and 8 bits, timed from image to label map and compared with a widely deployed model.

The reference model is a file that the user provides (`--reference`): a TensorFlow Lite network that takes uint8 pixels,
run by the package ai-edge-litert, with the same number of threads as the exported network and without PyTorch.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from recseg.benchmark.parts import Bar, Found, Setting, bar_of
from recseg.benchmark.timing import ratio
from recseg.data import open_dataset
from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError
from recseg.evaluation.evaluate import evaluate
from recseg.export.network import OnnxNetwork
from recseg.export.onnx import export
from recseg.export.quantise import quantise
from recseg.export.runtime import PARTS, OnnxModel, part_path
from recseg.inference.prediction import as_image
from recseg.weights.io import load

NAME = "voc-recurrent"
SIDE = 513  # input size of the usual DeepLab networks
TIMED = 8  # images
SCORED: int | None = None  # all: with 200, the choice of images moves the difference by two points
LOST = f"mIoU points lost, exported in 8 bits instead of 32, {NAME}"
BEHIND = f"time, exported in 8 bits ÷ the reference model, {SIDE}×{SIDE}"


def deployed(setting: Setting) -> Found:
    """Time per image and score of the exported network on VOC's val; without VOC, on pictograms."""
    data = "voc"
    try:
        source, images = open_dataset(data, "train"), open_dataset(data, "val")
    except RecsegError:
        data = "pictograms"
        source, images = open_dataset(data, "train"), open_dataset(data, "val")
    threads = torch.get_num_threads()
    peer = None if setting.reference is None else reference(setting.reference, threads)
    with tempfile.TemporaryDirectory() as folder:
        files = {bits: Path(folder) / f"{bits}.onnx" for bits in ("float32", "int8")}
        export(load(NAME), files["float32"])
        setting.progress()
        for part in PARTS:
            shutil.copy(part_path(files["float32"], part), part_path(files["int8"], part))
        quantise(files["int8"], source)
        setting.progress()
        megabytes = {
            bits: round(sum(part.stat().st_size for part in file.parent.glob(f"{bits}*.onnx")) / 1e6, 2)
            for bits, file in files.items()
        }
        models = {bits: OnnxModel(file, threads=threads) for bits, file in files.items()}
        for model in models.values():
            model.image_size = SIDE
        shown = squares(images)

        def all_of(act: Callable[[Image.Image], object]) -> Callable[[], object]:
            return lambda: [act(image) for image in shown]

        acts = {bits: all_of(model.predict) for bits, model in models.items()}
        if peer is not None:
            acts["reference"] = all_of(peer)
        times = setting.times(acts)
        steps = float(np.mean([len(models["int8"].predict(image).steps) for image in shown]))
        found = {
            bits: evaluate(OnnxNetwork(file), images, limit=SCORED, progress=False) for bits, file in files.items()
        }
        scores = {bits: answers["miou"] for bits, answers in found.items()}
    tells = "whether a device that runs the reference model fast enough runs this one"
    bars = [
        Bar(BEHIND, None, 1.0, tells)
        if peer is None
        else bar_of(BEHIND, ratio(times["int8"], times["reference"]), 1.0, tells),
        Bar(LOST, 100 * (scores["float32"] - scores["int8"]), 0.5, "whether a network in 8 bits is good enough"),
    ]
    result = {
        "name": NAME, "data": data, "side": SIDE, "images_timed": len(shown), "mean_steps": steps,
        "milliseconds": {name: round(1000 * float(np.median(row)) / len(shown), 2) for name, row in times.items()},
        "megabytes": megabytes, "images_scored": found["int8"]["images"],
        "miou": {bits: round(score, 6) for bits, score in scores.items()},
        "reference": None if setting.reference is None else setting.reference.name,
    }  # fmt: skip
    return result, bars


def squares(images: SegmentationFolder) -> list[Image.Image]:
    """Some images, spread over the list, at the size to time."""
    chosen = range(0, len(images), max(1, len(images) // TIMED))[:TIMED]
    return [as_image(images.pixels(index)).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for index in chosen]


def reference(file: Path, threads: int) -> Callable[[Image.Image], Any]:
    """A TensorFlow Lite network as a function from an image of its size to its output.

    Raises:
        RecsegError: the package or the file is missing, or it does not take uint8 images of `SIDE`.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise RecsegError("--reference needs TensorFlow Lite: pip install ai-edge-litert") from error
    try:
        network = Interpreter(str(file), num_threads=threads)
        network.allocate_tensors()
    except (OSError, ValueError, RuntimeError) as error:
        raise RecsegError(f"{file}: not a TensorFlow Lite file that can be run") from error
    given, answer = network.get_input_details()[0], network.get_output_details()[0]
    if tuple(given["shape"]) != (1, SIDE, SIDE, 3) or given["dtype"] is not np.uint8:
        raise RecsegError(
            f"{file}: takes {given['dtype'].__name__} {tuple(given['shape'])}, expected uint8 {(1, SIDE, SIDE, 3)}"
        )

    def act(image: Image.Image) -> Any:
        network.set_tensor(given["index"], np.asarray(image)[None])
        network.invoke()
        return network.get_tensor(answer["index"])

    return act
