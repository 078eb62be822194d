"""The steps of the recurrent U-Net in a row: where they end, what is packed, what it costs, and in 16 bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recurrent_unet import MAX_STEPS, NUM_CLASSES, build, noise
from torch import Tensor, nn

from recseg.models.recurrent_unet import RecurrentOutput, RecurrentUNet, lengths_from_stop, live_pairs
from recseg.models.unet import crop_padding

GREY = (0.485, 0.456, 0.406)  # what a training crop that is larger than its image is filled with


def stop_after_one(model: RecurrentUNet, image: Tensor) -> None:
    """Turn and shift the learned stop so that it ends this image (1, 3, H, W) after one step."""
    with torch.no_grad():
        before, after = model(image, torch.tensor([1])).stop[0]
        sign = torch.sign(after - before)
        model.stop.weight *= sign
        model.stop.bias.copy_(sign * (model.stop.bias - (before + after) / 2))


@contextmanager
def rows_through(module: nn.Module) -> Iterator[list[int]]:
    """Batch rows of every call of a module."""
    rows: list[int] = []
    handle = module.register_forward_hook(lambda _module, _args, output: rows.append(len(output)))
    yield rows
    handle.remove()


def assert_same(got: RecurrentOutput, expected: RecurrentOutput) -> None:
    for name in ("masks", "classes", "sample", "step", "lengths"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=1e-9, msg=name)


# What is packed


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_live_pairs(lengths: list[int]) -> None:
    sample, step = live_pairs(torch.tensor(lengths))
    expected = [(image, t) for image, length in enumerate(lengths) for t in range(length)]
    assert list(zip(sample.tolist(), step.tolist(), strict=True)) == expected


def test_lengths_from_stop() -> None:
    """Steps before the first stop; what comes after it does not count."""
    stop = torch.tensor([[-1.0, 2, -1], [3, -1, -1], [-1, -1, -1], [-1, -1, 0.1], [0, -1, 1]])
    assert lengths_from_stop(stop).tolist() == [1, 0, 3, 2, 2]


@given(lengths=st.lists(st.integers(0, MAX_STEPS), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_the_output_is_the_steps_in_a_row_packed(lengths: list[int]) -> None:
    model, images = build(), noise(len(lengths))
    output = model(images, torch.tensor(lengths))
    features = model.encode(images)
    state = model.initial_state(features)
    steps = []
    for _ in range(MAX_STEPS):
        state, emitted = model.step(features, state)
        steps.append(emitted)
    for pair, (image, t) in enumerate(zip(output.sample.tolist(), output.step.tolist(), strict=True)):
        assert torch.equal(output.masks[pair], steps[t].mask[image])
        assert torch.equal(output.classes[pair], steps[t].classes[image])
    run = min(max(lengths) + 1, MAX_STEPS)  # one more than the longest has classes: it says that there are no more
    assert torch.equal(output.stop, torch.stack([emitted.stop for emitted in steps[:run]], dim=1))
    assert output.lengths.tolist() == lengths and len(output.masks) == sum(lengths)


@given(lengths=st.lists(st.integers(0, MAX_STEPS), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_split_gives_an_entry_an_image(lengths: list[int]) -> None:
    output = build()(noise(len(lengths)), torch.tensor(lengths))
    entries = output.split()
    assert [len(entry.masks) for entry in entries] == lengths == [len(entry.classes) for entry in entries]
    assert torch.equal(torch.cat([entry.masks for entry in entries]), output.masks)
    assert torch.equal(torch.cat([entry.classes for entry in entries]), output.classes)
    assert torch.equal(torch.stack([entry.stop for entry in entries]), output.stop)


@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_an_image_of_any_size_is_padded_with_grey_and_cropped(height: int, width: int) -> None:
    model, images, lengths = build(), noise(1, height, width), torch.tensor([2])
    output = model(images, lengths)
    canvas = torch.tensor(GREY, dtype=torch.float64).mul(255).round().div(255).view(1, 3, 1, 1)
    canvas = canvas.repeat(1, 1, -(-height // 8) * 8, -(-width // 8) * 8)
    canvas[:, :, :height, :width] = images
    whole = model(canvas, lengths)
    assert output.size == (height, width)
    assert output.masks.shape == (2, -(-height // 2), -(-width // 2))
    torch.testing.assert_close(output.masks, crop_padding(whole.masks, (height, width), 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(output.classes, whole.classes, rtol=0, atol=1e-6)


def test_per_pixel_logits_in_training_only() -> None:
    model, images = build(), noise(2, 33, 47)
    assert model(images).pixels is None
    for module in model.modules():
        module.training = not isinstance(module, nn.BatchNorm2d)  # norms that do not depend on the batch
    pixels = model(images, torch.tensor([1, 1])).pixels
    assert pixels is not None and pixels.shape == (2, NUM_CLASSES, 17, 24)
    torch.testing.assert_close(pixels, model.pixel_logits(images))


# How it ends


@torch.no_grad()
def test_zero_live_steps() -> None:
    model, images = build(), noise(2, 33, 47)
    given = model(images, torch.tensor([0, 0]))
    model.stop.bias.fill_(100.0)
    for output in (given, model(images)):
        assert output.lengths.tolist() == [0, 0]
        assert output.masks.shape == (0, 17, 24)
        assert output.classes.shape == (0, NUM_CLASSES - 1)
        assert output.stop.shape == (2, 1)
        assert [len(entry.masks) for entry in output.split()] == [0, 0]


@torch.no_grad()
def test_a_stop_that_never_comes() -> None:
    model = build()
    model.stop.bias.fill_(-100.0)
    output = model(noise(2))
    assert output.lengths.tolist() == [MAX_STEPS] * 2
    assert output.stop.shape == (2, MAX_STEPS)
    for entry in output.split():  # as many steps as there are classes: each is named once
        assert sorted(entry.classes.argmax(dim=1).tolist()) == list(range(NUM_CLASSES - 1))


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_learned_lengths_given_back_change_nothing(seed: int) -> None:
    model, images = build(seed), noise(4)
    stop_after_one(model, images[:1])
    learned = model(images)
    assert learned.lengths[0] == 1
    assert torch.equal(learned.lengths, lengths_from_stop(learned.stop))
    assert_same(model(images, learned.lengths), learned)


@torch.no_grad()
def test_lengths_beyond_the_last_step_are_cut() -> None:
    model, images = build(), noise(2)
    assert_same(model(images, torch.tensor([9, 1])), model(images, torch.tensor([MAX_STEPS, 1])))


@torch.no_grad()
def test_an_image_says_the_same_alone_and_in_company_that_runs_longer() -> None:
    model, images = build(), noise(3)
    stop_after_one(model, images[1:2])
    together, alone = model(images), model(images[1:2])
    assert alone.lengths.tolist() == [1]
    mine, own = together.split()[1], alone.split()[0]
    torch.testing.assert_close(mine.masks, own.masks, rtol=0, atol=1e-9)
    torch.testing.assert_close(mine.classes, own.classes, rtol=0, atol=1e-9)
    torch.testing.assert_close(mine.stop[: len(own.stop)], own.stop, rtol=0, atol=1e-9)


# What it costs


@torch.no_grad()
def test_what_depends_on_the_image_alone_is_computed_once() -> None:
    model, images = build(), noise(3)
    with (
        rows_through(model.encoder.stages[0]) as encoded,
        rows_through(model.decoder) as decoded,
        rows_through(model.cell.conv_x) as gates,
        rows_through(model.cell.conv_h) as steps,
        rows_through(model.classifier) as maps,
    ):
        model(images, torch.tensor([2, 1, 0]))
    assert encoded == decoded == gates == [3]
    assert steps == [3, 3, 3]  # as many as the fullest image has classes, and one that says so
    assert maps == []  # no map of every class at inference


@torch.no_grad()
def test_the_recurrence_ends_when_every_image_has_ended() -> None:
    model, image = build(), noise(1)
    stop_after_one(model, image)
    with rows_through(model.cell.conv_h) as steps:
        output = model(image)
    assert output.lengths.tolist() == [1]
    assert len(steps) == output.stop.shape[1] == 2 < MAX_STEPS


def test_a_training_step_waits_for_no_number_of_the_device() -> None:
    """The meta device has shapes and no values: whoever asks for one fails."""
    model = build().train().to("meta")
    output = model(noise(2).to("meta"), torch.tensor([2, 1]))
    assert output.masks.shape == (3, 12, 20) and output.stop.shape == (2, 3)
    assert output.lengths.device.type == output.sample.device.type == "meta"


# Precision and compilers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["autocast", "module"])
@torch.no_grad()
def test_16_bits_say_nearly_what_32_bits_say(how: str, dtype: torch.dtype) -> None:
    """The bound is some roundings: 2⁻⁸ of a number is what bfloat16 rounds away, 2⁻¹¹ what float16 does."""
    model, images, lengths = build().float(), noise(2, 33, 47).float(), torch.tensor([2, 1])
    exact = model(images, lengths)
    if how == "autocast":
        with torch.autocast("cpu", dtype):
            output = model(images, lengths)
    else:
        output = model.to(dtype)(images.to(dtype), lengths)
    share = 2**-8 if dtype == torch.bfloat16 else 2**-11
    for name in ("masks", "classes", "stop"):
        found, wanted = getattr(output, name), getattr(exact, name)
        assert found.dtype == dtype and not torch.equal(found.float(), wanted)
        torch.testing.assert_close(found.float(), wanted, rtol=4 * share, atol=4 * share)


@torch.no_grad()
def test_encode_and_step_compile_without_a_graph_break() -> None:
    model, images = build(), noise(2)
    encode = torch.compile(model.encode, fullgraph=True, backend="eager")
    step = torch.compile(model.step, fullgraph=True, backend="eager")
    features = encode(images)
    state, output = step(features, model.initial_state(features))
    wanted = model.encode(images)
    for found, expected in zip(
        (features, state, output), (wanted, *model.step(wanted, model.initial_state(wanted))), strict=True
    ):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_compiled_network_says_the_same() -> None:
    model, images = build(), noise(2, 33, 47)
    stop_after_one(model, images[:1])
    assert_same(torch.compile(model, backend="eager")(images), model(images))


@torch.no_grad()
def test_state_dict_round_trip() -> None:
    first, second, images = build(), build(seed=1), noise(2)
    lengths = torch.tensor([2, 1])
    assert not torch.equal(first(images, lengths).masks, second(images, lengths).masks)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images, lengths).masks, second(images, lengths).masks)
