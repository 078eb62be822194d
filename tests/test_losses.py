"""Losses against the words of their definitions, and against PyTorch's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from recseg.classes import VOID
from recseg.losses import (
    LossWeights,
    _cost,
    dense_loss,
    mask_bce,
    mask_dice,
    recurrent_loss,
    shrink_labels,
    stop_target,
)
from recseg.recurrent_unet import RecurrentOutput, RecurrentUNet, RecurrentUNetConfig, live_pairs

TINY = {"encoder_widths": (4, 4, 6, 6, 8), "decoder_widths": (8, 6, 6), "hidden": 4, "reduced": 4, "grid": 8}


@pytest.fixture
def labels() -> torch.Tensor:
    maps = torch.zeros(2, 16, 16, dtype=torch.long)
    maps[0, :8, :8], maps[0, 8:, 8:] = 3, 7
    maps[1, 4:12, 4:12] = 5
    maps[1, 3] = VOID
    return maps


def output(masks: torch.Tensor, classes: torch.Tensor, stop: torch.Tensor, lengths: torch.Tensor) -> RecurrentOutput:
    return RecurrentOutput(masks, classes, stop, *live_pairs(lengths), lengths, None, (16, 16))


def perfect(labels: torch.Tensor, order: tuple[int, int] = (3, 7)) -> RecurrentOutput:
    """What a model that knows everything would say: masks of the labels, certain classes, a certain stop."""
    found = [labels[0] == order[0], labels[0] == order[1], labels[1] == 5]
    masks = torch.stack([50.0 * (2 * mask.float() - 1) for mask in found])
    classes = torch.full((3, 20), -50.0)
    for row, label in enumerate((*order, 5)):
        classes[row, label - 1] = 50.0
    stop = torch.tensor([[-50.0, -50.0, 50.0], [-50.0, 50.0, 0.0]])
    return output(masks, classes, stop, torch.tensor([2, 1]))


def test_a_perfect_answer_costs_nothing(labels: torch.Tensor) -> None:
    for order in ("matched", "class"):
        terms = recurrent_loss(perfect(labels), labels, num_classes=21, max_steps=5, order=order)
        assert terms["loss"].item() == pytest.approx(0, abs=1e-4)


def test_matched_forgives_the_order_and_class_does_not(labels: torch.Tensor) -> None:
    swapped = perfect(labels, order=(7, 3))
    matched = recurrent_loss(swapped, labels, num_classes=21, max_steps=5, order="matched")
    fixed = recurrent_loss(swapped, labels, num_classes=21, max_steps=5, order="class")
    assert matched["loss"].item() == pytest.approx(0, abs=1e-4)
    assert fixed["loss"].item() > 5


def test_void_pixels_count_nowhere(labels: torch.Tensor) -> None:
    answer = perfect(labels)
    answer.masks[2, 3] = torch.randn(16) * 20  # row 3 of the second image is void
    terms = recurrent_loss(answer, labels, num_classes=21, max_steps=5)
    assert terms["loss"].item() == pytest.approx(0, abs=1e-4)


def test_total_is_the_weighted_sum(labels: torch.Tensor) -> None:
    torch.manual_seed(0)
    answer = output(torch.randn(3, 8, 8), torch.randn(3, 20), torch.randn(2, 3), torch.tensor([2, 1]))
    weights = LossWeights(bce=2.0, dice=3.0, classes=5.0, stop=7.0)
    terms = recurrent_loss(answer, labels, num_classes=21, max_steps=5, weights=weights)
    total = 2 * terms["bce"] + 3 * terms["dice"] + 5 * terms["classes"] + 7 * terms["stop"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_bce_and_dice_by_their_definitions() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(4, 50), (torch.rand(4, 50) > 0.5).float()
    valid = (torch.rand(4, 50) > 0.2).float()
    for row in range(4):
        kept = valid[row] > 0
        bce = F.binary_cross_entropy_with_logits(logits[row][kept], truth[row][kept])
        probability = logits[row][kept].sigmoid()
        overlap = (probability * truth[row][kept]).sum()
        dice = 1 - (2 * overlap + 1) / (probability.sum() + truth[row][kept].sum() + 1)
        assert mask_bce(logits, truth, valid)[row].item() == pytest.approx(bce.item(), rel=1e-5)
        assert mask_dice(logits, truth, valid)[row].item() == pytest.approx(dice.item(), rel=1e-5)


def test_cost_equals_the_loss_of_each_pair() -> None:
    torch.manual_seed(0)
    logits, log_class = torch.randn(3, 30), torch.randn(3, 20).log_softmax(1)
    pixels = torch.tensor([0, 4, 9, VOID])[torch.randint(0, 4, (3, 30))]
    valid = (pixels != VOID).float()
    classes = torch.tensor([[4, 9, 0]]).repeat(3, 1)
    cost = _cost(logits, log_class, pixels, valid, classes)
    for column, label in ((0, 4), (1, 9)):
        truth = (pixels == label).float()
        expected = mask_bce(logits, truth, valid) + mask_dice(logits, truth, valid) - log_class[:, label - 1].exp()
        assert torch.allclose(cost[:, column], expected, atol=1e-5)


def test_stop_target() -> None:
    target, weight = stop_target(torch.tensor([0, 2, 3]), 3)
    assert target.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert weight.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_dense_loss_is_cross_entropy_without_void(labels: torch.Tensor) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 21, 16, 16)
    expected = F.cross_entropy(logits, labels, ignore_index=VOID)
    assert dense_loss(logits, labels)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_all_void_and_all_background_give_numbers() -> None:
    model = RecurrentUNet(RecurrentUNetConfig(**TINY)).train()  # type: ignore[arg-type]
    labels = torch.stack([torch.full((16, 16), VOID), torch.zeros(16, 16, dtype=torch.long)])
    terms = recurrent_loss(model(torch.rand(2, 3, 16, 16), torch.tensor([0, 0])), labels, num_classes=21, max_steps=5)
    assert all(math.isfinite(term.item()) for term in terms.values())
    terms["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_shrinking_invents_no_label() -> None:
    labels = torch.tensor([0, 1, 15, VOID])[torch.randint(0, 4, (1, 37, 23))]
    assert set(shrink_labels(labels, (9, 6)).flatten().tolist()) <= {0, 1, 15, VOID}
    assert torch.equal(shrink_labels(labels, (37, 23)), labels)


def test_a_few_steps_of_descent_learn_an_image(labels: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = RecurrentUNet(RecurrentUNetConfig(**TINY)).train()  # type: ignore[arg-type]
    images, lengths = torch.rand(2, 3, 16, 16), torch.tensor([2, 1])
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = recurrent_loss(model(images, lengths), labels, num_classes=21, max_steps=5)["loss"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
