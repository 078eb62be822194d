"""Joint transforms: labels are names, so no transform may mix them, move them off their pixels or make one up."""

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from recseg.classes import VOC_CLASSES, VOID, palette
from recseg.data import Sample, open_dataset
from recseg.data.images import MEAN_COLOUR
from recseg.data.transforms import (
    change_colours,
    eval_transform,
    nearest,
    resize,
    resize_short_side,
    train_transform,
)
from recseg.errors import RecsegError

sides = st.integers(1, 40)
label_maps = st.tuples(sides, sides).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([*range(21), VOID]))
)


def sample_of(labels: np.ndarray | torch.Tensor) -> Sample:
    """A sample whose image shows its label in each channel, so that image and mask can be compared."""
    labels = torch.as_tensor(labels)
    image = labels.to(torch.uint8).expand(3, *labels.shape).clone()
    return Sample(image, labels.long(), "id")


def blocks(height: int = 60, width: int = 90) -> torch.Tensor:
    """A left half of label 40 and a right half of label 200."""
    labels = torch.full((height, width), 40)
    labels[:, width // 2 :] = 200
    return labels


# The palette trap


def test_the_palette_trap() -> None:
    """Halfway from background to aeroplane in colour lies cat: a mask resized as an image invents one.

    17 pairs of VOC's 21 colours blend at 50:50 to the colour of a third class.
    """
    colours = {tuple(colour): label for label, colour in enumerate(palette(21).tolist())}
    pairs = [(a, b) for b in range(21) for a in range(b)]
    blends = {pair: colours.get(tuple((palette(21)[list(pair)].sum(axis=0) // 2).tolist())) for pair in pairs}
    invented = {pair: label for pair, label in blends.items() if label is not None}
    assert len(invented) == 17
    cat, aeroplane = VOC_CLASSES.index("cat"), VOC_CLASSES.index("aeroplane")
    assert invented[0, aeroplane] == cat

    labels = np.zeros((64, 64), dtype=np.int64)
    labels[:, 31:] = aeroplane
    as_picture = torch.from_numpy(palette()[labels]).permute(2, 0, 1)
    resized = F.resize(as_picture, [32, 32], antialias=False).permute(1, 2, 0).flatten(0, 1).tolist()
    assert cat in {colours.get(tuple(colour)) for colour in resized}  # the trap is real

    ours = nearest(torch.from_numpy(labels), 32, 32)
    assert set(ours.unique().tolist()) == {0, aeroplane}  # and we do not fall into it


@given(labels=label_maps, size=st.integers(2, 48), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_training_makes_no_label_up(labels: np.ndarray, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    image, out, name = train_transform(size)(sample_of(labels))
    assert image.shape == (3, size, size) and out.shape == (size, size)
    assert image.dtype == torch.uint8 and out.dtype == torch.int64
    assert name == "id"
    assert set(out.unique().tolist()) <= {*np.unique(labels).tolist(), VOID}


@given(labels=label_maps, height=sides, width=sides)
@settings(max_examples=60, deadline=None)
def test_nearest_takes_the_pixel_under_each_centre(labels: np.ndarray, height: int, width: int) -> None:
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    out = nearest(torch.from_numpy(labels), height, width).numpy()
    assert out.shape == (height, width)
    same = out == labels[rows][:, columns]
    # A centre that falls on the edge between two pixels may go either way in float32.
    tie_rows = np.isclose((np.arange(height) + 0.5) * labels.shape[0] / height % 1, [[0], [1]], atol=1e-4).any(axis=0)
    tie_columns = np.isclose((np.arange(width) + 0.5) * labels.shape[1] / width % 1, [[0], [1]], atol=1e-4).any(axis=0)
    assert (same | tie_rows[:, None] | tie_columns).all()


# Image and mask stay together


@pytest.mark.parametrize("seed", range(12))
def test_picture_and_mask_move_together(seed: int) -> None:
    """Away from the border between the halves, the image shows its label, or the frame where the label is void."""
    torch.manual_seed(seed)
    image, labels, _ = train_transform(48, jitter=0)(sample_of(blocks()))
    framed = labels == VOID
    for channel in range(3):
        assert (image[channel][framed] == MEAN_COLOUR[channel]).all()
    agree = (image[0].long() - labels).abs() <= 1
    blended = (image[0] > 41) & (image[0] < 199)  # the one border: at most a few columns wide
    assert (agree | framed | blended).all()
    assert (blended & ~framed).any(dim=0).sum() <= 6


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (48, 48)])
def test_a_small_scale_leaves_a_void_frame(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    corners = set()
    for _ in range(20):
        image, labels, _ = train_transform(48, scale=(0.5, 0.5), jitter=0, flip=False)(sample_of(torch.full(shape, 7)))
        inside = (labels == 7).nonzero()
        top, left = inside.min(dim=0).values.tolist()
        bottom, right = inside.max(dim=0).values.tolist()
        short, long = (x * 24 // min(shape) for x in (min(shape), max(shape)))
        expected = (short, long) if shape[0] <= shape[1] else (long, short)
        assert (bottom - top + 1, right - left + 1) == expected
        assert (labels == 7).sum() == expected[0] * expected[1]  # one full rectangle
        assert ((labels == 7) | (labels == VOID)).all()
        corners.add((top, left))
    assert len(corners) > 10  # it stands anywhere in the frame


def test_scale_one_is_what_evaluation_sees() -> None:
    sample = sample_of(blocks(50, 50))
    trained = train_transform(40, scale=(1, 1), jitter=0, flip=False)(sample)
    assert (trained.image == eval_transform(40)(sample).image).all()
    assert not (trained.labels == VOID).any()


def test_a_large_scale_shows_a_part() -> None:
    """At scale 2 the crop covers half of the short side, and over many draws every part of the image."""
    labels = torch.arange(32).expand(32, 32)  # the label is the column
    torch.manual_seed(1)
    seen = set()
    for _ in range(80):
        columns = set(train_transform(32, scale=(2, 2), flip=False)(sample_of(labels)).labels.unique().tolist())
        assert len(columns) == 16
        seen |= columns
    assert seen == set(range(32))


def test_flip_turns_picture_and_mask_alike() -> None:
    torch.manual_seed(0)
    transform = train_transform(20, scale=(1, 1), jitter=0)
    labels = torch.arange(20).expand(20, 20)
    outs = [transform(sample_of(labels)) for _ in range(40)]
    for image, out, _ in outs:
        assert (image[0] == out).all()
        assert (out == labels).all() or (out == labels.flip(-1)).all()
    mirrored = sum(bool(out.labels[0, 0] == 19) for out in outs)
    assert 8 < mirrored < 32
    still = train_transform(20, scale=(1, 1), jitter=0, flip=False)
    assert all((still(sample_of(labels)).labels == labels).all() for _ in range(10))


# Chance


def test_the_seed_of_torch_decides_alone() -> None:
    transform, sample = train_transform(32), sample_of(blocks())

    def draw(seed: int) -> Sample:
        torch.manual_seed(seed)
        np.random.seed(torch.initial_seed() % 7)  # noqa: NPY002 - other generators have no say
        return transform(sample)

    first, second, other = draw(3), draw(3), draw(4)
    assert (first.image == second.image).all() and (first.labels == second.labels).all()
    assert not ((first.image == other.image).all() and (first.labels == other.labels).all())


def test_the_sample_itself_stays_as_it_was() -> None:
    sample = sample_of(blocks())
    image, labels = sample.image.clone(), sample.labels.clone()
    for _ in range(5):
        train_transform(32)(sample)
        eval_transform(32)(sample)
    assert (sample.image == image).all() and (sample.labels == labels).all()


# Colours


@pytest.mark.parametrize("factors", [(0.6, 1, 1), (1.4, 1, 1), (1, 0.6, 1), (1, 1.4, 1), (1, 1, 0.6), (1, 1, 1.4)])
def test_colours_agree_with_torchvision(factors: tuple[float, float, float]) -> None:
    torch.manual_seed(0)
    image = torch.randint(60, 180, (3, 9, 11), dtype=torch.uint8)  # no clipping: torchvision clips after each step
    brightness, contrast, saturation = factors
    expected = F.adjust_brightness(image, brightness)
    expected = F.adjust_contrast(expected, contrast)
    expected = F.adjust_saturation(expected, saturation)
    ours = change_colours(image, *factors)
    assert (ours.int() - expected.int()).abs().max() <= 2  # ours rounds once, torchvision cuts off at each step


def test_colours_of_factor_one_and_of_extremes() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert (change_colours(image, 1, 1, 1) == image).all()
    assert (change_colours(torch.full_like(image, 255), 1.4, 1, 1) == 255).all()  # clipped, not wrapped around
    grey = change_colours(image, 1, 1, 0)
    assert (grey[0] == grey[1]).all() and (grey[1] == grey[2]).all()


def test_jitter_moves_colours_but_never_labels() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 21, (24, 24))
    sample = Sample(torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8), labels, "x")
    transform = train_transform(24, scale=(1, 1), flip=False)
    outs = [transform(sample) for _ in range(20)]
    assert all((out.labels == labels).all() for out in outs)
    unchanged = sum(bool((out.image == sample.image).all()) for out in outs)
    assert 0 < unchanged < 12


# Evaluation


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((375, 500), 256, (256, 341)),
        ((500, 375), 256, (341, 256)),
        ((128, 128), 128, (128, 128)),
        ((30, 20), 64, (96, 64)),
        ((1, 1000), 16, (16, 128)),  # a line of pixels does not become 16,000 wide
    ],
)
def test_evaluation_sizes(shape: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    sample = Sample(torch.zeros(3, *shape, dtype=torch.uint8), torch.zeros(shape).long(), "x")
    out = eval_transform(size)(sample)
    assert out.image.shape == (3, *expected)
    assert out.labels is sample.labels  # VOC is scored at the image's own resolution
    assert resize_short_side(sample.image, size).shape == (3, *expected)


def test_evaluation_without_a_size_changes_nothing() -> None:
    sample = sample_of(blocks())
    assert eval_transform(None)(sample) is sample


@given(shape=st.tuples(sides, sides), height=sides, width=st.integers(2, 40), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_resizing_agrees_with_torchvision(shape: tuple[int, int], height: int, width: int, seed: int) -> None:
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(resize(image, height, width), F.resize(image, [height, width], antialias=True))
    expected = F.resize(image[:1], [height, width], interpolation=InterpolationMode.NEAREST_EXACT)
    assert torch.equal(nearest(image[0], height, width), expected[0])


def test_resizing_is_antialiased() -> None:
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    assert (resize_short_side(stripes, 16).int() - 100).abs().max() <= 30  # without: 0 or 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: train_transform(1),
        lambda: train_transform(8, scale=(2, 1)),
        lambda: train_transform(8, scale=(0, 1)),
        lambda: train_transform(8, jitter=1),
        lambda: eval_transform(1),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(RecsegError, match="expected"):
        make()


@pytest.mark.skipif("RECSEG_VOC_ROOT" not in os.environ, reason="RECSEG_VOC_ROOT is not set")
def test_real_photographs() -> None:
    torch.manual_seed(0)
    plain, train = open_dataset("voc", "train"), open_dataset("voc", "train", transform=train_transform(96))
    for index in range(0, len(plain), len(plain) // 6):
        image, labels, _ = train[index]
        assert image.shape == (3, 96, 96)
        assert set(labels.unique().tolist()) <= {*plain[index].labels.unique().tolist(), VOID}
