"""Compare predicting a large image in windows with the alternatives: `python -m recseg.book.measure_tiles`.

Drawn scenes, each of the network's own size, are stitched into an image of 1920×1440 pixels. Four predictions are
scored on the same pixels: each scene as an image of its own, which requires knowing where the scenes are; the large
image in windows; in crops of the same size that meet in the middle of scenes; and as a whole, resized to the network's
size. Peak memory is measured in a separate process for each image size, above the loaded network and the image.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

import recseg
from recseg.benchmark.memory import status
from recseg.data.pictograms import generate
from recseg.errors import RecsegError
from recseg.evaluation.metrics import VOCMetric
from recseg.evaluation.results import write_result

WIDTH, HEIGHT = 1920, 1440
SIZES = ((WIDTH, HEIGHT), (9000, 9000))  # for which memory is measured
WINDOW = 750  # for memory, at both sizes
SEED = 777  # scenes drawn only for this


def stitched(side: int, rows: int, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scenes in rows and columns: an image (rows · side, columns · side, 3) and its label map."""
    image = np.zeros((rows * side, columns * side, 3), np.uint8)
    labels = np.zeros(image.shape[:2], np.uint8)
    for number in range(rows * columns):
        window = _window(side, columns, number)
        image[window], labels[window] = generate(number, SEED, side)
    return image, labels


def _window(side: int, columns: int, number: int) -> tuple[slice, slice]:
    top, left = (side * index for index in divmod(number, columns))
    return slice(top, top + side), slice(left, left + side)


def _meeting(length: int, side: int) -> list[int]:
    """Start of crops that meet in the middle of scenes; the first and last align with the ends of the image."""
    return [0, *range(side // 2, length - side, side), length - side]


def score(weights: str, width: int = WIDTH, height: int = HEIGHT) -> dict[str, float]:
    """mIoU of the four predictions.

    Args:
        weights: as for `recseg.load`, trained on pictograms.
        width: of the large image; a multiple of the network's image size.
        height: likewise.

    Raises:
        RecsegError: width or height is not such a multiple.
    """
    model = recseg.load(weights)
    side = model.image_size or 0
    if side < 32 or width % side or height % side:
        raise RecsegError(f"{width}×{height}: expected multiples of the network's image size, {side}")
    rows, columns = height // side, width // side
    image, truth = stitched(side, rows, columns)
    scenes, crops = np.zeros_like(truth), np.zeros_like(truth)
    for number in tqdm(range(rows * columns), desc="scenes", disable=None):
        window = _window(side, columns, number)
        scenes[window] = recseg.predict(image[window], model).labels
    for top in _meeting(height, side):
        for left in _meeting(width, side):
            window = slice(top, top + side), slice(left, left + side)
            crops[window] = recseg.predict(image[window], model).labels
    answers = {
        "scenes": scenes,
        "windows": recseg.predict(image, model, tile=True).labels,
        "crops": crops,
        "whole": recseg.predict(image, model).labels,
    }
    found = {}
    for name, labels in answers.items():
        metric = VOCMetric(model.num_classes)
        metric.update(torch.from_numpy(labels), torch.from_numpy(truth))
        found[name] = metric.compute()["miou"]
    return found


def peak(weights: str, width: int, height: int) -> int:
    """Peak memory in bytes of a prediction in windows, above the network and the image (Linux only)."""
    command = [
        sys.executable,
        "-m",
        "recseg.book.measure_tiles",
        "--weights",
        weights,
        "--memory",
        str(width),
        str(height),
    ]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _measure(weights: str, width: int, height: int) -> int:
    """The same, measured in this process."""
    model = recseg.load(weights)
    scene = Image.fromarray(generate(0, SEED, 128)[0])
    recseg.predict(scene, model, tile=True)  # warm up: libraries load and compile code at the first call
    image = scene.resize((width, height))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts from here
    idle = status("VmRSS")
    recseg.predict(image, model, tile=WINDOW)
    return status("VmHWM") - idle


def main() -> None:
    """Score and measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="pictograms-recurrent", help="(pictograms-recurrent)")
    parser.add_argument("--json", type=Path, default=Path("data/results/tiles.json"), help="the result")
    parser.add_argument("--memory", type=int, nargs=2, metavar=("W", "H"), help="only print the peak of this size")
    arguments = parser.parse_args()
    if arguments.memory:
        print(_measure(arguments.weights, *arguments.memory))
        return
    miou = score(arguments.weights)
    print("mIoU: " + ", ".join(f"{name} {value:.1%}" for name, value in miou.items()), flush=True)
    memory = {f"{width}×{height}": peak(arguments.weights, width, height) for width, height in SIZES}
    result: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "miou": miou, "window": WINDOW, "memory": memory}
    write_result(arguments.json, result, command="python -m recseg.book.measure_tiles", seed=SEED, data="pictograms")
    print("bytes above the image: " + ", ".join(f"{size} {count:,}" for size, count in memory.items()))


if __name__ == "__main__":
    main()
