"""Exercises of chapter 13: reading a paper's code."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Off
from recseg.book.exercises.inputs import label_maps
from recseg.book.exercises.running import call, what_happened
from recseg.classes import VOID
from recseg.evaluation.metrics import SetMetric, SlotMetric
from recseg.models.config import UNetConfig
from recseg.models.unet import UNet


def _flip(labels: Tensor) -> Tensor:
    return torch.where((labels > 0) & (labels < 21), 21 - labels, labels)


FLIP = Function(
    "label map → label map",
    _flip,
    lambda: (Case(name, (labels,)) for name, labels in label_maps().items()),
    [
        (lambda labels: 21 - labels, "background and void are flipped, too; they keep their numbers"),
        (lambda labels: labels.where(labels == VOID, 21 - labels), "background becomes 21; it stays 0"),
        (
            lambda labels: torch.where((labels > 0) & (labels < 21), 20 - labels, labels),
            "off by one: 20 becomes 0, which is background; the first and the last class are 1 and 20",
        ),
        (lambda labels: labels.where(labels == 0, 21 - labels), "void is flipped, too; it stays 255"),
    ],
)


def _present(labels: Tensor) -> set[int]:
    return set(torch.unique(labels).tolist()) - {0, VOID}


def _by_class(named: Sequence[Sequence[int]], ground_truths: Sequence[Tensor]) -> float:
    """A recall for each class, by the package's own set metric, and their mean."""
    recalls = []
    for label in sorted(set().union(*map(_present, ground_truths))):
        metric = SetMetric()
        for classes, ground_truth in zip(named, ground_truths, strict=True):
            metric.update({label} & set(classes), {label} & _present(ground_truth), steps=0)
        recalls.append(metric.compute()["label_set_recall"])
    return float(sum(recalls) / len(recalls))


def _pooled(named: Sequence[Sequence[int]], ground_truths: Sequence[Tensor]) -> float:
    metric = SetMetric()
    for classes, ground_truth in zip(named, ground_truths, strict=True):
        metric.update(classes, _present(ground_truth), steps=len(classes))
    return float(metric.compute()["label_set_recall"])


def _by_slot(named: Sequence[Sequence[int]], ground_truths: Sequence[Tensor]) -> float:
    metric = SlotMetric(21)
    for classes, ground_truth in zip(named, ground_truths, strict=True):
        metric.update(classes, torch.ones(len(classes), *ground_truth.shape), ground_truth)
    return float(metric.compute()["slot_accuracy"])


def _answers() -> Iterator[Case]:
    maps = label_maps()
    four, pair = maps["a map of four classes"], maps["a map of a cat and a dog"]
    void, black = maps["a map with void pixels"], maps["a map that is all background"]
    yield Case("a missed class", ([[3, 15, 20], [8, 12]], [four, pair]))
    yield Case("a class too many", ([[2, 3, 7, 15, 20], [12]], [four, pair]))
    yield Case("a class that is named twice", ([[15, 15], [8]], [void, pair]))
    yield Case("classes in another order", ([[20, 15, 7], [12, 8], []], [four, pair, void]))
    yield Case("an image without classes", ([[8], [12]], [black, pair]))


NAMED = Function(
    "(named, ground_truths) → mean over classes",
    _by_class,
    _answers,
    [
        (_by_slot, "that is the slot accuracy: a class counts wherever it stands, so compare names, not positions"),
        (_pooled, "all classes were pooled; take the share for each class, then the mean over classes"),
    ],
)


def _network(training: bool) -> nn.Module:
    config = UNetConfig(num_classes=3, encoder_widths=(4, 8), decoder_widths=(4,))
    return UNet(config).train(training)


def _judge_alone(answer: Any) -> None:
    if not callable(answer):
        raise Off("expected a function, (network, images) → nothing, which raises an error")
    images = torch.rand(4, 3, 16, 16)
    call(lambda *given: answer(*given) or True, "a network in eval mode, which is fine,", (_network(False), images))
    try:
        answer(_network(True), images)
    except AssertionError:
        return
    except Exception as error:
        happened = what_happened(error, answer)
        raise Off(f"on a network in training mode it stops with {happened}; expected an AssertionError") from error
    raise Off("it says nothing of a network in training mode, whose answers depend on the batch")


def _asserting(right: Callable[[nn.Module, Tensor], bool]) -> Callable[[nn.Module, Tensor], None]:
    def check(network: nn.Module, images: Tensor) -> None:
        with torch.no_grad():
            assert right(network, images)

    return check


EXERCISES: dict[int, Exercise] = {
    2: FLIP,
    3: NAMED,
    5: Custom(
        _judge_alone,
        lambda: [
            (lambda network, images: None, "says nothing of a network in training mode"),
            (_asserting(lambda network, images: False), "which is fine, your answer stops with AssertionError"),
            (
                _asserting(lambda network, images: network(images)[0].shape == network(images[:1])[0].shape),
                "says nothing of a network in training mode",
            ),
            (True, "expected a function"),
        ],
    ),
}
