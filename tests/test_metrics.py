"""The three protocols, against oracles, brute force and examples worked out by hand."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.classification import MulticlassJaccardIndex

from recseg.errors import RecsegError
from recseg.evaluation.metrics import CalibrationMetric, SetMetric, SlotMetric, VOCMetric

CLASSES = 5
LABELS = st.sampled_from([0, 1, 2, 3, 4, 255])


@st.composite
def voc_images(draw: st.DrawFn) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images = []
    for _ in range(draw(st.integers(1, 4))):
        shape = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
        predicted = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, CLASSES - 1)))
        images.append((torch.tensor(predicted), torch.tensor(draw(hnp.arrays(np.int64, shape, elements=LABELS)))))
    return images


@st.composite
def slot_images(draw: st.DrawFn) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
    images = []
    for _ in range(draw(st.integers(1, 4))):
        classes = draw(st.lists(st.integers(1, CLASSES - 1), max_size=5))
        masks = draw(hnp.arrays(np.bool_, (len(classes), 3, 4)))
        images.append((classes, torch.tensor(masks), torch.tensor(draw(hnp.arrays(np.int64, (3, 4), elements=LABELS)))))
    return images


def score(metric: Any, images: list[Any]) -> dict[str, Any]:
    for image in images:
        metric.update(*image)
    result: dict[str, Any] = metric.compute()
    return result


def check_order_and_merge(make: Any, images: list[Any], cut: int) -> None:
    """Reversing the images changes nothing, nor does giving a part of them to another metric: exactly."""
    expected = score(make(), images)
    assert score(make(), images[::-1]) == expected
    first, second = make(), make()
    score(first, images[:cut])
    score(second, images[cut:])
    assert first.merge(second) is first
    assert first.compute() == expected


# --- VOC


@settings(max_examples=40, deadline=None)
@given(voc_images())
def test_voc_agrees_with_torchmetrics(images: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    ours = score(VOCMetric(CLASSES), images)
    everywhere = "miou_with_absent" if "miou_with_absent" in ours else "miou"  # as torchmetrics takes its mean
    means: dict[Literal["none", "macro"], str] = {"none": "iou_per_class", "macro": everywhere}
    for average, key in means.items():
        oracle = MulticlassJaccardIndex(CLASSES, average=average, ignore_index=255)
        for predicted, labels in images:
            oracle.update(predicted.flatten(), labels.flatten())
        # torchmetrics gives 0, or NaN where all is void, where we give None: no part of either mean.
        value = [v or 0.0 for v in ours[key]] if average == "none" else ours[key] or 0.0
        assert torch.as_tensor(value).tolist() == pytest.approx(oracle.compute().nan_to_num().tolist(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(voc_images(), st.integers(0, 4))
def test_voc_order_and_merge(images: list[tuple[torch.Tensor, torch.Tensor]], cut: int) -> None:
    check_order_and_merge(lambda: VOCMetric(CLASSES), images, cut)


def test_voc_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 255]])
    predicted = torch.tensor([[0, 1, 1, 2]])  # the 2 falls on void: it must not even make class 2 occur
    result = score(VOCMetric(3), [(predicted, truth)])
    assert result["iou_per_class"] == [1 / 2, 1 / 2, None]
    assert result["miou"] == 1 / 2
    assert result["pixel_accuracy"] == 2 / 3
    assert result["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_a_class_that_only_the_network_names_is_in_a_mean_of_its_own() -> None:
    truth = torch.tensor([[0, 0, 1, 1]])
    right, phantom = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 2]])
    assert "miou_with_absent" not in score(VOCMetric(3), [(right, truth)])
    result = score(VOCMetric(3), [(phantom, truth)])
    assert (result["miou"], result["miou_with_absent"]) == (pytest.approx(3 / 4), pytest.approx(1 / 2))
    assert result["iou_per_class"] == [1, 1 / 2, 0]


def test_voc_counts_pixels_of_the_whole_split() -> None:
    """A mean over images would give (1 + 0) / 2 for class 1; the protocol gives 1 of 10 pixels."""
    small, large = torch.tensor([[1]]), torch.ones(1, 9, dtype=torch.int64)
    result = score(VOCMetric(2), [(small, small), (torch.zeros_like(large), large)])
    assert result["iou_per_class"] == [0.0, 1 / 10]


def test_voc_takes_batches_and_small_integers() -> None:
    predicted, labels = torch.randint(0, 4, (3, 5, 6)), torch.randint(0, 4, (3, 5, 6))
    labels[0, 0] = 255
    one_by_one = score(VOCMetric(4), list(zip(predicted, labels, strict=True)))
    assert score(VOCMetric(4), [(predicted.to(torch.uint8), labels.to(torch.uint8))]) == one_by_one


def test_voc_counts_single_pixels_among_many_millions() -> None:
    metric = VOCMetric(2)
    metric.confusion[0, 0] = 1 << 24  # from here on 32-bit floats count in twos
    metric.update(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    assert metric.compute()["confusion"][0][0] == (1 << 24) + 1


def test_voc_all_background_scores_one_class() -> None:
    labels = torch.arange(21).repeat_interleave(10).view(1, -1)
    result = score(VOCMetric(21), [(torch.zeros_like(labels), labels)])
    assert result["miou"] == pytest.approx(10 / 210 / 21)


def test_voc_without_pixels_has_no_score() -> None:
    assert VOCMetric(3).compute()["miou"] is None
    assert VOCMetric(3).compute()["pixel_accuracy"] is None


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([[3]], [[0]], "^predicted label 3 is not one of 0 … 2$"),
        ([[0]], [[7]], "^label 7 is not one of 0 … 2$"),
        ([[0, 1, 2]], [[0, 1, -4]], "^label -4 is"),
        ([[0, 0]], [[0]], "shape"),
    ],
)
def test_voc_refuses_what_is_no_label(predicted: list[list[int]], labels: list[list[int]], message: str) -> None:
    metric = VOCMetric(3)
    with pytest.raises(RecsegError, match=message):
        metric.update(torch.tensor(predicted), torch.tensor(labels))
    assert not metric.confusion.any()


# --- slots


def slot_reference(images: list[Any], num_classes: int, slots: int = 5) -> dict[str, Any]:
    """The protocol as its sentences stand, one pixel at a time."""
    total, hits, own_hits = ([0] * num_classes for _ in range(3))
    ious: list[list[float]] = [[] for _ in range(num_classes)]
    for classes, masks, labels in images:
        pixels = [(y, x) for y in range(labels.shape[0]) for x in range(labels.shape[1])]
        values = {p: 0 if int(labels[p]) == 255 else int(labels[p]) for p in pixels}  # void as background
        true = [k for k in range(1, num_classes) if k in values.values()]
        merged = {
            k: {p for c, m in zip(classes, masks, strict=True) if c == k for p in pixels if m[p]} for k in classes
        }
        predicted = sorted(merged)
        own = [k for i, k in enumerate(classes) if k not in classes[:i]]
        for slot in range(min(slots, len(true))):
            k = true[slot]
            total[k] += 1
            own_hits[k] += slot < len(own) and own[slot] == k
            if slot < len(predicted) and predicted[slot] == k:
                hits[k] += 1
                region = {p for p in pixels if values[p] == k}
                ious[k].append(len(region & merged[k]) / len(region | merged[k]))
    seen = [k for k in range(1, num_classes) if total[k]]

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return {
        "slot_accuracy": mean([hits[k] / total[k] for k in seen]),
        "slot_accuracy_own_order": mean([own_hits[k] / total[k] for k in seen]),
        "slot_iou": mean([sum(ious[k]) / len(ious[k]) for k in seen if ious[k]]),
        "slot_classes_without_hits": [k for k in seen if not hits[k]],
    }


@settings(max_examples=60, deadline=None)
@given(slot_images(), st.integers(1, 3))
def test_slots_agree_with_the_words(images: list[Any], slots: int) -> None:
    ours = score(SlotMetric(CLASSES, slots), images)
    for key, expected in slot_reference(images, CLASSES, slots).items():
        assert ours[key] == (pytest.approx(expected, abs=1e-9) if isinstance(expected, float) else expected), key


@settings(max_examples=40, deadline=None)
@given(slot_images(), st.integers(0, 4))
def test_slots_order_and_merge(images: list[Any], cut: int) -> None:
    check_order_and_merge(lambda: SlotMetric(CLASSES), images, cut)


def test_slots_by_hand() -> None:
    labels = torch.tensor([[2, 2, 4, 4, 255, 0]])
    masks = torch.tensor([[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]]).bool().view(3, 1, 6)
    # Steps 4, 2, 2: the two of class 2 are merged and cover its two pixels and a void one (IoU 2/3).
    result = score(SlotMetric(6), [([4, 2, 2], masks, labels)])
    assert result["slot_accuracy_per_class"] == [None, 1.0, None, 1.0, None]
    assert result["slot_iou_per_class"] == [None, pytest.approx(2 / 3), None, 1.0, None]
    assert result["slot_iou"] == pytest.approx(5 / 6)
    assert result["slot_accuracy_own_order"] == 0.0  # 4 stands in slot 1 and 2 in slot 2: both wrong as emitted


def test_a_class_too_many_shifts_the_later_slots() -> None:
    labels = torch.tensor([[2, 3]])
    masks = torch.tensor([[[False, False]], [[True, False]], [[False, True]]])
    result = score(SlotMetric(4), [([1, 2, 3], masks, labels)])
    assert result["slot_accuracy"] == 0.0
    assert result["slot_iou"] is None
    assert result["slot_classes_without_hits"] == [2, 3]


def test_slot_iou_looks_at_hits_only() -> None:
    labels = torch.tensor([[1, 1]])
    hit = ([1], torch.tensor([[[True, False]]]), labels)
    miss = ([2], torch.tensor([[[True, True]]]), labels)
    result = score(SlotMetric(3), [hit, miss, miss, miss])
    assert (result["slot_accuracy"], result["slot_iou"]) == (1 / 4, 1 / 2)


def test_slots_of_a_perfect_answer_and_of_none() -> None:
    labels = torch.tensor([[1, 3], [0, 255]])
    perfect = score(SlotMetric(4), [([1, 3], torch.stack([labels == 1, labels == 3]), labels)])
    assert perfect["slot_accuracy"] == perfect["slot_iou"] == perfect["slot_accuracy_own_order"] == 1.0
    empty = score(SlotMetric(4), [([], torch.zeros(0, 2, 2, dtype=torch.bool), labels)])
    assert (empty["slot_accuracy"], empty["slot_iou"]) == (0.0, None)


@pytest.mark.parametrize("wrong", [0, 4, 255])
def test_slots_refuse_what_is_no_foreground_class(wrong: int) -> None:
    with pytest.raises(RecsegError, match=f"^class {wrong} is not one of 1 … 3$"):
        SlotMetric(4).update([wrong], torch.ones(1, 2, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.int64))


def test_slots_refuse_masks_of_another_size() -> None:
    with pytest.raises(RecsegError, match="do not match"):
        SlotMetric(4).update([1], torch.ones(1, 3, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.int64))


# --- sets


SETS = st.lists(
    st.tuples(
        st.sets(st.integers(1, CLASSES - 1)), st.sets(st.integers(1, CLASSES - 1)), st.integers(0, 5)
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(SETS, st.integers(0, 5))
def test_sets_are_pooled_over_images(images: list[tuple[set[int], set[int], int]], cut: int) -> None:
    check_order_and_merge(SetMetric, images, cut)
    named = [(i, k) for i, (predicted, _, _) in enumerate(images) for k in predicted]
    present = [(i, k) for i, (_, true, _) in enumerate(images) for k in true]
    both = [pair for pair in named if pair in present]
    result = score(SetMetric(), images)
    if named and present:
        precision, recall = len(both) / len(named), len(both) / len(present)
        assert result["label_set_precision"] == precision
        assert result["label_set_recall"] == recall
        harmonic = 2 * precision * recall / (precision + recall) if both else 0.0
        assert result["label_set_f1"] == pytest.approx(harmonic)
    assert result["count_accuracy"] == sum(s == len(t) for _, t, s in images) / len(images)
    assert result["mean_steps"] == sum(s for _, _, s in images) / len(images)


def test_sets_by_hand() -> None:
    # Image 1: one of two found, in the right number of steps. Image 2: right, but a step was repeated.
    result = score(SetMetric(), [([1, 5], [1, 2], 2), ([3, 3], {3}, 2)])
    assert result == {
        "label_set_precision": 2 / 3,
        "label_set_recall": 2 / 3,
        "label_set_f1": 2 / 3,
        "count_accuracy": 1 / 2,
        "mean_steps": 2.0,
        "images": 2,
    }


def test_sets_leave_out_background_and_void() -> None:
    result = score(SetMetric(), [([1], [0, 1, 255], 1)])
    assert result["label_set_f1"] == result["count_accuracy"] == 1.0


def test_sets_of_pictures_of_nothing() -> None:
    right = score(SetMetric(), [([], [], 0)])
    assert right["label_set_precision"] == right["label_set_recall"] == right["label_set_f1"] == 1.0
    silent = score(SetMetric(), [([], [1], 0)])
    assert silent["label_set_precision"] == silent["label_set_recall"] == silent["label_set_f1"] == 0.0


# --- calibration


def stop_metric() -> CalibrationMetric:
    return CalibrationMetric("stop", "ended")


def test_calibration_by_hand() -> None:
    result = score(stop_metric(), [([0.25, 0.25, 0.75], [False, False, True])])
    assert result["stop_calibration"] == [
        {"probability": 0.25, "ended": 0.0, "decisions": 2},
        {"probability": 0.75, "ended": 1.0, "decisions": 1},
    ]
    assert result["stop_calibration_error"] == pytest.approx(0.25)
    assert stop_metric().compute() == {"stop_calibration_error": None, "stop_calibration": []}


def test_there_are_five_slots_and_ten_bins() -> None:
    assert SlotMetric(9).slots == 5 and len(stop_metric().decisions) == 10
    sure = score(stop_metric(), [([0.05, 0.85, 0.95, 1.0, 1.0], [True, False, True, True, False])])["stop_calibration"]
    assert [row["decisions"] for row in sure] == [1, 1, 3]
    assert sure[2]["ended"] == pytest.approx(2 / 3) and sure[2]["probability"] == pytest.approx(2.95 / 3)


def test_each_probability_has_an_outcome() -> None:
    for said, happened in (([0.5, 0.5], [True]), ([0.5], [True, False])):
        with pytest.raises(ValueError, match="zip"):
            stop_metric().update(said, happened)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=5), max_size=4), st.integers(0, 4))
def test_calibration_order_and_merge(images: list[Any], cut: int) -> None:
    said_and_true = [([said for said, _ in image], [true for _, true in image]) for image in images]
    check_order_and_merge(stop_metric, said_and_true, cut)


def test_metrics_of_different_shape_do_not_merge() -> None:
    for one, other in (
        (VOCMetric(3), VOCMetric(4)),
        (SlotMetric(3), SlotMetric(3, 4)),
        (stop_metric(), CalibrationMetric("stop", "ended", 5)),
    ):
        with pytest.raises(RecsegError, match="merge"):
            one.merge(other)  # type: ignore[arg-type]
