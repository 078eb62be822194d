"""Exercises of chapter 12: predictions in use."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Off
from recseg.book.exercises.running import call
from recseg.classes import VOC_CLASSES, palette
from recseg.inference.prediction import Prediction, Step

Labels = NDArray[np.uint8]
Network = Callable[[Tensor], Labels]
Masks = dict[int, Tensor]


def _doubt(network: Network, image: Tensor) -> float:
    return float((network(image.flip(2))[:, ::-1] != network(image)).mean())


def _bright(image: Tensor) -> Labels:
    """A network that treats left and right alike."""
    labels: Labels = (image.float().mean(dim=0) > 128).numpy().astype(np.uint8)
    return labels


def _left(image: Tensor) -> Labels:
    """A network that finds nothing in the right half."""
    labels = _bright(image)
    labels[:, labels.shape[1] // 2 :] = 0
    return labels


def _images() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 6, 8), generator=draw, dtype=torch.uint8)
    yield Case("a network that treats left and right alike", (_bright, image))
    yield Case("a network that is blind on the right", (_left, image))


DOUBT = Function(
    "(network, image) → share of pixels",
    _doubt,
    _images,
    [
        (
            lambda network, image: float((network(image.flip(2)) != network(image)).mean()),
            "mirror the label map back before you compare it, or pixel meets another pixel",
        ),
        (
            lambda network, image: float((network(image.flip(1))[::-1] != network(image)).mean()),
            "that is upside down: an image is (3, H, W), its columns are dimension 2",
        ),
        (
            lambda network, image: float((network(image.flip(2))[:, ::-1] == network(image)).mean()),
            "that is the share that stays; the question is how many pixels change",
        ),
        (lambda network, image: 100 * _doubt(network, image), "give a share between 0 and 1, not per cent"),
    ],
)


def _both(one: Masks, other: Masks) -> Masks:
    return {label: (one[label] + other[label].flip(1)) / 2 for label in one if label in other}


def _by_place(one: Masks, other: Masks) -> Masks:
    return {label: (a + b.flip(1)) / 2 for (label, a), b in zip(one.items(), other.values(), strict=False)}


def _unflipped(one: Masks, other: Masks) -> Masks:
    return {label: (one[label] + other[label]) / 2 for label in one if label in other}


def _mirrors() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)

    def masks(*labels: int) -> Masks:
        return {label: torch.rand(3, 4, generator=draw) for label in labels}

    yield Case("the same classes in the same order", (masks(8, 12), masks(8, 12)))
    yield Case("the same classes in another order", (masks(8, 12), masks(12, 8)))
    yield Case("a class that only one image has", (masks(8, 15), masks(15)))
    yield Case("no class in common", (masks(8), masks(12)))


AVERAGE = Function(
    "(masks, masks of the mirrored image) → {label: mean mask}",
    _both,
    _mirrors,
    [
        (_by_place, "steps were paired by number; pair them by class, since the order may differ"),
        (_unflipped, "mirror the second mask back before you average"),
    ],
)


def _steady(frames: Sequence[Sequence[str]], *, window: int = 3, votes: int = 2, once: bool = True) -> list[list[str]]:
    last: deque[list[str]] = deque(maxlen=window)
    shown = []
    for names in frames:
        last.append(list(set(names)) if once else list(names))
        said = [name for frame in last for name in frame]
        shown.append(sorted(name for name in set(said) if said.count(name) >= votes))
    return shown


STEADY = Function(
    "names of each frame → names to show at each frame",
    _steady,
    lambda: (
        Case(name, (frames,))
        for name, frames in {
            "a film of one frame": [["cat"]],
            "a name that flickers": [["cat"], [], ["cat"], [], [], ["cat"]],
            "a name that comes twice in one frame": [["dog", "dog"], [], ["cat"], ["cat", "dog"]],
            "two names": [["dog", "cat"], ["cat", "dog"], ["cat"], [], ["sofa"]],
            "a film without frames": [],
        }.items()
    ),
    [
        (lambda frames: _steady(frames, once=False), "two steps of one class in one frame are one vote, not two"),
        (lambda frames: _steady(frames, votes=3), "two of three frames are enough"),
        (lambda frames: _steady(frames, window=2), "a name may miss one frame of the last three"),
        (lambda frames: _steady(frames, window=10**6), "only the last three frames vote"),
        (lambda frames: [sorted(set(names)) for names in frames], "names still flicker: earlier frames have no vote"),
    ],
)


def _prediction(*classes: int, empty: bool = False) -> Prediction:
    """Masks that overlap by columns: later steps win in the label map."""
    labels = np.zeros((4, 10), dtype=np.uint8)
    steps = []
    for number, label in enumerate(classes):
        mask = np.zeros((4, 10), dtype=bool)
        if not (empty and number == 0):
            mask[:, 3 * number : 3 * number + 5 - number] = True
        labels[mask] = label
        steps.append(Step(label, VOC_CLASSES[label], 0.9, 0.1, mask, float(mask.mean())))
    return Prediction(steps, labels, palette())


def _judge_files(answer: Any) -> None:
    if not callable(answer):
        raise Off("expected a function, (prediction, folder) → nothing, which writes files")
    prediction = _prediction(8, 12)
    name = "a prediction of a cat and a dog"
    with tempfile.TemporaryDirectory() as folder:
        call(lambda *given: answer(*given) or True, name, (prediction, Path(folder)))
        found = sorted(path.name for path in Path(folder).iterdir())
        expected = [f"{number}-{step.name}.png" for number, step in enumerate(prediction.steps, 1)]
        if found == [f"{number}-{step.name}.png" for number, step in enumerate(prediction.steps)]:
            raise Off(f"numbers start with 1: expected {expected[0]}, not {found[0]}")
        if found != expected:
            raise Off(f"on {name} expected the files {', '.join(expected)}, not {', '.join(found) or 'none'}")
        for file, step in zip(expected, prediction.steps, strict=True):
            with Image.open(Path(folder) / file) as image:
                values = np.asarray(image.convert("L"))
            if values.shape != step.mask.shape:
                raise Off(f"{file} is of {values.shape[1]}×{values.shape[0]} pixels; keep the mask's size")
            if set(np.unique(values)) <= {0, 1}:
                raise Off(f"{file} holds 0 and 1, which a viewer shows as black; white is 255")
            if not np.array_equal(values == 255, step.mask) or not np.array_equal(values == 0, ~step.mask):
                raise Off(f"{file} does not show the mask: expected 255 where it is, and 0 elsewhere")


def _writer(start: int = 1, white: int = 255, fused: bool = False) -> Callable[[Prediction, Path], None]:
    def write(prediction: Prediction, folder: Path) -> None:
        for number, step in enumerate(prediction.steps, start):
            mask = prediction.labels == 0 if fused else step.mask
            Image.fromarray(mask.astype(np.uint8) * white).save(folder / f"{number}-{step.name}.png")

    return write


def _lost(prediction: Prediction) -> list[float]:
    """Share of each step's mask that the label map gives to another label; 0 for an empty mask."""
    losses = []
    for step in prediction.steps:
        pixels = prediction.labels[step.mask]
        losses.append(float((pixels != step.class_id).mean()) if len(pixels) else 0.0)
    return losses


LOST = Function(
    "prediction → share for each step",
    _lost,
    lambda: (
        Case(name, (prediction,))
        for name, prediction in {
            "masks that overlap": _prediction(8, 12, 15),
            "a mask alone": _prediction(8),
            "an empty mask": _prediction(8, 12, empty=True),
            "no step": _prediction(),
        }.items()
    ),
    [
        (
            lambda prediction: [
                float(((prediction.labels != step.class_id) & step.mask).mean()) for step in prediction.steps
            ],
            "that is a share of the image; divide by the pixels of the mask",
        ),
        (
            lambda prediction: [
                1 - share if step.mask.any() else 0.0
                for share, step in zip(_lost(prediction), prediction.steps, strict=True)
            ],
            "that is the share that is kept",
        ),
    ],
)

EXERCISES: dict[int, Exercise] = {
    1: DOUBT,
    2: AVERAGE,
    3: STEADY,
    4: Custom(
        _judge_files,
        lambda: [
            (_writer(start=0), "numbers start with 1"),
            (_writer(white=1), "white is 255"),
            (_writer(fused=True), "does not show the mask"),
            (lambda prediction, folder: None, "not none"),
        ],
    ),
    5: LOST,
}
