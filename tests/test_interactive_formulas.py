"""The formulas behind the figures of chapters 1 to 7, against recseg's own functions."""

import math

import pytest
import torch
import torch.nn.functional as F
from node import ask, needs_node
from torch.utils.flop_counter import FlopCounterMode

from recseg.classes import VOC_CLASSES, palette
from recseg.models.convlstm import ConvLSTMCell
from recseg.models.encoders import Encoder
from recseg.models.recurrent_unet import live_pairs
from recseg.models.unet import pad_to_stride
from recseg.training.losses import mask_bce, mask_dice
from recseg.training.optim import averaged_model, schedule
from recseg.training.targets import match, to_labels, to_sequence

pytestmark = needs_node


def test_labels_and_colours() -> None:
    names, *colours = ask(
        ("classes", "VOC_CLASSES", []), *(("classes", "colour", [label]) for label in (*range(21), 255))
    )
    assert tuple(names) == VOC_CLASSES
    assert colours == palette()[[*range(21), 255]].tolist()


@pytest.mark.filterwarnings("ignore:.*dropped")
def test_sequence() -> None:
    [scenes] = ask(("sequence", "SCENES", []))
    cases = [(labels, most) for labels in scenes.values() for most in range(1, 6)]
    found = ask(*(("sequence", "toSequence", list(case)) for case in cases))
    back = ask(*(("sequence", "toLabels", [sequence]) for sequence in found))
    assert any(sequence["dropped"] for sequence in found)
    for (labels, most), mine, again in zip(cases, found, back, strict=True):
        theirs = to_sequence(torch.tensor(labels)[None], most, num_classes=21)
        n = int(theirs.lengths)
        assert [step["label"] for step in mine["steps"]] == theirs.classes[0, :n].tolist()
        assert torch.equal(torch.tensor([step["mask"] for step in mine["steps"]]), theirs.masks[0, :n])
        assert [step["area"] for step in mine["steps"]] == theirs.masks[0, :n].sum(dim=(1, 2)).tolist()
        assert again == to_labels(theirs)[0].tolist()
        if not mine["dropped"]:
            assert again == labels


@pytest.mark.parametrize(("kind", "channels"), [("writer", 3), ("tracker", 1)])
@pytest.mark.parametrize("forget", [-6.0, 0.5, 3.0])
def test_gates(kind: str, channels: int, forget: float) -> None:
    steps = 9
    [cells], mine, *inputs = (
        ask(("gates", "CELLS", [])),
        *ask(("gates", "run", [kind, steps, forget])),
        *ask(*(("gates", "input", [kind, step]) for step in range(steps))),
    )
    cell = ConvLSTMCell(channels, 1).double().requires_grad_(False)
    for kernel, entries in ((cell.conv_x.weight, cells[kind]["x"]), (cell.conv_h.weight, cells[kind]["h"])):
        kernel.zero_()
        for entry in entries:
            kernel[entry["gate"], entry["channel"], entry["row"], entry["column"]] = entry["weight"]
    assert cell.conv_x.bias is not None
    cell.conv_x.bias.copy_(torch.tensor(cells[kind]["biases"]))
    cell.conv_x.bias[1] = forget
    state = None
    for x in inputs:
        state = cell(torch.tensor(x, dtype=torch.float64)[None], state)
    assert state is not None
    for name, expected in zip("hc", state, strict=True):
        torch.testing.assert_close(torch.tensor(mine[name], dtype=torch.float64), expected[0, 0], rtol=0, atol=1e-12)
    assert state[1].abs().max() > 0.5  # something is remembered


@pytest.mark.parametrize(("side", "count"), [(64, 3), (75, 3), (161, 4), (33, 2)])
def test_reach(side: int, count: int) -> None:
    [found] = ask(("reach", "stages", [side, count]))
    encoder = Encoder("plain", (2,) * count).double().eval()
    for parameter in encoder.parameters():
        parameter.data.abs_().add_(0.1)  # nothing cancels, no ReLU shuts: where something is heard, a gradient is
    image = torch.rand(1, 3, side, side, dtype=torch.float64) + 1
    image.requires_grad_()
    encoder.mean.zero_()
    padded = pad_to_stride(image, encoder.strides[-1])  # as the networks do
    for stage, (mine, features) in enumerate(zip(found, encoder(padded), strict=True)):
        assert (mine["side"], mine["stride"]) == (features.shape[-1], encoder.strides[stage])
        middle = features.shape[-1] // 2
        assert mine["sees"] == _widest(encoder, stage, padded, middle)


def _widest(encoder: Encoder, stage: int, image: torch.Tensor, middle: int) -> int:
    """Columns of the image that one cell depends on: with means for maxima, every one has a gradient."""
    x = (image - encoder.mean) / encoder.std
    for level, part in enumerate(encoder.stages[: stage + 1]):
        if level:
            assert isinstance(part, torch.nn.Sequential)
            x = part[1](F.avg_pool2d(x, 2, ceil_mode=True))
        else:
            x = part(x)
    (gradient,) = torch.autograd.grad(x[0, :, middle, middle].sum(), image)
    return int((gradient.abs().amax(dim=(0, 1, 2)) > 0).sum())


@pytest.mark.parametrize("kind", ["usual", "single", "crowded", "mixed"])
def test_live_pairs(kind: str) -> None:
    [counts] = ask(("economies", "lengths", [kind, 7, 5]))
    [pairs] = ask(("economies", "livePairs", [counts]))
    sample, step = live_pairs(torch.tensor(counts))
    assert len(counts) == 7 and max(counts) <= 5
    assert pairs == torch.stack([sample, step], dim=1).tolist()


def test_multiplications_of_the_gates() -> None:
    steps, x, d, side = 4, 6, 3, 5
    [found] = ask(("economies", "gateMultiplications", [steps, x, d]))
    cell = ConvLSTMCell(x, d).requires_grad_(False)
    seen, state = torch.rand(1, x, side, side), (torch.zeros(1, d, side, side),) * 2
    with FlopCounterMode(display=False) as hoisted:
        gates = cell.input_gates(seen)
        for _ in range(steps):
            state = cell.step(gates, state)
    state = (torch.zeros(1, d, side, side),) * 2
    with FlopCounterMode(display=False) as written:
        for _ in range(steps):
            state = cell(seen, state)
    # The counter counts an addition with each multiplication.
    assert found["hoisted"] * side**2 * 2 == hoisted.get_total_flops()
    assert found["written"] * side**2 * 2 == written.get_total_flops()


@pytest.mark.parametrize(("sure", "doubt"), [(0, 0), (3, 0), (6, 0.35), (2.5, 1), (4, 0.8)])
def test_matching(sure: float, doubt: float) -> None:
    said, mine, *truths = ask(
        ("matching", "answer", [sure, doubt]),
        ("matching", "costs", [sure, doubt]),
        *(("matching", "truth", [target]) for target in range(3)),
    )
    truth = torch.tensor(truths, dtype=torch.float64)  # (3, 96)
    cost = torch.zeros(3, 3, dtype=torch.float64)
    for step in range(3):
        logits = torch.tensor(said["masks"][step], dtype=torch.float64).expand(3, -1)
        fit = mask_bce(logits, truth, torch.ones_like(truth)) + mask_dice(logits, truth, torch.ones_like(truth))
        cost[step] = fit - torch.tensor(said["probabilities"][step])
        assert sum(said["probabilities"][step]) == pytest.approx(1)
    torch.testing.assert_close(torch.tensor(mine, dtype=torch.float64), cost)
    [best] = ask(("matching", "match", [mine]))
    if sure:  # else all six are equal, and rounding decides
        assert best == match(cost[None], torch.tensor([3]))[0].tolist()


def test_palette() -> None:
    colours = palette()[:21].astype(int)
    pairs = [(1, 0, 9), (15, 12, 25), (3, 20, 7), (7, 7, 5)]
    for (a, b, count), cells in zip(pairs, ask(*(("palette", "edge", list(pair)) for pair in pairs)), strict=True):
        for k, cell in enumerate(cells):
            share = k / (count - 1)
            rgb = [math.floor((1 - share) * x + share * y + 0.5) for x, y in zip(colours[a], colours[b], strict=True)]
            assert cell["rgb"] == rgb
            assert cell["asColours"] == int(((colours - rgb) ** 2).sum(axis=1).argmin())
            assert cell["asNumbers"] == math.floor((1 - share) * a + share * b + 0.5)
            assert cell["asNearest"] in (a, b)
    table = {tuple(rgb): label for label, rgb in enumerate(colours.tolist())}
    expected = []
    for a in range(21):
        for b in range(a):
            third = table.get(tuple((colours[a] + colours[b]) // 2))
            if third not in (None, a, b):
                expected.append([a, b, third])
    assert ask(("palette", "blends", []))[0] == expected and expected


def test_schedule_and_average() -> None:
    cases = [(0, 0.0, 100), (50, 0.1, 100), (400, 0.75, 0), (9, 1.0, 10)]
    for (step, progress, warmup), mine in zip(
        cases, ask(*(("schedule", "schedule", list(case)) for case in cases)), strict=True
    ):
        assert mine == pytest.approx(schedule(step, progress, warmup=warmup), abs=1e-12)
    for decay in (0.9, 0.998):
        model = torch.nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(1.0)
        average = averaged_model(model, decay)
        model.weight.data.zero_()  # what is left of the average is what is left of the start
        for _ in range(40):
            average.update_parameters(model)
        [left] = ask(("schedule", "startLeft", [40, decay, True]))
        assert left[-1] == pytest.approx(float(average.module.get_parameter("weight")), rel=1e-5, abs=1e-30)
        assert ask(("schedule", "startLeft", [40, decay, False]))[0][-1] == pytest.approx(decay**40)
