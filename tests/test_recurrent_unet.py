"""A time step of the recurrent U-Net against its equations, written down once more with NumPy, and what they imply."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.models.config import ENCODERS, RecurrentUNetConfig
from recseg.models.recurrent_unet import Features, RecurrentUNet, State, masked_average_pool

Array = NDArray[np.float64]
NUM_CLASSES, MAX_STEPS, HIDDEN = 5, 4, 6
SIZES: dict[str, Any] = {"encoder_widths": (4, 5, 6, 8), "decoder_widths": (7, 6), "hidden": HIDDEN, "reduced": 5}


def build(seed: int = 0, **changes: Any) -> RecurrentUNet:
    """The network that ships, scaled down, in double precision, whose parts that begin at zero do something."""
    torch.manual_seed(seed)
    config = RecurrentUNetConfig(**SIZES | {"num_classes": NUM_CLASSES, "max_steps": MAX_STEPS} | changes)
    model = RecurrentUNet(config).double().eval()
    nn.init.uniform_(model.context.weight, -0.5, 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3)
    return model


def noise(batch: int, height: int = 24, width: int = 40) -> Tensor:
    return torch.rand(batch, 3, height, width, dtype=torch.float64)


# The equations, written down once more


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def convolve(x: Array, layer: nn.Conv2d) -> Array:
    """(inputs, H, W) → (outputs, H, W), zeros beyond the border."""
    weight = layer.weight.detach().numpy()
    reach, (_, height, width) = weight.shape[-1] // 2, x.shape
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((len(weight), height, width))
    for row in range(height):
        for column in range(width):
            window = padded[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            result[:, row, column] = (weight * window).sum(axis=(1, 2, 3))
    return result if layer.bias is None else result + layer.bias.detach().numpy()[:, None, None]


def twice(x: Array) -> Array:
    """(C, H, W) → (C, 2H, 2W), bilinear between the centres of cells."""
    for axis in (1, 2):
        last = x.shape[axis] - 1
        rows = []
        for new in range(2 * (last + 1)):
            centre = min(max((new + 0.5) / 2 - 0.5, 0), last)
            below = int(centre)
            share = centre - below
            rows.append((1 - share) * x.take(below, axis) + share * x.take(min(below + 1, last), axis))
        x = np.stack(rows, axis)
    return x


def to_grid(fine: Array, cells: tuple[int, ...]) -> Array:
    """Means over the pixels of each cell: (h, w) → (gh, gw)."""
    down, along = fine.shape[0] // cells[0], fine.shape[1] // cells[1]
    pooled = np.zeros(cells)
    for row, column in np.ndindex(*cells):
        pooled[row, column] = fine[down * row : down * (row + 1), along * column : along * (column + 1)].mean()
    return pooled


def mean_under(features: Array, attention: Array) -> Array:
    """(C, h, w) and (h, w) → (C,)."""
    return np.array([(plane * attention).sum() / attention.sum() for plane in features])


def by_hand(model: RecurrentUNet, image: Tensor, steps: int, *, training: bool = False) -> list[dict[str, Array]]:
    """Each step of one image (1, 3, H, W), from the features of encoder and decoder on."""
    with torch.no_grad():
        features = model.encoder(image)
        embedding = model.decoder(features)[0].numpy()  # E (d, h, w)
    finer, deepest = (feature[0].numpy() for feature in features[-2:])
    x = convolve(np.concatenate([finer, twice(deepest)]), model.reduce)
    values = {name: value.detach().numpy() for name, value in model.named_parameters()}
    w, bias = values["classifier.weight"][:, :, 0, 0], values["classifier.bias"]  # (K, d), (K,)
    h = c = np.zeros((HIDDEN, *x.shape[1:]))
    uncovered = np.ones(embedding.shape[1:])
    named: list[int] = []
    found = []
    for _ in range(steps):
        coverage = to_grid(1 - uncovered, x.shape[1:])[None]
        gates = convolve(x, model.cell.conv_x) + convolve(h, model.cell.conv_h) + convolve(coverage, model.coverage)
        i, f, g, o = (gates[HIDDEN * part : HIDDEN * (part + 1)] for part in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        pooled = np.concatenate([h.mean(axis=(1, 2)), h.max(axis=(1, 2))])
        z = np.maximum(values["summary.weight"] @ pooled + values["summary.bias"], 0)
        stop = values["stop.weight"][0] @ z + values["stop.bias"][0]
        query = values["query.weight"] @ z + values["query.bias"]
        attention = sigmoid(np.tensordot(query, embedding, 1) / len(query) ** 0.5) * uncovered
        around = mean_under(np.concatenate([x, h]), to_grid(attention, x.shape[1:]))
        scores = w[1:] @ mean_under(embedding, attention) + bias[1:] + values["context.weight"] @ around
        if training:
            share = np.exp(scores) / np.exp(scores).sum()
        else:
            free = [column for column in range(len(scores)) if column not in named]
            best = max(free, key=lambda column: float(scores[column]))
            scores[named] = scores.min() - 1
            named.append(best)
            share = np.eye(len(scores))[best]
        mask = np.zeros_like(uncovered)
        for column, probability in enumerate(share):
            logit = np.tensordot(w[column + 1] - w[0], embedding, 1) + bias[column + 1] - bias[0]
            mask = mask + probability * logit
        uncovered = uncovered * (1 - sigmoid(mask))
        found.append({
            "h": h, "c": c, "uncovered": uncovered, "named": np.isin(np.arange(len(scores)), named),
            "stop": np.array(stop), "classes": scores, "mask": mask, "attention": attention,
        })  # fmt: skip
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_a_step_is_what_its_equations_say(seed: int, training: bool) -> None:
    model, images = build(seed).train(training), noise(2)
    model.encoder.eval(), model.decoder.eval()  # their norms: one image at a time gives what a batch gives
    features = model.encode(images)
    state = model.initial_state(features)
    expected = [by_hand(model, images[image : image + 1], MAX_STEPS, training=training) for image in (0, 1)]
    for t in range(MAX_STEPS):
        state, output = model.step(features, state)
        for image in (0, 1):
            for name, value in (state._asdict() | output._asdict()).items():
                wanted = torch.from_numpy(expected[image][t][name])
                torch.testing.assert_close(value[image], wanted, rtol=0, atol=1e-10, msg=f"step {t}: {name}")


# What they imply, from any state


@st.composite
def situations(draw: st.DrawFn) -> tuple[RecurrentUNet, Features, State]:
    """A network, features of two images, and a state: any, such as no sequence may reach."""
    model = build(draw(st.integers(0, 3)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))

    def normal(*shape: int) -> Tensor:
        return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(2, 5, 3, 4)
    features = Features(normal(2, 6, 6, 8), x, model.cell.input_gates(x).detach())
    uncovered = normal(2, 6, 8).sigmoid() * (normal(2, 6, 8) > 0)  # about half of the pixels are covered
    named = torch.rand(2, NUM_CLASSES - 1, generator=generator) < draw(st.sampled_from([0.0, 0.5]))
    named[:, draw(st.integers(0, NUM_CLASSES - 2))] = False
    return model, features, State(normal(2, HIDDEN, 3, 4).tanh(), normal(2, HIDDEN, 3, 4), uncovered, named)


def step(model: RecurrentUNet, features: Features, state: State) -> dict[str, Tensor]:
    with torch.no_grad():
        after, output = model.step(features, state)
    return after._asdict() | output._asdict()


@given(situations())
@settings(max_examples=20, deadline=None)
def test_attention_lies_within_what_is_uncovered(situation: tuple[RecurrentUNet, Features, State]) -> None:
    model, features, before = situation
    found = step(model, features, before)
    assert (found["attention"] >= 0).all() and (found["attention"] <= before.uncovered).all()
    assert (found["attention"][before.uncovered == 0] == 0).all() and (found["attention"] > 0).any()


@given(situations())
@settings(max_examples=20, deadline=None)
def test_what_is_covered_stays_covered(situation: tuple[RecurrentUNet, Features, State]) -> None:
    model, features, before = situation
    found = step(model, features, before)
    assert (found["uncovered"] >= 0).all() and (found["uncovered"] <= before.uncovered).all()
    assert (found["uncovered"][found["mask"] > 0] <= before.uncovered[found["mask"] > 0] / 2).all()


@given(situations())
@settings(max_examples=20, deadline=None)
def test_the_class_comes_from_under_the_attention_map(situation: tuple[RecurrentUNet, Features, State]) -> None:
    """What the embedding says of a covered pixel changes neither class nor stop, and the mask only there."""
    model, features, before = situation
    covered = before.uncovered == 0
    changed = torch.where(covered.unsqueeze(1), 100 - features.embedding, features.embedding)
    found, other = step(model, features, before), step(model, features._replace(embedding=changed), before)
    for name in ("classes", "stop", "h", "c", "named", "attention", "uncovered"):
        torch.testing.assert_close(other[name], found[name], rtol=0, atol=1e-12, msg=name)
    different = other["mask"] != found["mask"]
    assert different.any() and not different[~covered].any()


@given(situations())
@settings(max_examples=20, deadline=None)
def test_the_mask_is_the_row_of_the_class_that_is_named(situation: tuple[RecurrentUNet, Features, State]) -> None:
    """So that a step paints what the per-pixel classifier, trained at every pixel, sees of its class."""
    model, features, before = situation
    found = step(model, features, before)
    label = found["classes"].argmax(dim=1) + 1
    with torch.no_grad():
        pixels = model.classifier(features.embedding)  # (B, K, h, w)
    wanted = pixels[[0, 1], label] - pixels[:, 0]
    torch.testing.assert_close(found["mask"], wanted, rtol=0, atol=1e-9)


@given(situations())
@settings(max_examples=20, deadline=None)
def test_no_class_is_named_twice_and_the_others_keep_their_logits(
    situation: tuple[RecurrentUNet, Features, State],
) -> None:
    model, features, before = situation
    free = step(model, features, before._replace(named=torch.zeros_like(before.named)))
    found = step(model, features, before)
    best = torch.where(before.named, -torch.inf, free["classes"]).argmax(dim=1)
    assert torch.equal(found["classes"].argmax(dim=1), best)
    assert torch.equal(found["classes"][~before.named], free["classes"][~before.named])
    assert torch.equal(found["named"], before.named | nn.functional.one_hot(best, NUM_CLASSES - 1).bool())


@given(situations(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_step_changes_nothing_that_it_is_given(
    situation: tuple[RecurrentUNet, Features, State], training: bool
) -> None:
    model, features, before = situation
    model.train(training)
    kept = copy.deepcopy((features, before))
    first, second = step(model, features, before), step(model, features, before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for part, copied in zip((features, before), kept, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(part, copied, strict=True))


@given(situations())
@settings(max_examples=10, deadline=None)
def test_images_of_a_batch_do_not_mix(situation: tuple[RecurrentUNet, Features, State]) -> None:
    model, features, before = situation
    together = step(model, features, before)
    alone = step(model, Features(*(part[1:] for part in features)), State(*(part[1:] for part in before)))
    for name, value in alone.items():
        torch.testing.assert_close(together[name][1:], value, rtol=0, atol=1e-10, msg=name)


@torch.no_grad()
def test_the_first_step_is_that_of_a_convlstm_with_an_empty_memory() -> None:
    model = build()
    features = model.encode(noise(2))
    state, _ = model.step(features, model.initial_state(features))
    h, c = model.cell(features.x)
    torch.testing.assert_close(state.h, h)
    torch.testing.assert_close(state.c, c)


@torch.no_grad()
def test_everything_covered_stays_a_number() -> None:
    model = build()
    features = model.encode(noise(1))
    state = model.initial_state(features)
    found = step(model, features, state._replace(uncovered=torch.zeros_like(state.uncovered)))
    assert all(value.isfinite().all() for value in found.values())
    assert not found["attention"].any() and not found["uncovered"].any()


def test_mean_under_an_attention_map() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [8.0, 0.0]]]])
    weight = torch.tensor([[[0.0, 0.25], [0.75, 0.0]]])
    torch.testing.assert_close(masked_average_pool(features, weight), torch.tensor([[2.75, 6.0]]))
    assert torch.equal(masked_average_pool(features, torch.zeros(1, 2, 2)), torch.zeros(1, 2))


# How it learns


def test_a_mask_is_not_trained_to_inform_the_gates_of_later_steps() -> None:
    model = build().train()
    features = model.encode(noise(2))
    state, _ = model.step(features, model.initial_state(features))
    uncovered = state.uncovered.detach().fill_(0.5).requires_grad_()
    after, output = model.step(features, state._replace(uncovered=uncovered))
    for value in (after.h, after.c, output.stop):
        [gradient] = torch.autograd.grad(value.sum(), uncovered, retain_graph=True, allow_unused=True)
        assert gradient is None


def test_at_first_a_step_classifies_as_the_pixels_do() -> None:
    torch.manual_seed(0)
    model = RecurrentUNet(RecurrentUNetConfig(**SIZES)).eval()
    images = torch.rand(2, 3, 24, 40)
    features = model.encode(images)
    _, output = model.step(features, model.initial_state(features))
    pixels = model.classifier(features.embedding)[:, 1:]  # (B, C, h, w)
    torch.testing.assert_close(output.classes, masked_average_pool(pixels, output.attention))
    output.classes.square().sum().backward()
    assert model.context.weight.grad is not None and model.context.weight.grad.abs().sum() > 0  # and V learns


def test_in_training_the_class_logits_learn_from_the_mask() -> None:
    model = build()
    for training in (True, False):
        model.train(training).zero_grad()
        features = model.encode(noise(2))
        _, output = model.step(features, model.initial_state(features))
        output.mask.square().sum().backward()
        assert (model.context.weight.grad is not None) == training


@pytest.mark.parametrize("encoder", ["plain", "mobilenet_v2"])
def test_gradients_reach_every_parameter(encoder: str) -> None:
    model = build(encoder=encoder).float().train()
    output = model(noise(2, 64, 96).float(), torch.tensor([3, 1]))
    total = sum(part.square().mean() for part in (output.masks, output.classes, output.stop, output.pixels))
    total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize(
    ("lengths", "silent"),
    # Without a class the first step's stop is all there is to learn: no mask, no class, nothing covered before it.
    [([2], set()), ([0], {"decoder", "classifier", "query", "context", "coverage", "cell"})],
)
def test_trains_on_one_image_with_and_without_classes(lengths: list[int], silent: set[str]) -> None:
    model = build().train()
    output = model(noise(1), torch.tensor(lengths))
    (output.masks.sum() + output.classes.sum() + output.stop.sum()).backward()
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name  # the running statistics too
    still = set()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
        if parameter.grad is None or not parameter.grad.any():
            still.add(name.split(".")[0])
    assert still == silent


# Configurations


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_every_encoder(encoder: str) -> None:
    model = RecurrentUNet(RecurrentUNetConfig(NUM_CLASSES, encoder, hidden=HIDDEN)).eval()
    output = model(torch.rand(1, 3, 33, 47), torch.tensor([2]))
    finest = 2 if encoder == "plain" else 4  # three blocks up from 1/16, or from 1/32
    assert output.masks.shape == (2, -(-33 // finest), -(-47 // finest))
    assert output.classes.shape == (2, NUM_CLASSES - 1)
    assert output.masks.isfinite().all() and output.classes.isfinite().all()


@torch.no_grad()
def test_the_recurrence_runs_in_the_bottleneck() -> None:
    """On the grid of the second deepest features, whatever the encoder."""
    for encoder, stride in (("plain", 8), ("resnet18", 16)):
        model = RecurrentUNet(RecurrentUNetConfig(encoder=encoder)).eval()
        features = model.encode(torch.rand(1, 3, 64, 96))
        assert features.x.shape == (1, 64, 64 // stride, 96 // stride)
        assert model.initial_state(features).h.shape == (1, 64, 64 // stride, 96 // stride)


@torch.no_grad()
def test_one_class_is_enough() -> None:
    model = build(num_classes=2)
    nn.init.constant_(model.stop.bias, -100.0)
    output = model(noise(2))
    assert output.classes.shape == (2 * MAX_STEPS, 1)
    assert output.classes.isfinite().all() and output.masks.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "max_steps 0: expected at least 1"),
        ({"hidden": 0}, "hidden 0"),
        ({"reduced": -1}, "reduced -1"),
        ({"num_classes": 1}, "num_classes 1"),
        ({"decoder_widths": (8, 8, 8, 8)}, "expected 1 to 3 blocks"),
    ],
)
def test_impossible_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecsegError, match=message):
        RecurrentUNetConfig(**SIZES | changes)
