"""Exercises of chapter 10: why a score is low."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Number, Off
from recseg.book.exercises.inputs import label_maps
from recseg.book.exercises.running import call, what_happened
from recseg.classes import VOC_CLASSES, VOID
from recseg.evaluation.metrics import VOCMetric

Maps = Sequence[Tensor]
Rule = Callable[[Maps, Maps], float]


def _road(share: int = 37, labels: int = 19) -> float:
    """By scoring road everywhere, where road has a share of the pixels and the other labels equal parts of the rest."""
    others = torch.arange(1, labels).repeat_interleave(100 - share)
    ground_truth = torch.cat([torch.zeros(share * (labels - 1), dtype=torch.long), others])  # (N,)
    metric = VOCMetric(labels)
    metric.update(torch.zeros_like(ground_truth)[None], ground_truth[None])
    return float(metric.compute()["miou"])


ROAD = Number(
    "the mIoU",
    _road,
    lambda: [
        (0.37, "that is the pixel accuracy, and road's own IoU; the other labels have 0, and the mIoU is the mean"),
        (_road(labels=20), "there is no background beside the 19 labels: divide by 19"),
        (_road(labels=21), "VOC has 21 labels; this set has 19"),
        (0.37 / 18, "road is one of the labels, too: divide by 19"),
    ],
    share=True,
)

CAT, DOG = VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")


def _swap(labels: Tensor) -> Tensor:
    return torch.where(labels == CAT, DOG, torch.where(labels == DOG, CAT, labels))


SWAP = Function(
    "label map → label map",
    _swap,
    lambda: (Case(name, (labels,)) for name, labels in label_maps().items()),
    [
        (
            lambda labels: labels.where(labels != DOG, CAT),
            "both are cats now: what has become a dog is turned back by the second line; look at the old labels",
        ),
        (
            lambda labels: labels.where(labels != CAT, DOG),
            "both are dogs now: what has become a cat is turned back by the second line; look at the old labels",
        ),
        (lambda labels: labels.clone(), "nothing has changed: do you return the old map?"),
    ],
)


def _voc(answers: Maps, ground_truths: Maps) -> float:
    metric = VOCMetric(21)
    for answer, ground_truth in zip(answers, ground_truths, strict=True):
        metric.update(answer, ground_truth)
    return float(metric.compute()["miou"])


def _by_image(absent: float) -> Rule:
    def rule(answers: Maps, ground_truths: Maps) -> float:
        scores = []
        for answer, ground_truth in zip(answers, ground_truths, strict=True):
            metric = VOCMetric(21)
            metric.update(answer, ground_truth)
            ious = [absent if iou is None else iou for iou in metric.compute()["iou_per_class"]]
            scores.append(sum(ious) / len(ious))
        return sum(scores) / len(scores)

    return rule


def _accuracy(answers: Maps, ground_truths: Maps) -> float:
    known = [labels != VOID for labels in ground_truths]
    right = sum(int((a == t)[k].sum()) for a, t, k in zip(answers, ground_truths, known, strict=True))
    return right / sum(int(k.sum()) for k in known)


def _with_void(answers: Maps, ground_truths: Maps) -> float:
    return _voc(answers, [labels.where(labels != VOID, 0) for labels in ground_truths])


FAULTY: dict[str, Rule] = {
    "a mean over images in which absent classes count 0": _by_image(0.0),
    "a mean over images in which absent classes count 1": _by_image(1.0),
    "the pixel accuracy": _accuracy,
    "a rule that counts void as background": _with_void,
}


def _truths() -> list[Tensor]:
    maps = label_maps()
    return [maps[name] for name in ("a map of four classes", "a map with void pixels", "a map of a cat and a dog")]


def _judge_check(answer: Any) -> None:
    if not callable(answer):
        raise Off("expected a function, (rule, ground_truths) → nothing, which raises an error")
    call(lambda *given: answer(*given) or True, "VOC's own rule, which is right,", (_voc, _truths()))
    for name, rule in FAULTY.items():
        try:
            answer(rule, _truths())
        except AssertionError:
            continue
        except Exception as error:
            raise Off(f"on {name} it stops with {what_happened(error, answer)}; expected an AssertionError") from error
        raise Off(f"it says nothing of {name}; a perfect and an all-background answer must get the score that you know")


def _only_perfect(rule: Rule, ground_truths: Maps) -> None:
    perfect = [labels.where(labels != VOID, 0) for labels in ground_truths]
    assert abs(rule(perfect, ground_truths) - 1) < 1e-6


def _no_black(rule: Rule, ground_truths: Maps) -> None:
    assert rule([torch.zeros_like(labels) for labels in ground_truths], ground_truths) == 0


EXERCISES: dict[int, Exercise] = {
    1: ROAD,
    3: SWAP,
    5: Custom(
        _judge_check,
        lambda: [
            (_only_perfect, "says nothing of"),
            (lambda rule, ground_truths: None, "says nothing of"),
            (_no_black, "VOC's own rule, which is right, your answer stops with"),
            (1.0, "expected a function"),
        ],
    ),
}
