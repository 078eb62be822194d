"""Exercise 6 of chapter 14: the loop around the graphs of an exported network, checked with mock graphs."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recseg.book.exercises.exercise import Case, Function

Floats = NDArray[np.float32]
Steps = list[tuple[int, Floats]]
HIDDEN = 2


class Encode:
    """In place of NAME.onnx: images (1, 3, H, W) → embedding (1, 3, H/2, W/2), x and gates at a quarter of the side."""

    def __init__(self) -> None:
        self.ran = False

    def __call__(self, images: Floats) -> list[Floats]:
        if self.ran:
            raise ValueError("the image is encoded a second time: encode it once, before the loop")
        self.ran = True
        x = images[..., ::4, ::4]  # (1, 3, H/4, W/4)
        gates = np.concatenate([x, x[:, ::-1], x[:, :2]], axis=1)  # (1, 4 · HIDDEN, H/4, W/4)
        return [images[..., ::2, ::2], x, gates]


class Step:
    """In place of NAME.step.onnx, for an image of `length` classes."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(
        self, embedding: Floats, x: Floats, gates: Floats, h: Floats, c: Floats, uncovered: Floats, named: Floats
    ) -> list[Floats]:
        for name, found, shape in (
            ("h", h, (1, HIDDEN, *gates.shape[-2:])),
            ("c", c, (1, HIDDEN, *gates.shape[-2:])),
            ("uncovered", uncovered, (1, *embedding.shape[-2:])),
        ):
            if found.shape != shape:
                raise ValueError(f"{name} has the shape {found.shape}, expected {shape}")
        c = 0.5 * c + gates[:, :HIDDEN]
        h = np.tanh(c)
        scores = np.linspace(-1, 1, named.shape[1], dtype=np.float32) - 9 * named + h.mean()  # (1, C)
        mask = embedding.mean(axis=1) + h.mean() + uncovered  # (1, h, w)
        stop = np.full(1, 0.2 * (named.sum() - self.length) + 0.11, np.float32)  # above 0, at first only just
        attention = uncovered
        uncovered = uncovered / (1 + np.exp(mask))
        named = np.maximum(named, scores == scores.max()).astype(np.float32)
        return [h, c, uncovered, named, stop, scores, mask, attention]


def _unrolled(
    encode: Callable[..., list[Floats]],
    step: Callable[..., list[Floats]],
    image: Floats,
    classes: int,
    most: int,
    *,
    carry: str = "all",
    start: float = 1.0,
    bound: float = 0.0,
    late: bool = False,
    shift: int = 1,
    limit: int | None = None,
) -> Steps:
    """The loop, with options for mistakes."""
    embedding, x, gates = encode(image)
    h = c = np.zeros((1, gates.shape[1] // 4, *gates.shape[-2:]), np.float32)
    uncovered = np.full((1, *embedding.shape[-2:]), start, np.float32)
    named = np.zeros((1, classes), np.float32)
    first = h, c, uncovered, named
    steps: Steps = []
    for _ in range(most if limit is None else limit):
        h, c, uncovered, named, stop, scores, mask, _ = step(embedding, x, gates, h, c, uncovered, named)
        if stop[0] > bound and not late:
            break
        steps.append((int(scores[0].argmax()) + shift, mask[0]))
        if stop[0] > bound:
            break
        if carry == "named":
            h, c, uncovered = first[:3]
        elif carry == "state":
            uncovered, named = first[2:]
    return steps


def _images() -> Iterator[Case]:
    draw = np.random.default_rng(0)
    for name, length, most in (
        ("an image of two classes", 2, 5),
        ("an image of one class", 1, 5),
        ("an image without classes", 0, 5),
        ("an image of more classes than steps", 6, 3),
    ):
        image = draw.random((1, 3, 16, 24), dtype=np.float32)
        yield Case(name, (Encode(), Step(length), image, 7, most))


LOOP = Function(
    "(encode, step, image, classes, most) → list of (label, mask)",
    _unrolled,
    _images,
    [
        (partial(_unrolled, late=True), "the step that says stop is no answer: leave its mask and its class out"),
        (partial(_unrolled, shift=0), "class logits begin with label 1: label 0, background, has none"),
        (partial(_unrolled, bound=0.5), "stop is a logit: the sequence ends where it is above 0, not above 0.5"),
        (partial(_unrolled, start=0.0), "at first nothing is covered: `uncovered` begins with ones"),
        (partial(_unrolled, carry="named"), "h, c and uncovered start anew at each step: hand them on"),
        (partial(_unrolled, carry="state"), "uncovered and named start anew at each step: hand them on"),
        (partial(_unrolled, limit=99), "no image runs more than `most` steps, whatever the stop says"),
    ],
)
