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
    """Scored: road has its share of the pixels, the other labels the rest alike; the answer is road everywhere."""
    others = torch.arange(1, labels).repeat_interleave(100 - share)
    truth = torch.cat([torch.zeros(share * (labels - 1), dtype=torch.long), others])  # (N,)
    metric = VOCMetric(labels)
    metric.update(torch.zeros_like(truth)[None], truth[None])
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


def _voc(answers: Maps, truths: Maps) -> float:
    metric = VOCMetric(21)
    for answer, truth in zip(answers, truths, strict=True):
        metric.update(answer, truth)
    return float(metric.compute()["miou"])


def _by_image(absent: float) -> Rule:
    def rule(answers: Maps, truths: Maps) -> float:
        scores = []
        for answer, truth in zip(answers, truths, strict=True):
            metric = VOCMetric(21)
            metric.update(answer, truth)
            ious = [absent if iou is None else iou for iou in metric.compute()["iou_per_class"]]
            scores.append(sum(ious) / len(ious))
        return sum(scores) / len(scores)

    return rule


def _accuracy(answers: Maps, truths: Maps) -> float:
    known = [truth != VOID for truth in truths]
    right = sum(int((a == t)[k].sum()) for a, t, k in zip(answers, truths, known, strict=True))
    return right / sum(int(k.sum()) for k in known)


def _with_void(answers: Maps, truths: Maps) -> float:
    return _voc(answers, [truth.where(truth != VOID, 0) for truth in truths])


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
        raise Off("expected a function, (rule, truths) → nothing, which raises an error")
    call(lambda *given: answer(*given) or True, "VOC's own rule, which is right,", (_voc, _truths()))
    for name, rule in FAULTY.items():
        try:
            answer(rule, _truths())
        except AssertionError:
            continue
        except Exception as error:
            raise Off(f"on {name} it stops with {what_happened(error, answer)}; expected an AssertionError") from error
        raise Off(f"it says nothing of {name}; a perfect and an all-background answer must get the score that you know")


def _only_perfect(rule: Rule, truths: Maps) -> None:
    assert abs(rule([truth.where(truth != VOID, 0) for truth in truths], truths) - 1) < 1e-6


def _no_black(rule: Rule, truths: Maps) -> None:
    assert rule([torch.zeros_like(truth) for truth in truths], truths) == 0


EXERCISES: dict[int, Exercise] = {
    1: ROAD,
    3: SWAP,
    5: Custom(
        _judge_check,
        lambda: [
            (_only_perfect, "says nothing of"),
            (lambda rule, truths: None, "says nothing of"),
            (_no_black, "VOC's own rule, which is right, your answer stops with"),
            (1.0, "expected a function"),
        ],
    ),
}
