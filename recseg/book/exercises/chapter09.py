"""Exercises of chapter 9: scores."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from recseg.book.exercises.comparison import to_compare
from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Off
from recseg.book.exercises.inputs import label_maps
from recseg.book.exercises.running import call
from recseg.classes import VOID
from recseg.errors import RecsegError
from recseg.evaluation.metrics import SlotMetric, VOCMetric

Maps = Sequence[Tensor]


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
        "two pictures without void": [maps["a map of four classes"], maps["a map of a cat and a dog"]],
        "pictures with void": [maps["a map with void pixels"], maps["a map without background, with void"]],
        "a picture that is all void, and another": [maps["a map that is all void"], maps["a map of four classes"]],
        "a picture that is all background": [maps["a map that is all background"]],
    }


BLACK = Function(
    "label maps → mIoU of background everywhere",
    _on_black(_miou),
    lambda: (Case(name, (truths,)) for name, truths in _splits().items()),
    [
        (_on_black(_accuracy), "that is the pixel accuracy; the mIoU is a mean over labels, and the others have 0"),
        (_on_black(_over_all), "labels that occur nowhere are no part of the mean: divide by those that occur"),
        (_on_black(_by_image), "averaged by image; VOC counts all pixels of all pictures in one table"),
        (lambda truths: _on_black(_miou)(_no_void(truths)), "void was counted as background; leave it out"),
    ],
)


def _dice(confusion: Tensor) -> Tensor:
    """From the package's IoU: 2 IoU / (1 + IoU), NaN where a label is neither true nor predicted."""
    metric = VOCMetric(len(confusion))
    metric.confusion += confusion
    ious = metric.compute()["iou_per_class"]
    iou = torch.tensor([torch.nan if value is None else value for value in ious], dtype=torch.float64)
    return 2 * iou / (1 + iou)


def _counts(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = confusion.double()
    return n.diagonal(), n.sum(dim=1), n.sum(dim=0)  # hits, true, predicted


def _ratio(rule: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda confusion: rule(*_counts(confusion))


def _matrices() -> Iterator[Case]:
    draw = torch.Generator().manual_seed(0)
    full = torch.randint(0, 50, (4, 4), generator=draw)
    absent = full.clone()
    absent[2, :] = absent[:, 2] = 0
    missed = full.clone()
    missed[:, 1] = 0
    yield Case("a full matrix", (full,))
    yield Case("a label that is neither true nor predicted", (absent,))
    yield Case("a label that is never predicted", (missed,))


DICE = Function(
    "confusion matrix (C, C) → Dice (C,), NaN where a label does not occur",
    _dice,
    _matrices,
    [
        (_ratio(lambda hits, rows, columns: hits / (rows + columns - hits)), "that is the IoU"),
        (
            _ratio(lambda hits, rows, columns: hits / (rows + columns)),
            "the factor 2 is missing: a perfect answer has 1",
        ),
        (
            _ratio(lambda hits, rows, columns: hits / rows),
            "that is the recall: it does not see what was predicted wrongly",
        ),
        (
            lambda confusion: _dice(confusion).nan_to_num(),
            "a label that does not occur has no Dice: NaN and not 0, or it would lower a mean",
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


def _named(labels: Tensor, number: int | None) -> tuple[list[int], Tensor]:
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
        (_by_image, "averaged by image; VOC counts all pixels of all pictures in one table"),
        (_over_all, "labels that occur nowhere are no part of the mean: divide by those that occur"),
        (lambda answers, truths: _miou(answers, _no_void(truths)), "void was counted as background; leave it out"),
        (_accuracy, "that is the pixel accuracy"),
    ],
)

EXERCISES: dict[int, Exercise] = {
    1: BLACK,
    2: DICE,
    3: Custom(
        _judge_shy,
        lambda: [
            (lambda labels: _named(labels, None), "name fewer classes"),
            (lambda labels: ([], torch.zeros(0, *labels.shape)), "no slot is a hit"),
            (lambda labels: (_named(labels, 1)[0], torch.ones(1, *labels.shape)), "have to be true"),
            (lambda labels: labels, "expected (classes, masks)"),
        ],
    ),
    5: MIOU,
}
