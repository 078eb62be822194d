"""Exercises of chapter 9: scores, intervals, thresholds."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recseg.book.exercises.comparison import to_compare
from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Off
from recseg.book.exercises.inputs import label_maps
from recseg.book.exercises.running import call
from recseg.classes import VOID
from recseg.errors import RecsegError
from recseg.evaluation.metrics import SlotMetric, VOCMetric

Maps = Sequence[Tensor]
Array = NDArray[np.float64]


def _metric(answers: Maps, truths: Maps) -> VOCMetric:
    metric = VOCMetric(21)
    for answer, truth in zip(answers, truths, strict=True):
        metric.update(answer, truth)
    return metric


def _miou(answers: Maps, truths: Maps) -> float:
    return float(_metric(answers, truths).compute()["miou"])


def _by_image(answers: Maps, truths: Maps) -> float:
    scores = [_metric([a], [t]).compute()["miou"] for a, t in zip(answers, truths, strict=True)]
    scores = [score for score in scores if score is not None]
    return float(sum(scores) / len(scores))


def _over_all(answers: Maps, truths: Maps) -> float:
    return sum(iou or 0.0 for iou in _metric(answers, truths).compute()["iou_per_class"]) / 21


def _no_void(truths: Maps) -> Maps:
    return [truth.where(truth != VOID, 0) for truth in truths]


def _on_black(score: Callable[[Maps, Maps], float]) -> Callable[[Maps], float]:
    return lambda truths: score([torch.zeros_like(truth) for truth in truths], truths)


def _accuracy(answers: Maps, truths: Maps) -> float:
    return float(_metric(answers, truths).compute()["pixel_accuracy"])


def _splits() -> dict[str, list[Tensor]]:
    maps = label_maps()
    return {
        "two images without void": [maps["a map of four classes"], maps["a map of a cat and a dog"]],
        "images with void": [maps["a map with void pixels"], maps["a map without background, with void"]],
        "an image that is all void, and another": [maps["a map that is all void"], maps["a map of four classes"]],
        "an image that is all background": [maps["a map that is all background"]],
    }


BLACK = Function(
    "label maps → mIoU of background everywhere",
    _on_black(_miou),
    lambda: (Case(name, (truths,)) for name, truths in _splits().items()),
    [
        (_on_black(_accuracy), "that is the pixel accuracy; the mIoU is a mean over labels, and the others have 0"),
        (_on_black(_over_all), "labels that occur nowhere are no part of the mean: divide by those that occur"),
        (_on_black(_by_image), "averaged by image; VOC counts all pixels of all images in one table"),
        (lambda truths: _on_black(_miou)(_no_void(truths)), "void was counted as background; leave it out"),
    ],
)


def _percentiles(values: Array, ends: tuple[float, float] = (2.5, 97.5)) -> Array:
    found: Array = np.percentile(values, ends)
    return found


def _gaps(a: Array, b: Array, drawn: NDArray[np.int64]) -> Array:
    gaps: Array = a[drawn].mean(axis=1) - b[drawn].mean(axis=1)  # (R,)
    return gaps


def _lists() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    a = (rng.random(60) < 0.7).astype(float)
    b = np.where(rng.random(60) < 0.8, a, 1 - a)  # mostly right on the same images
    drawn = rng.integers(60, size=(400, 60))
    yield Case("two networks that agree on most images", (a, b, drawn))
    yield Case("two networks that agree on all images", (a, a.copy(), drawn))
    yield Case("two networks that agree on no image", (a, 1 - a, drawn))


INTERVAL = Function(
    "(a, b, drawn) → (low, high) of the difference",
    lambda a, b, drawn: _percentiles(_gaps(a, b, drawn)),
    _lists,
    [
        (
            lambda a, b, drawn: _percentiles(a[drawn].mean(axis=1)) - _percentiles(b[drawn].mean(axis=1))[::-1],
            "two intervals were subtracted: take the difference within each draw, then its percentiles",
        ),
        (
            lambda a, b, drawn: _percentiles(_gaps(a, b, drawn), (5, 95)),
            "that is the 90 % interval: 2.5 % on each side",
        ),
        (lambda a, b, drawn: _percentiles(_gaps(b, a, drawn)), "that is B − A"),
        (lambda a, b, drawn: _percentiles(a[drawn].mean(axis=1)), "that is the interval of A alone"),
    ],
)


def _named(areas: Array, least: float) -> NDArray[np.bool_]:
    return (areas >= least) & (areas > 0)


def _count_accuracy(areas: Array, present: NDArray[np.bool_], least: float) -> float:
    return float((_named(areas, least).sum(axis=1) == present.sum(axis=1)).mean())


def _f1(areas: Array, present: NDArray[np.bool_], least: float) -> float:
    named = _named(areas, least)
    return float(2 * (named & present).sum() / max(1, named.sum() + present.sum()))


def _first_best(score: Callable[[Array, NDArray[np.bool_], float], float]) -> Callable[..., float]:
    return lambda areas, present, candidates: max(candidates, key=lambda least: score(areas, present, least))


def _answers() -> Iterator[Case]:
    candidates = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2]
    present = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]], dtype=bool)
    specks = np.array([[0.5, 0.015, 0], [0.3, 0.06, 0], [0.01, 0, 0.4], [0, 0.3, 0.03]])
    wrong = np.array([[0.03, 0.3, 0.03], [0.3, 0.06, 0.06], [0.3, 0, 0.015], [0.3, 0.04, 0.04]])
    yield Case("right classes and specks of others", (specks, present, candidates))
    yield Case("many wrong classes", (wrong, present, candidates))
    yield Case("answers without specks", (0.5 * present, present, candidates))


THRESHOLD = Function(
    "(areas, present, candidates) → a candidate",
    _first_best(_count_accuracy),
    _answers,
    [
        (_first_best(_f1), "that one has the best F1; the count alone is asked for"),
        (
            lambda areas, present, candidates: _first_best(_count_accuracy)(areas, present, candidates[::-1]),
            "of several that are equally good the smallest is asked for",
        ),
    ],
)


def _judge_shy(answer: Any) -> None:
    if not callable(answer):
        raise Off("expected a function, label map → (classes, masks)")
    slot = SlotMetric(21)
    draw = torch.Generator().manual_seed(0)
    for classes in ((3, 7, 15), (1, 8, 12, 20), (2, 5, 9, 15, VOID)):
        values = torch.tensor([0, *classes])
        labels = values[torch.randint(len(values), (8, 8), generator=draw)]
        name = f"a label map of the classes {[label for label in classes if label != VOID]}"
        said = to_compare(call(answer, name, (labels,)))
        if not isinstance(said, list) or len(said) != 2 or not isinstance(said[1], Tensor):
            raise Off(f"on {name} expected (classes, masks): a list, and a tensor (N, H, W)")
        try:
            slot.update([int(label) for label in said[0]], said[1], labels)
        except (RecsegError, TypeError) as error:
            raise Off(f"on {name}: {error}") from error
    result = slot.compute()
    if result["slot_iou"] is None:
        raise Off("no slot is a hit, so the slot IoU is a mean over nothing: name at least one class rightly")
    if result["slot_iou"] < 1 - 1e-6:
        raise Off(f"the slot IoU is {result['slot_iou']:.2f}: the masks of the classes that are named have to be true")
    if result["slot_accuracy"] >= 0.5:
        raise Off(f"the slot accuracy is {result['slot_accuracy']:.2f}, not below one half: name fewer classes")


def _masks_of(labels: Tensor, number: int | None) -> tuple[list[int], Tensor]:
    classes = sorted(set(torch.unique(labels).tolist()) - {0, VOID})[:number]
    return classes, (labels == torch.tensor(classes).view(-1, 1, 1))


MIOU = Function(
    "(answers, truths) → mIoU",
    _miou,
    lambda: (
        Case(name, ([truth.roll(1, dims=1).where(truth.roll(1, dims=1) != VOID, 8) for truth in truths], truths))
        for name, truths in _splits().items()
    ),
    [
        (_by_image, "averaged by image; VOC counts all pixels of all images in one table"),
        (_over_all, "labels that occur nowhere are no part of the mean: divide by those that occur"),
        (lambda answers, truths: _miou(answers, _no_void(truths)), "void was counted as background; leave it out"),
        (_accuracy, "that is the pixel accuracy"),
    ],
)

EXERCISES: dict[int, Exercise] = {
    1: MIOU,
    2: INTERVAL,
    3: THRESHOLD,
    4: BLACK,
    5: Custom(
        _judge_shy,
        lambda: [
            (lambda labels: _masks_of(labels, None), "name fewer classes"),
            (lambda labels: ([], torch.zeros(0, *labels.shape)), "no slot is a hit"),
            (lambda labels: (_masks_of(labels, 1)[0], torch.ones(1, *labels.shape)), "have to be true"),
            (lambda labels: labels, "expected (classes, masks)"),
        ],
    ),
}
