"""Exercises of chapter 6: label maps, colours and sizes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recseg.book.exercises.comparison import short, to_compare
from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Number, Off
from recseg.book.exercises.inputs import label_maps
from recseg.book.exercises.running import call
from recseg.classes import VOID, palette
from recseg.data.images import read_labels
from recseg.data.transforms import nearest
from recseg.errors import RecsegError
from recseg.training.targets import class_areas

Pixels = NDArray[np.uint8]


def _label_of(*colour: int) -> int:
    return int((palette() == colour).all(axis=1).argmax())


LABEL = Number(
    "the label",
    lambda: _label_of(64, 0, 128),
    lambda: [
        (_label_of(128, 0, 64), "red and blue are swapped: the colour is red 64, green 0, blue 128"),
        (_label_of(64, 0, 0), "blue is missing: its highest bit is bit 2 of the label"),
        (_label_of(0, 0, 128), "red is missing: its second highest bit is bit 3 of the label"),
        (_label_of(64, 128, 0), "the channels come in the order red, green, blue: blue's bits are 2, 5 and 8"),
    ],
)


def _read(pixels: Pixels) -> Pixels:
    """By writing a file and reading it with the package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        Image.fromarray(pixels).save(path)
        return read_labels(path, 21)


def _looked_up(pixels: Pixels, *, void: int = VOID, order: int = 1) -> Pixels:
    table = {tuple(colour): label for label, colour in enumerate(palette()[:21, ::order].tolist())}
    return np.array([[table.get(tuple(colour), void) for colour in row] for row in pixels.tolist()])


READ = Function(
    "pixels (H, W, 3) → label map (H, W)",
    _read,
    lambda: (Case(f"the colours of {name}", (palette()[labels.numpy()],)) for name, labels in label_maps().items()),
    [
        (lambda pixels: pixels[..., 0], "that is the red channel; several labels share a red"),
        (lambda pixels: np.array(Image.fromarray(pixels).convert("L")), "those are grey values, not labels"),
        (lambda pixels: _looked_up(pixels, void=0), "the pale colour of void becomes background; it is label 255"),
        (lambda pixels: _looked_up(pixels, order=-1), "red and blue are swapped: a Pillow image is RGB"),
    ],
)


def _judge_five(answer: Any) -> None:
    labels = to_compare(answer)
    if not isinstance(labels, Tensor) or labels.dim() != 2:
        raise Off(f"expected a label map (H, W), not {short(answer)}")
    try:
        number = int((class_areas(labels[None], 21)[0, 1:] > 0).sum())
    except RecsegError as error:
        raise Off(f"the map holds a {error}") from None
    if number != 5:
        both = len(torch.unique(labels)) == 5
        hint = ": background (0) and void (255) are no classes" if both else ""
        raise Off(f"the map holds {number} class{'' if number == 1 else 'es'}, not five{hint}")


def _bilinear(labels: Tensor, height: int, width: int) -> Tensor:
    planes = labels[None, None].float()  # (1, 1, H, W)
    return F.interpolate(planes, (height, width), mode="bilinear")[0, 0].round()


def _upper_left(labels: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(labels[None, None].float(), (height, width), mode="nearest")[0, 0]


def _resizes() -> Iterator[Case]:
    maps = label_maps()
    for name, (height, width) in {
        "a map with void pixels": (4, 5),
        "a map of four classes": (14, 18),
        "a map of a cat and a dog": (3, 9),
        "a map that is all void": (2, 2),
    }.items():
        yield Case(f"{name}, 7×9 → {height}×{width}", (maps[name], height, width))


RESIZE = Function(
    "(labels, height, width) → label map (height, width)",
    nearest,
    _resizes,
    [
        (_upper_left, '"nearest" takes the upper left pixel; the nearest to a centre is taken by "nearest-exact"'),
        (lambda labels, height, width: nearest(labels, width, height), "height and width are swapped"),
    ],
)


def _judge_resize(answer: Any) -> None:
    for case in _resizes() if callable(answer) else ():
        came = to_compare(call(answer, case.name, case.arguments))
        if isinstance(came, Tensor):  # mixed labels show, however they were rounded
            new = set(came.flatten().tolist()) - set(case.arguments[0].flatten().tolist())
            if new:
                raise Off(
                    f"on {case.name} the label {min(new):g} comes out, which did not go in: resized with "
                    "bilinear weights? Halfway between label 3 and label 7 lies label 5"
                )
    RESIZE.judge(answer)


_THREE = torch.tensor([[0, 3, 7], [15, VOID, 0]])

EXERCISES: dict[int, Exercise] = {
    1: LABEL,
    2: READ,
    3: Custom(
        _judge_five,
        lambda: [
            (_THREE, "background (0) and void (255) are no classes"),
            (torch.zeros(4, 4, dtype=torch.long), "holds 0 classes"),
            (torch.arange(1, 22)[None], "label 21"),
            (torch.zeros(3, 4, 4), "expected a label map"),
        ],
    ),
    4: Custom(_judge_resize, lambda: [*RESIZE.mistakes(), (_bilinear, "which did not go in")]),
}
