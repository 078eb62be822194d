"""The formulas behind the figures from chapter 8 on, against recseg's own functions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from node import ask, needs_node

import recseg
from recseg.classes import VOID
from recseg.evaluation.metrics import SetMetric, SlotMetric, VOCMetric
from recseg.inference.fusion import fuse, survival
from recseg.models.recurrent_unet import RecurrentOutput, lengths_from_stop
from recseg.training.losses import mask_dice
from recseg.training.targets import match

pytestmark = needs_node


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
    recurrent = recseg.RecurrentUNet(recseg.RecurrentUNetConfig(**sizes, max_steps=5)).eval()
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
