"""Scores from counts of images equal those of the metrics; intervals equal SciPy's; all against oracles."""

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recseg.evaluation.answers import Answer
from recseg.evaluation.bootstrap import MEASURES, interval, measure, resamples
from recseg.evaluation.scores import ImageCounts, Scores

CLASSES = 4


def random_scores(images: int, seed: int) -> Scores:
    """Noisy answers to small random label maps, with steps that repeat, and void."""
    generator = torch.Generator().manual_seed(seed)
    scores = Scores(CLASSES)
    for place in range(images):
        labels = torch.randint(0, CLASSES, (6, 7), generator=generator)
        wrong = torch.rand(6, 7, generator=generator) < 0.3
        predicted = torch.where(wrong, torch.randint(0, CLASSES, (6, 7), generator=generator), labels)
        labels[torch.rand(6, 7, generator=generator) < 0.1] = 255
        steps = torch.randint(1, CLASSES, (int(torch.randint(0, 4, (), generator=generator)),), generator=generator)
        masks = torch.rand(len(steps), 256, 256, generator=generator) < 0.5
        present = sorted(set(labels.flatten().tolist()) - {0, 255})
        scores.update(place, Answer(predicted, steps.tolist(), masks, [], [], []), labels.to(torch.uint8), present)
    return scores


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_counts_of_images_give_the_scores_of_the_metrics(images: int, seed: int) -> None:
    scores = random_scores(images, seed)
    expected = scores.compute()
    found = measure(list(scores.images.values()), CLASSES, np.ones((1, images)))
    for key in (*MEASURES, "iou_per_class"):
        oracle = np.array(expected[key], dtype=float)  # None is NaN
        assert np.allclose(found[key][0], oracle, equal_nan=True), key
    pixels = [n for image in scores.images.values() for *_, n in image.confusion]
    assert sum(pixels) == sum(map(sum, expected["confusion"]))


def test_an_image_that_is_drawn_twice_counts_twice() -> None:
    images = list(random_scores(3, 5).images.values())
    drawn = measure(images, CLASSES, np.array([[2.0, 0.0, 1.0]]))
    written_out = measure([images[0], images[0], images[2]], CLASSES, np.ones((1, 3)))
    for key, values in drawn.items():
        assert np.allclose(values, written_out[key], equal_nan=True), key


def flat(pixels: Sequence[Sequence[int]]) -> ImageCounts:
    return ImageCounts([list(entry) for entry in pixels], [], [], [], [])


def test_a_class_that_is_invented_is_in_no_mean() -> None:
    """Class 3 is nowhere in the ground truth: its pixels are misses of class 1, and it has no IoU of its own."""
    found = measure([flat([(0, 0, 6), (1, 1, 2), (1, 3, 2)])], CLASSES, np.ones((1, 1)))
    assert found["iou_per_class"][0][:2].tolist() == [1.0, 0.5]
    assert np.isnan(found["iou_per_class"][0][2:]).all()
    assert found["miou"][0] == 0.75


def test_resamples_keep_the_number_of_images() -> None:
    drawn = resamples(7, 500, seed=1)
    assert drawn.shape == (501, 7)
    assert (drawn[0] == 1).all() and (drawn.sum(axis=1) == 7).all()
    assert np.array_equal(drawn, resamples(7, 500, seed=1))
    assert drawn[1:].var() == pytest.approx(7 * (1 / 7) * (6 / 7), rel=0.1)  # of a multinomial


def test_the_interval_of_a_paired_difference_is_that_of_scipy() -> None:
    """Two networks on the same 60 images, of one class: the difference of two ratios of sums."""
    generator = np.random.default_rng(3)
    pixels = generator.integers(20, 60, 60)
    hits = [generator.binomial(pixels, p) for p in (0.7, 0.6)]
    of = [[flat([(0, 0, 5), (1, 1, int(h)), (1, 0, int(n - h))]) for h, n in zip(found, pixels, strict=True)]
          for found in hits]  # fmt: skip
    weights = resamples(60, 20_000)
    ours = interval(np.subtract(*(measure(each, 2, weights)["iou_per_class"][:, 1] for each in of)))

    def difference(n: np.ndarray, a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        differences: np.ndarray = (a.sum(axis) - b.sum(axis)) / n.sum(axis)
        return differences

    oracle = scipy.stats.bootstrap(
        (pixels, *hits), difference, paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=0
    ).confidence_interval
    assert ours.value == pytest.approx((hits[0].sum() - hits[1].sum()) / pixels.sum())
    assert [ours.low, ours.high] == pytest.approx([oracle.low, oracle.high], abs=1e-3)


def test_an_interval_leaves_out_draws_on_which_nothing_is_defined() -> None:
    assert interval(np.array([0.5, 0.4, np.nan, 0.4])) == (0.5, 0.4, 0.4)
    assert np.isnan(interval(np.array([np.nan, np.nan]))[1:]).all()
