"""The recurrent U-Net against a plain reference, and the economies that it claims."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from recseg.models.heads import EmbeddingHead
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.models.config import ENCODERS, RecurrentUNetConfig
from recseg.models.recurrent_unet import ENDED, RecurrentOutput, RecurrentUNet, lengths_from_stop, live_pairs

VARIANTS = [
    ("embedding", "none"),
    ("embedding", "claimed"),
    ("embedding", "remaining"),
    ("embedding", "explained"),
    ("embedding", "coverage"),
    ("decoder", "none"),
]
NUM_CLASSES, MAX_STEPS, HIDDEN = 5, 4, 6


def config_of(head: str = "embedding", feedback: str = "none", **changes: object) -> RecurrentUNetConfig:
    fields: dict[str, object] = {
        "num_classes": NUM_CLASSES,
        "encoder_widths": (4, 5, 6, 8),
        "decoder_widths": (7, 6),
        "hidden": HIDDEN,
        "reduced": 5,
        "grid": 8,
        "max_steps": MAX_STEPS,
    }
    return RecurrentUNetConfig(head=head, feedback=feedback, **{**fields, **changes})  # type: ignore[arg-type]


def build(head: str = "embedding", feedback: str = "none", seed: int = 0, **changes: object) -> RecurrentUNet:
    """A tiny model in double precision whose batch norms, and every part that begins at zero, do something."""
    torch.manual_seed(seed)
    model = RecurrentUNet(config_of(head, feedback, **changes)).double().eval()
    if isinstance(model.head, EmbeddingHead):
        model.head.region.weight.data.uniform_(-0.5, 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.3, 0.3)
    return model


def pictures(batch: int, height: int = 33, width: int = 47) -> Tensor:
    return torch.rand(batch, 3, height, width, dtype=torch.float64)


def stop_after_one(model: RecurrentUNet, image: Tensor) -> None:
    """Turn and shift the learned stop so that it ends this image (1, 3, H, W) after one step."""
    with torch.no_grad():
        before, after = model(image, torch.tensor([1])).stop[0]
        sign = torch.sign(after - before)
        model.stop.weight *= sign
        model.stop.bias.copy_(sign * (model.stop.bias - (before + after) / 2))


def up(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def decode_plainly(model: RecurrentUNet, x: Tensor, skips: list[Tensor]) -> Tensor:
    """A plain decoder: convolve, enlarge, add the convolved skip. Maps (1, C, …), skips coarse to fine."""
    for block, skip in zip(model.decoder.blocks, skips, strict=True):
        enlarged = up(F.conv2d(x, block.conv_x.weight, padding=1), (skip.shape[2], skip.shape[3]))
        x = block.merge(enlarged + F.conv2d(skip, block.conv_skip.weight, padding=1))
    return x


def run_plainly(model: RecurrentUNet, image: Tensor, steps: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Masks (h, w), class logits (C,) and stop logits () of each step of one image (1, 3, H, W).

    Nothing is shared between steps: each encodes the image, decodes it, and convolves over [x, h] in one go.
    """
    masks, classes, stops = [], [], []
    h = c = left = None
    named: list[int] = []  # columns of the classes of the steps so far
    for _ in range(steps):
        features = model.encoder(image)
        skips = [features[level] for level in model.skip_levels]
        size = (features[model.level].shape[2], features[model.level].shape[3])
        deepest = up(model.reduce(features[-1]), size)
        if model.config.head == "embedding":
            embedding = decode_plainly(model, features[-1], skips)
            beside = F.adaptive_avg_pool2d(embedding, size)
            left = torch.ones_like(embedding[0, 0]) if left is None else left  # (h, w)
            if model.config.feedback in ("remaining", "explained", "coverage"):
                present = model.head.foreground(embedding)[0, 0].sigmoid()
        else:
            beside = features[model.level]
        x = torch.cat([deepest, beside], dim=1)
        if h is None or c is None:
            h = c = x.new_zeros(1, HIDDEN, *size)

        weight = torch.cat([model.cell.conv_x.weight, model.cell.conv_h.weight], dim=1)
        gates = F.conv2d(torch.cat([x, h], dim=1), weight, model.cell.conv_x.bias, padding=1)
        if model.config.feedback == "coverage":
            planes = torch.stack([1 - left, present * left])[None]  # (1, 2, h, w)
            gates = gates + model.feedback(F.adaptive_avg_pool2d(planes, size))
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()

        pooled = [h.mean(dim=(2, 3)), h.amax(dim=(2, 3))]
        if model.config.feedback in ("remaining", "explained", "coverage"):
            cells = F.adaptive_avg_pool2d((present * left)[None, None], size)
            amount = torch.stack([cells.max(), cells.mean()])
            pooled.append(torch.cat([amount, torch.log(amount + 0.001) / 4])[None])
        z = F.relu(model.summary(torch.cat(pooled, dim=1)))
        stops.append(model.stop(z)[0, 0])
        if model.config.head == "embedding":
            head = model.head
            query = head.query(z)  # (1, d)
            place = up(head.location(h), (embedding.shape[2], embedding.shape[3]))[0, 0]
            claims = (query[0, :, None, None] * embedding[0]).sum(dim=0) / math.sqrt(query.shape[1]) + place
            weight = claims.sigmoid()
            if model.config.feedback != "none":
                weight = weight * left
            rough = weight.logit()
            pooled = (embedding[0] * weight).sum(dim=(1, 2)) / weight.sum()  # (d,)
            coarse = F.adaptive_avg_pool2d(weight[None], size)  # (1, gh, gw)
            around = (torch.cat([deepest, h], dim=1)[0] * coarse).sum(dim=(1, 2)) / coarse.sum()  # (reduced + hidden,)
            scores = head.classifier.weight[:, :, 0, 0] @ pooled + head.classifier.bias
            scores = scores[1:] + head.region.weight @ around
            scores[named] = scores.min() - 1  # no class twice
            named.append(int(scores.argmax()))
            every = torch.einsum("kd,dhw->khw", head.classifier.weight[:, :, 0, 0], embedding[0])
            every = every + head.classifier.bias[:, None, None]  # the map of all classes that the model never makes
            masks.append(head.trust * rough + every[1 + scores.argmax()] - every[0])
            takes = claims if model.config.feedback in ("claimed", "remaining") else masks[-1]
            left = left * (1 - takes.sigmoid())
            classes.append(scores)
        else:
            masks.append(model.head.mask(decode_plainly(model, h, skips))[0, 0])
            scores = model.head.classifier(h).amax(dim=(2, 3))[0]
            scores[named] = scores.min() - 1
            named.append(int(scores.argmax()))
            classes.append(scores)
    return masks, classes, stops


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


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@pytest.mark.parametrize("size", [(33, 47), (16, 40)])
@torch.no_grad()
def test_equals_the_plain_reference(head: str, feedback: str, size: tuple[int, int]) -> None:
    model, images = build(head, feedback), pictures(4, *size)
    lengths = torch.tensor([2, 0, 4, 1])
    output = model(images, lengths)
    pair = 0
    for image, length in enumerate(lengths.tolist()):
        masks, classes, stops = run_plainly(model, images[image : image + 1], MAX_STEPS)
        for t in range(length):
            assert (int(output.sample[pair]), int(output.step[pair])) == (image, t)
            torch.testing.assert_close(output.masks[pair], masks[t], rtol=0, atol=1e-9)
            torch.testing.assert_close(output.classes[pair], classes[t], rtol=0, atol=1e-9)
            pair += 1
        run = min(length + 1, MAX_STEPS)  # a step more than it has classes, and not one more
        torch.testing.assert_close(output.stop[image, :run], torch.stack(stops[:run]), rtol=0, atol=1e-9)
        assert (output.stop[image, run:] == ENDED).all()
    assert pair == len(output.sample)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("head", ["embedding", "decoder"])
@torch.no_grad()
def test_every_encoder(encoder: str, head: str) -> None:
    config = RecurrentUNetConfig(NUM_CLASSES, encoder, decoder_widths=(12, 10, 8), hidden=HIDDEN, head=head)
    model = RecurrentUNet(config).eval()
    output = model(torch.rand(1, 3, 33, 47), torch.tensor([2]))
    finest = 2 if encoder == "plain" else 4  # three blocks up from 1/16, or from 1/32
    assert output.masks.shape == (2, -(-33 // finest), -(-47 // finest))
    assert output.classes.shape == (2, NUM_CLASSES - 1)
    assert output.masks.isfinite().all() and output.classes.isfinite().all()


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
def test_any_size(head: str, feedback: str) -> None:
    model = build(head, feedback)

    @given(height=st.integers(1, 40), width=st.integers(1, 40))
    @settings(max_examples=8, deadline=None)
    @torch.no_grad()
    def check(height: int, width: int) -> None:
        output = model(pictures(1, height, width), torch.tensor([1]))
        assert output.size == (height, width)
        assert output.masks.shape == (1, -(-height // 2), -(-width // 2))
        assert output.masks.isfinite().all() and output.classes.isfinite().all()

    check()


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


# What it costs


@torch.no_grad()
def test_one_class_costs_one_decoder_pass() -> None:
    model, image = build("decoder"), pictures(1)
    stop_after_one(model, image)
    with rows_through(model.decoder.blocks[-1]) as rows:
        assert model(image).lengths.tolist() == [1]
    assert rows == [1]


@pytest.mark.parametrize(("lengths", "passes"), [([1], 1), ([1, 1, 1], 3), ([4, 0, 2], 6), ([4, 4, 4], 12)])
@torch.no_grad()
def test_decoder_head_decodes_the_live_steps_only(lengths: list[int], passes: int) -> None:
    model = build("decoder")
    with rows_through(model.decoder.blocks[-1]) as rows:
        model(pictures(len(lengths)), torch.tensor(lengths))
    assert rows == [passes]  # in one packed batch


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@torch.no_grad()
def test_what_depends_on_the_image_alone_is_computed_once(head: str, feedback: str) -> None:
    model, images = build(head, feedback), pictures(3)
    block = model.decoder.blocks[0]
    with (
        rows_through(model.encoder.stages[0]) as encoded,
        rows_through(block.conv_skip) as skips,
        rows_through(model.cell.conv_x) as gates,
        rows_through(model.cell.conv_h) as steps,
        rows_through(block) as decoded,
    ):
        model(images, torch.tensor([2, 1, 0]))
    assert encoded == skips == gates == [3]
    # Each image runs as many steps as it has classes, and one that says so; the first has no state to convolve.
    assert steps == [2, 1]
    assert decoded == [3]  # embedding: an image each, whatever it holds; decoder: 2 + 1 + 0 live steps


@torch.no_grad()
def test_the_recurrence_ends_when_every_image_has_ended() -> None:
    model, image = build(), pictures(1)
    stop_after_one(model, image)
    with rows_through(model.cell.conv_h) as steps:
        output = model(image)
    assert output.lengths.tolist() == [1]
    assert len(steps) + 1 == output.stop.shape[1] == 2 < MAX_STEPS


# How it ends


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@torch.no_grad()
def test_zero_live_steps(head: str, feedback: str) -> None:
    model, images = build(head, feedback), pictures(2)
    given = model(images, torch.tensor([0, 0]))
    model.stop.bias.fill_(100.0)
    for output in (given, model(images)):
        assert output.lengths.tolist() == [0, 0]
        assert output.masks.shape == (0, 17, 24)
        assert output.classes.shape == (0, NUM_CLASSES - 1)
        assert output.stop.shape == (2, 1)


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@torch.no_grad()
def test_a_stop_that_never_comes(head: str, feedback: str) -> None:
    model = build(head, feedback)
    model.stop.bias.fill_(-100.0)
    output = model(pictures(2))
    assert output.lengths.tolist() == [MAX_STEPS] * 2
    assert output.stop.shape == (2, MAX_STEPS)


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_learned_lengths_given_back_change_nothing(head: str, feedback: str, seed: int) -> None:
    model, images = build(head, feedback, seed), pictures(4)
    stop_after_one(model, images[:1])
    learned = model(images)
    assert learned.lengths[0] == 1
    assert torch.equal(learned.lengths, lengths_from_stop(learned.stop))
    assert_same(model(images, learned.lengths), learned)


@torch.no_grad()
def test_lengths_beyond_the_last_step_are_cut() -> None:
    model, images = build(), pictures(2)
    assert_same(model(images, torch.tensor([9, 1])), model(images, torch.tensor([MAX_STEPS, 1])))


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@torch.no_grad()
def test_images_of_a_batch_do_not_mix(head: str, feedback: str) -> None:
    """An image says the same alone and in company that runs longer."""
    model, images = build(head, feedback), pictures(3)
    stop_after_one(model, images[1:2])
    together, alone = model(images), model(images[1:2])
    mine = together.sample == 1
    torch.testing.assert_close(together.masks[mine], alone.masks, rtol=0, atol=1e-9)
    torch.testing.assert_close(together.classes[mine], alone.classes, rtol=0, atol=1e-9)
    steps = alone.stop.shape[1]
    torch.testing.assert_close(together.stop[1, :steps], alone.stop[0], rtol=0, atol=1e-9)


# How it learns


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
def test_gradients_reach_every_parameter(head: str, feedback: str) -> None:
    model = build(head, feedback).train()
    output = model(pictures(2), torch.tensor([3, 1]))
    total = output.masks.square().mean() + output.classes.square().mean() + output.stop.square().mean()
    if output.pixels is not None:
        total = total + output.pixels.square().mean()
    if output.foreground is not None:
        total = total + output.foreground.square().mean()
    total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_per_pixel_logits_in_training_only() -> None:
    model, images = build(), pictures(2)
    assert model(images).pixels is None
    pixels = model.train()(images, torch.tensor([1, 1])).pixels
    assert pixels is not None and pixels.shape == (2, NUM_CLASSES, 17, 24)
    assert build("decoder").train()(images, torch.tensor([1, 1])).pixels is None


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@pytest.mark.parametrize("lengths", [[2], [0]])
def test_trains_on_one_image_with_and_without_classes(head: str, feedback: str, lengths: list[int]) -> None:
    model = build(head, feedback).train()
    output = model(pictures(1), torch.tensor(lengths))
    (output.masks.sum() + output.classes.sum() + output.stop.sum()).backward()
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name  # the running statistics too
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
def test_autocast(head: str, feedback: str) -> None:
    model, images = build(head, feedback).float(), pictures(2).float()
    lengths = torch.tensor([2, 1])
    exact = model(images, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images, lengths)
    torch.testing.assert_close(output.masks.float(), exact.masks, rtol=0.1, atol=0.1)
    torch.testing.assert_close(output.classes.float(), exact.classes, rtol=0.1, atol=0.1)
    torch.testing.assert_close(output.stop.float(), exact.stop, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("head", "feedback"), VARIANTS)
@torch.no_grad()
def test_state_dict_round_trip(head: str, feedback: str) -> None:
    first, second, images = build(head, feedback), build(head, feedback, seed=1), pictures(2)
    lengths = torch.tensor([2, 1])
    assert not torch.equal(first(images, lengths).masks, second(images, lengths).masks)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images, lengths).masks, second(images, lengths).masks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "query"}, "head 'query': expected 'embedding' or 'decoder'"),
        ({"feedback": "all"}, "feedback 'all': expected one of none, claimed, remaining, explained, coverage"),
        ({"head": "decoder", "feedback": "coverage"}, "feedback 'coverage': needs head 'embedding'"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"grid": 5}, "grid 5: expected a stride of the encoder"),
        ({"grid": 2}, "grid 2: expected coarser than the decoder's output, 1/2"),
    ],
)
def test_impossible_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecsegError, match=message):
        RecurrentUNet(config_of(**changes))  # type: ignore[arg-type]
