"""Predict a large image in overlapping windows, so that small objects keep the size that the network was trained on.

Resized to the network's size, a large image loses its small objects. Here the network predicts one window after
another, each as if it were an image, and the predictions are blended. Works with every network, also without torch.

Probabilities are blended, label by label, since windows differ in the classes that they name: a recurrent network gives
each window a softmax over background and the classes named there, and 0 to every other class. A window's weight falls
towards its edges, where it has least context. A class that one window names and its neighbour does not thus keeps the
pixels near the first window's centre, and fades out towards the second's. Log-odds could not be blended in this way: a
class that is not named has none, so one window that does not name it would outvote all others. The image's set of
classes is then read from the blended label map: the classes that cover as much of one window as a dense network must
cover of an image to name a class.

Memory: the image, its label map, a mask for each class named, and for each of these the sums of one row of windows.
The memory that the network needs does not depend on the size of the image.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from recseg.classes import BACKGROUND, SMALLEST_AREA, Legend, has_background
from recseg.errors import RecsegError
from recseg.inference.prediction import Prediction, Step
from recseg.inference.steps import Floats, Output, class_name, probabilities


def predict_tiles(image: Image.Image, side: int, ask: Callable[[Image.Image], Output], legend: Legend) -> Prediction:
    """Segment an image window by window; windows overlap by a quarter or more.

    Args:
        image: RGB.
        side: of the square windows, in pixels of the image; smaller if the image is smaller.
        ask: the network's output for a window.
        legend: of the labels.

    Returns:
        A label map at the image's size. Its steps are the classes by decreasing area, each with the mean of its blended
        probability over its pixels. There is no stop probability, since each window has its own stop.

    Raises:
        RecsegError: windows of less than 2 pixels.
    """
    if side < 2:
        raise RecsegError(f"tile {side}: expected windows of at least 2 pixels")
    shape = (min(side, image.height), min(side, image.width))  # (h, w) of a window
    names, background = legend.names, has_background(legend.names)
    weight = np.outer(*(_ramp(length) for length in shape)).astype(np.float32)  # (h, w)
    tops, lefts = window_starts(image.height, side), window_starts(image.width, side)
    labels = np.zeros((image.height, image.width), np.uint8)
    pixels, likely = np.zeros(len(names)), np.zeros(len(names))  # of each label: count, and sum of probabilities
    sums: dict[int, Floats] = defaultdict(lambda: np.zeros((shape[0], image.width), np.float32))  # rows from `top` on
    for top, following in zip(tqdm(tops, disable=None, leave=False), [*tops[1:], image.height], strict=True):
        for left in lefts:
            window = slice(left, left + shape[1])
            answer = ask(image.crop((left, top, window.stop, top + shape[0])))
            for label, plane in probabilities(answer, shape, background=background).items():
                sums[label][:, window] += weight * plane
        done = following - top  # rows that no later window sees
        decided = labels[top:following]
        best = np.zeros_like(decided, np.float32)
        for label in sorted(sums):
            decided[sums[label][:done] > best] = label
            best = np.maximum(best, sums[label][:done])
        best /= sum(rows[:done] for rows in sums.values())
        pixels += np.bincount(decided.ravel(), minlength=len(names))
        likely += np.bincount(decided.ravel(), best.ravel(), minlength=len(names))
        for rows in sums.values():
            rows[:-done], rows[-done:] = rows[done:], 0
    steps = [
        Step(label, class_name(names, label), float(likely[label] / count), None, labels == label, count / labels.size)
        for label, count in sorted(enumerate(pixels.tolist()), key=lambda entry: -entry[1])
        if label != BACKGROUND and count >= SMALLEST_AREA * shape[0] * shape[1]
    ]
    return Prediction(steps, labels, legend.palette, None, legend.value_of_label)


def tile_side(tile: bool | int, own: int | None) -> int:
    """Side of the windows: as given, or (True) the network's own size."""
    if tile is not True:
        return tile
    if own is None:
        raise RecsegError("tile True: this network has no image size of its own; give a window's side in pixels")
    return own


def window_starts(length: int, side: int) -> list[int]:
    """Start of each window along one axis: evenly spaced from end to end, overlapping by at least a quarter."""
    rest = max(0, length - side)
    count = -(-4 * rest // (3 * side)) + 1
    return [round(rest * number / max(1, count - 1)) for number in range(count)]


def _ramp(length: int) -> NDArray[np.float64]:
    """Weights along one side of a window: they rise linearly from 0.5 at its ends to its middle."""
    distance = np.arange(length, dtype=np.float64) + 0.5
    return np.minimum(distance, distance[::-1])
