"""Label maps and sequences are two ways to say one thing; matching is the best of all assignments."""

import itertools
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.optimize import linear_sum_assignment

from recseg.classes import VOID
from recseg.errors import RecsegError
from recseg.training.config import ORDERS
from recseg.training.targets import class_areas, match, to_labels, to_sequence

STEPS = 5


@st.composite
def label_maps(draw: st.DrawFn, most: int = STEPS) -> torch.Tensor:
    """A label map (1, H, W) of at most `most` of VOC's classes, background and void among them."""
    classes = draw(st.lists(st.integers(1, 20), max_size=most, unique=True))
    shape = (draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    return torch.from_numpy(draw(arrays(np.int64, shape, elements=st.sampled_from([0, VOID, *classes]))))[None]


@given(labels=label_maps(), order=st.sampled_from(ORDERS))
def test_round_trip_is_the_identity(labels: torch.Tensor, order: str) -> None:
    sequence = to_sequence(labels, STEPS, num_classes=21, order=order)
    assert torch.equal(to_labels(sequence), labels)
    assert torch.equal(sequence.valid, labels != VOID)


@given(labels=label_maps())
def test_lengths_and_orders(labels: torch.Tensor) -> None:
    present = sorted(set(labels.flatten().tolist()) - {0, VOID})
    areas = class_areas(labels, 21)[0]
    by_class = to_sequence(labels, STEPS, num_classes=21, order="class")
    by_area = to_sequence(labels, STEPS, num_classes=21, order="area")
    assert by_class.lengths.tolist() == by_area.lengths.tolist() == [len(present)]
    assert by_class.classes[0].tolist() == present + [0] * (STEPS - len(present))
    sizes = areas[by_area.classes[0, : len(present)]].tolist()
    assert sizes == sorted(sizes, reverse=True)
    assert areas.tolist() == [(labels == label).sum().item() for label in range(21)]


def test_more_classes_than_steps_keeps_the_largest_and_warns() -> None:
    labels = torch.tensor([[[1, 2, 2, 3, 3, 3, 0, VOID]], [[4, 4, 4, 4, 4, 4, 0, VOID]]])
    with pytest.warns(UserWarning, match="^images with more than 2 classes: 1; .* dropped: 1$"):
        sequence = to_sequence(labels, 2, num_classes=21, order="area")
    with pytest.warns(UserWarning, match="^images with more than 1 classes: 2; .*: 3$"):
        to_sequence(torch.tensor([[[1, 2, 3, 0]], [[5, 6, 0, 0]]]), 1, num_classes=21)
    assert sequence.classes.tolist() == [[3, 2], [4, 0]]
    assert sequence.lengths.tolist() == [2, 1]
    assert to_labels(sequence)[0].tolist() == [[VOID, 2, 2, 3, 3, 3, 0, VOID]]  # dropped is void, not background
    assert torch.equal(to_labels(sequence)[1], labels[1])


def test_a_gpu_is_not_asked_whether_classes_are_dropped() -> None:
    labels = torch.tensor([[[1, 2, 2, 3]], [[4, 4, 4, 4]]], device="meta")  # shapes without values, in its place
    sequence = to_sequence(labels, 2, num_classes=21)
    assert sequence.labels.shape == labels.shape and sequence.labels.device == labels.device


def test_fewer_classes_than_steps_in_the_label_set() -> None:
    sequence = to_sequence(torch.tensor([[[0, 1]]]), 4, num_classes=2)
    assert sequence.classes.tolist() == [[1, 0, 0, 0]] and sequence.masks.shape == (1, 4, 1, 2)


@pytest.mark.parametrize("label", [21, 254, -1])
def test_foreign_label_is_named(label: int) -> None:
    with pytest.raises(RecsegError, match=f"label {label}: expected 0 to 20, or 255 for void"):
        to_sequence(torch.tensor([[[0, label]]]), STEPS, num_classes=21)


def test_unknown_order_is_named() -> None:
    with pytest.raises(RecsegError, match="^order 'size': expected one of matched, class, area$"):
        to_sequence(torch.zeros(1, 2, 2, dtype=torch.long), STEPS, num_classes=21, order="size")


def test_one_label_map_is_no_batch() -> None:
    with pytest.raises(RecsegError, match=r"shape \(4, 3\): expected \(B, H, W\)"):
        to_sequence(torch.zeros(4, 3, dtype=torch.long), STEPS, num_classes=21)


@pytest.mark.parametrize("most", [STEPS, 7])  # all permutations; SciPy, for each image
@settings(max_examples=60)
@given(data=st.data())
def test_matching_equals_scipy(most: int, data: st.DataObject) -> None:
    cost = data.draw(arrays(np.float64, (3, most, most), elements=st.floats(-100, 100)))
    lengths = data.draw(st.lists(st.integers(0, most), min_size=3, max_size=3))
    found = match(torch.from_numpy(cost), torch.tensor(lengths))
    for matrix, length, row in zip(cost, lengths, found, strict=True):
        assert sorted(row[:length].tolist()) == list(range(length))
        assert row[length:].tolist() == list(range(length, most))
        matrix = matrix[:length, :length].astype(np.float32)  # the precision that matching works in
        steps, targets = linear_sum_assignment(matrix)
        best = matrix[steps, targets].sum()
        assert matrix[range(length), row[:length].tolist()].sum() == pytest.approx(best, abs=1e-3)


def test_matching_more_than_five_steps() -> None:
    cost = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(0))
    found = match(cost, torch.tensor([7, 3]))
    least = min(sum(cost[1, t, p[t]].item() for t in range(3)) for p in itertools.permutations(range(3)))
    assert sum(cost[1, t, found[1, t]].item() for t in range(3)) == pytest.approx(least)
    assert found[1, 3:].tolist() == [3, 4, 5, 6] and sorted(found[0].tolist()) == list(range(7))


def test_of_two_classes_of_one_size_the_lower_label_comes_first() -> None:
    labels = torch.arange(1, 33).repeat(2)[torch.randperm(64, generator=torch.Generator().manual_seed(0))].view(1, 8, 8)
    assert to_sequence(labels, 32, num_classes=33, order="area").classes[0].tolist() == list(range(1, 33))


@pytest.mark.parametrize("steps", [3, 7])  # all permutations; SciPy
def test_costs_beyond_the_length_do_not_count(steps: int) -> None:
    cost = torch.full((1, steps, steps), float("nan"))
    cost[0, :2, :2] = torch.tensor([[5.0, 1.0], [1.0, 5.0]])
    assert match(cost, torch.tensor([2])).tolist() == [[1, 0, *range(2, steps)]]


def test_huge_costs_are_matched_too() -> None:
    cost = torch.full((1, 5, 5), 1e12)  # of a training about to diverge
    assert sorted(match(cost, torch.tensor([2]))[0, :2].tolist()) == [0, 1]


@pytest.mark.parametrize("steps", [3, 7])
def test_a_cost_that_is_no_number_is_an_error(steps: int) -> None:
    cost = torch.zeros(1, steps, steps)
    cost[0, 0, 1] = float("nan")
    with pytest.raises(RecsegError, match="^matching: a cost is not finite, .* lower learning rate$"):
        match(cost, torch.tensor([2]))


@pytest.mark.skipif("RECSEG_VOC_ROOT" not in os.environ, reason="RECSEG_VOC_ROOT is not set")
def test_round_trip_of_every_real_mask() -> None:
    folder = Path(os.environ["RECSEG_VOC_ROOT"]) / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    masks = sorted(folder.glob("*.png"))
    assert masks
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is dropped: five steps hold every image of VOC
        for number, path in enumerate(masks):
            labels = torch.from_numpy(np.array(Image.open(path)).astype(np.int64))[None]
            order = ("class", "area")[number % 2]
            assert torch.equal(to_labels(to_sequence(labels, STEPS, num_classes=21, order=order)), labels), path
