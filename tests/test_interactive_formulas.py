"""The formulas behind the figures to play with, asked of node, against recseg's own functions."""

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import recseg
from recseg.classes import VOC_CLASSES, VOID, palette
from recseg.convlstm import ConvLSTMCell
from recseg.fusion import fuse, survival
from recseg.losses import mask_bce, mask_dice
from recseg.metrics import SetMetric, SlotMetric, VOCMetric
from recseg.optimisation import ExponentialMovingAverage, schedule
from recseg.recurrent_unet import RecurrentOutput, lengths_from_stop, live_pairs
from recseg.targets import match, to_labels, to_sequence
from recseg.unet import Encoder

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None, reason="node (Node.js) is not installed: the figures' formulas cannot run"
)


def ask(*questions: tuple[str, str, list[Any]]) -> list[Any]:
    """Answers of functions of the modules: (module, function, arguments)."""
    program = str(Path(__file__).with_name("figures_formulas.mjs"))
    done = subprocess.run(
        [str(NODE), program], input=json.dumps(questions), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


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
    for stage, (mine, features) in enumerate(zip(found, encoder(image), strict=True)):
        assert (mine["side"], mine["stride"]) == (features.shape[-1], encoder.strides[stage])
        middle = features.shape[-1] // 2
        assert mine["sees"] == _widest(encoder, stage, image, middle)


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
        average = ExponentialMovingAverage(model, decay)
        model.weight.data.zero_()  # what is left of the average is what is left of the start
        for step in range(40):
            average.update(model, step)
        [left] = ask(("schedule", "startLeft", [40, decay, True]))
        assert left[-1] == pytest.approx(float(average.model.weight), rel=1e-5, abs=1e-30)
        assert ask(("schedule", "startLeft", [40, decay, False]))[0][-1] == pytest.approx(decay**40)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("step", [0.0001, 0.0032, 1.0, 320.0])
def test_sums(name: str, step: float) -> None:
    [mine] = ask(("sums", "runningSum", [step, 1500, name]))
    kind = getattr(torch, name)
    added, total, theirs = torch.tensor(step).to(kind), torch.zeros((), dtype=kind), [0.0]
    for _ in range(1500):
        total = total + added
        theirs.append(total.item())
    assert [float(value) for value in mine] == theirs  # JSON has no infinity: it comes as a word


@pytest.mark.parametrize("rim", [False, True])
@pytest.mark.parametrize(
    ("side", "grow", "right", "down"), [(12, 0, 2, 1), (4, 1, -3, 0), (16, -3, 10, 10), (4, -2, 0, 0)]
)
def test_overlap(side: int, grow: int, right: int, down: int, rim: bool) -> None:
    values = {"side": side, "grow": grow, "right": right, "down": down, "rim": rim}
    [maps] = ask(("overlap", "maps", [values]))
    [mine] = ask(("overlap", "scores", [maps]))
    truth, answer = torch.tensor(maps["truth"]), torch.tensor(maps["answer"])
    metric = VOCMetric(2)
    metric.update(answer, truth)
    found = metric.compute()
    assert mine["iou"] == pytest.approx(found["iou_per_class"][1])
    assert mine["pixels"] == pytest.approx(found["pixel_accuracy"])
    assert mine["dice"] == pytest.approx(2 * mine["iou"] / (1 + mine["iou"]))
    valid = (truth != VOID).double().flatten()[None]
    soft = mask_dice((answer.double() * 200 - 100).flatten()[None], (truth == 1).double().flatten()[None], valid)
    smoothed = (2 * mine["hit"] + 1) / (2 * mine["hit"] + mine["invented"] + mine["missed"] + 1)
    assert smoothed == pytest.approx(1 - soft.item())
    assert bool((truth == VOID).any()) == rim


@pytest.mark.parametrize("stops", [[0.02, 0.4, 0.3, 0.9], [0.6, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
def test_stop(stops: list[float]) -> None:
    logits = torch.tensor(stops, dtype=torch.float64).logit()[None]
    mine, kept = ask(("stop", "survival", [stops]), ("stop", "stepsKept", [stops]))
    assert mine == pytest.approx(survival(logits)[0].tolist(), abs=1e-6)
    assert kept == int(lengths_from_stop(logits))
    for step, reached in enumerate(mine):  # a pixel a little below what is needed, and one a little above
        [needed] = ask(("stop", "needed", [reached]))
        masks = torch.tensor([[[needed - 1e-3, needed + 1e-3]]]).logit()  # (1, 1, 2)
        one, classes = torch.tensor([1]), torch.zeros(1, 20)
        output = RecurrentOutput(
            masks, classes, logits.float(), torch.tensor([0]), torch.tensor([step]), one, None, (1, 2)
        )
        assert fuse(output).flatten().tolist() == [0, 1]


@pytest.mark.parametrize("extra", [0, 1, 16])
@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize(
    "named", [(True, True, True), (False, True, True), (True, False, False), (False, False, False)]
)
def test_slots(extra: int, order: str, named: tuple[bool, bool, bool]) -> None:
    bird, dog, person = named
    values = {"bird": bird, "dog": dog, "person": person, "extra": extra, "quality": 0.7, "order": order}
    [answer] = ask(("slots", "answer", [values]))
    [mine] = ask(("slots", "score", [answer]))
    truth = torch.tensor(answer["truth"])[None]  # (1, 120)
    classes = [step["label"] for step in answer["steps"]]
    masks = torch.tensor([step["mask"] for step in answer["steps"]], dtype=torch.bool).reshape(-1, 1, 120)
    slot, whole, pixels = SlotMetric(21), SetMetric(), VOCMetric(21)
    slot.update(classes, masks, truth)
    whole.update(classes, [3, 12, 15], len(classes))
    labels = torch.zeros_like(truth)
    for label, mask in zip(classes, masks, strict=True):
        labels[mask] = label
    pixels.update(labels, truth)
    found = slot.compute()
    assert mine["accuracy"] == pytest.approx(found["slot_accuracy"])
    assert mine["ownOrder"] == pytest.approx(found["slot_accuracy_own_order"])
    assert mine["slotIou"] == (None if found["slot_iou"] is None else pytest.approx(found["slot_iou"]))
    assert mine["f1"] == pytest.approx(whole.compute()["label_set_f1"])
    assert mine["miou"] == pytest.approx(pixels.compute()["miou"])


@pytest.mark.parametrize(("known", "there"), [(21, 1), (21, 4), (5, 4), (9, 2)])
def test_averages(known: int, there: int) -> None:
    background, width = 0.4, 40
    [mine] = ask(("averages", "rules", [{"known": known, "there": there, "background": background}]))
    each = (width - 16) // there
    truths = []
    for first in range(known - 1):  # every class occurs in as many pictures as any other
        labels = [(first + k) % (known - 1) + 1 for k in range(there) for _ in range(each)]
        truths.append(torch.tensor(labels + [0] * (round(len(labels) * background / (1 - background)))))
    for answer in ("perfect", "black"):
        whole, by_picture = VOCMetric(known), []
        for truth in truths:
            said = truth if answer == "perfect" else torch.zeros_like(truth)
            one = VOCMetric(known)
            one.update(said, truth)
            whole.merge(one)
            by_picture.append(one.compute()["iou_per_class"])
        assert mine["set"][answer] == pytest.approx(whole.compute()["miou"])
        for rule, absent in (("leftOut", None), ("zero", 0.0), ("one", 1.0)):
            filled = [[absent if iou is None else iou for iou in ious] for ious in by_picture]
            means = [sum(kept) / len(kept) for kept in ([iou for iou in ious if iou is not None] for ious in filled)]
            assert mine[rule][answer] == pytest.approx(sum(means) / len(means))


@pytest.mark.parametrize(("known", "there"), [(3, 1), (20, 2), (60, 0)])
def test_bytes(known: int, there: int) -> None:
    sizes: dict[str, Any] = {"num_classes": known + 1, "encoder_widths": (4, 6, 8), "decoder_widths": (8, 8)}
    dense = recseg.UNet(recseg.UNetConfig(**sizes)).eval()
    recurrent = recseg.RecurrentUNet(recseg.RecurrentUNetConfig(**sizes, max_steps=5, grid=4)).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        logits = dense.pixel_logits(image)
        output = recurrent(image, lengths=torch.tensor([there]))
    side = logits.shape[-1]
    values = {"known": known, "there": there, "side": side}
    theirs = [sum(part.numel() * part.element_size() for part in parts) for parts in (
        (logits,), (output.masks, output.classes, output.stop))]  # fmt: skip
    assert ask(("bytes", "denseBytes", [values]), ("bytes", "sequenceBytes", [values])) == theirs
    larger = values | {"known": known + 1}
    [more] = ask(("bytes", "oneMore", [values]))
    grown = ask(("bytes", "denseBytes", [larger]), ("bytes", "sequenceBytes", [larger]))
    assert grown == [theirs[0] + more["dense"], theirs[1] + more["sequence"]]


@pytest.mark.parametrize(("first", "a_first"), [(0.2, 0.5), (0.7, 0.9), (0.5, 1.0), (0.05, 0.0)])
def test_valleys(first: float, a_first: float) -> None:
    fixed, matched, least = ask(
        ("valleys", "fixedLoss", [first, a_first]), ("valleys", "matchedLoss", [first]), ("valleys", "floor", [a_first])
    )
    says = torch.tensor([[first, 1 - first], [1 - first, first]])  # (steps, things)
    a_then_b, b_then_a = torch.tensor([0, 1]), torch.tensor([1, 0])
    losses = [F.nll_loss(says.log(), order, reduction="sum").item() for order in (a_then_b, b_then_a)]
    assert float(fixed) == pytest.approx(a_first * losses[0] + (1 - a_first) * losses[1], rel=1e-5)
    chosen = match(-says[None], torch.tensor([2]))[0]
    assert matched == pytest.approx(F.nll_loss(says.log(), chosen, reduction="sum").item(), rel=1e-5)
    order = torch.tensor([a_first, 1 - a_first])
    assert least == pytest.approx(2 * torch.special.entr(order).sum().item(), abs=1e-6)
