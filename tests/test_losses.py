"""Losses against the words of their definitions, and against PyTorch's own."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recseg.classes import VOID
from recseg.models.config import RecurrentUNetConfig
from recseg.models.recurrent_unet import RecurrentOutput, RecurrentUNet, live_pairs
from recseg.training.losses import (
    LossWeights,
    dense_loss,
    mask_bce,
    mask_dice,
    recurrent_loss,
    shrink_labels,
    step_targets,
    stop_target,
)

TINY = {"encoder_widths": (4, 4, 6, 6, 8), "decoder_widths": (8, 6, 6), "hidden": 4, "reduced": 4}


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


def in_words(answer: RecurrentOutput, labels: torch.Tensor, order: str) -> dict[str, torch.Tensor]:
    """The loss pixel by pixel and step by step, as its definition reads; `labels` at the size of the masks."""

    def bce_and_dice(logits: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        m, y = logits[valid], truth[valid].double()
        p = m.sigmoid()
        return F.binary_cross_entropy(p, y), 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)

    assert answer.pixels is not None
    found: dict[str, list[torch.Tensor]] = {name: [] for name in ("bce", "dice", "classes", "stop")}
    pair = 0
    for image, count in enumerate(answer.lengths.tolist()):
        valid = labels[image] != VOID
        present = sorted(set(labels[image].unique().tolist()) - {0, VOID})
        if order == "area":
            present.sort(key=lambda k: -(labels[image] == k).sum().item())
        steps = range(pair, pair + count)
        pair += count
        options = [list(zip(steps, chosen, strict=True)) for chosen in itertools.permutations(present)]

        def cost(option: list[tuple[int, int]], image: int = image, valid: torch.Tensor = valid) -> float:
            each = [(*bce_and_dice(answer.masks[step], labels[image] == k, valid),
                     -answer.classes[step].softmax(0)[k - 1]) for step, k in option]  # fmt: skip
            return float(sum(sum(part) for part in each))

        for step, label in min(options, key=cost) if order == "matched" else options[0]:
            bce, dice = bce_and_dice(answer.masks[step], labels[image] == label, valid)
            found["bce"].append(bce)
            found["dice"].append(dice)
            found["classes"].append(-answer.classes[step].log_softmax(0)[label - 1])
        for t, logit in enumerate(answer.stop[image][: count + 1]):
            found["stop"].append(F.binary_cross_entropy_with_logits(logit, torch.tensor(float(t == count)).double()))
    terms = {name: torch.stack(values).mean() for name, values in found.items()}
    terms["pixels"] = F.cross_entropy(answer.pixels, labels, ignore_index=VOID)
    return terms


@pytest.mark.parametrize("order", ["matched", "class", "area"])
def test_every_term_is_what_its_definition_says(order: str) -> None:
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.tensor([0, 1, 2, 5, VOID])[torch.randint(0, 5, (3, 6, 4), generator=generator)]
    labels[1][labels[1] == 2] = 0
    labels[2] = torch.where(labels[2] == VOID, VOID, 0)  # nothing is there
    labels[0, 0] = 1  # of class 1 there is more than of 5, so the orders differ
    labels[0, 5], labels[0, 1, :2] = 5, 2
    lengths = torch.tensor([3, 2, 0])
    pairs = live_pairs(lengths)
    answer = RecurrentOutput(
        noise(5, 6, 4), noise(5, 5), noise(3, 4), *pairs, lengths, noise(3, 6, 6, 4), (6, 4)
    )  # fmt: skip
    weights = LossWeights(bce=1.25, dice=0.75, classes=2.0, stop=3.0, pixels=5.0)
    found = recurrent_loss(answer, labels, num_classes=6, max_steps=4, order=order, weights=weights)
    expected = in_words(answer, labels, order)
    assert found.keys() == expected.keys() | {"loss"}
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5), name
    total = sum(getattr(weights, name) * value.item() for name, value in expected.items())
    assert found["loss"].item() == pytest.approx(total, rel=1e-5)


def test_one_pixel_that_counts_is_enough() -> None:
    """Of an image that is void but for one pixel the mean is that pixel's."""
    logits, valid = torch.tensor([[3.0, -1.0, 2.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    alone = F.softplus(torch.tensor(-1.0)).item()
    assert mask_bce(logits, torch.zeros(1, 3), valid).item() == pytest.approx(alone)


def test_the_nearest_pixel_is_the_one_under_the_middle() -> None:
    assert shrink_labels(torch.tensor([[[1, 2, 3, 4, 5]]]), (1, 2)).tolist() == [[[2, 4]]]


def test_dense_loss_of_a_map_that_is_not_square() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 4, 3, 6), torch.randint(0, 4, (2, 3, 6))
    assert dense_loss(logits, labels)["loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


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


@given(seed=st.integers(0, 10_000), void=st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=40, deadline=None)
def test_a_matched_step_learns_the_target_that_fits_it_best(seed: int, void: float) -> None:
    """Of all orders of an image's classes the one in which BCE + Dice − p(class) is least, in a sum over its steps."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return 2 * torch.randn(*shape, generator=generator)

    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    labels[0, 0, :3] = torch.tensor([1, 2, 3])  # all three are there, two in the other image
    labels[1, 0, :2], labels[1][labels[1] == 3] = torch.tensor([1, 2]), 0
    hidden = torch.rand(2, 5, 6, generator=generator) < void
    hidden[:, 0, :3] = False
    labels[hidden] = VOID
    answer = output(noise(5, 5, 6), noise(5, 3), noise(2, 4), torch.tensor([3, 2]))
    label, truth, valid = step_targets(answer, labels, num_classes=4, max_steps=4, order="matched")
    logits, probability = answer.masks.flatten(1), answer.classes.softmax(dim=1)
    for rows, present in (([0, 1, 2], [1, 2, 3]), ([3, 4], [1, 2])):
        image = labels[rows[0] // 3].flatten().expand(len(rows), -1)

        def cost(order: tuple[int, ...], rows: list[int] = rows, image: torch.Tensor = image) -> float:
            target, known = (image == torch.tensor(order)[:, None]).float(), (image != VOID).float()
            each = mask_bce(logits[rows], target, known) + mask_dice(logits[rows], target, known)
            return float((each - probability[rows, torch.tensor(order) - 1]).sum())

        chosen = tuple(label[rows].tolist())
        assert sorted(chosen) == present
        assert cost(chosen) == pytest.approx(min(map(cost, itertools.permutations(present))), abs=1e-5)
        assert torch.equal(truth[rows], (image == label[rows, None]).float())
        assert torch.equal(valid[rows], (image != VOID).float())


def test_maps_of_four_pixels_are_matched_by_the_very_loss() -> None:
    """Where each of the loss's constants counts: 300 images of three classes, half of their pixels void."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(1, 4, (300, 2, 2), generator=generator)
    coarse[torch.rand(300, 2, 2, generator=generator) < 0.5] = VOID
    labels = torch.zeros(300, 4, 4, dtype=torch.long)
    labels[:, 0, :3], labels[:, 1::2, 1::2] = torch.tensor([1, 2, 3]), coarse  # all three are there, if between pixels
    masks, classes = torch.randn(900, 2, 2, generator=generator), torch.randn(900, 3, generator=generator)
    answer = output(masks, classes, torch.zeros(300, 4), torch.full((300,), 3))
    pixels = coarse.flatten(1).repeat_interleave(3, dim=0)  # (900, 4)

    def cost(label: torch.Tensor) -> torch.Tensor:
        target, known = (pixels == label[:, None]).float(), (pixels != VOID).float()
        each = mask_bce(masks.flatten(1), target, known) + mask_dice(masks.flatten(1), target, known)
        return (each - classes.softmax(dim=1).gather(1, label[:, None] - 1)[:, 0]).view(300, 3).sum(dim=1)

    label, _, _ = step_targets(answer, labels, num_classes=4, max_steps=4, order="matched")
    least = torch.stack([cost(torch.tensor(order).repeat(300)) for order in itertools.permutations((1, 2, 3))])
    torch.testing.assert_close(cost(label), least.min(dim=0).values, rtol=0, atol=1e-5)


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


def test_a_few_steps_of_descent_learn_two_images(labels: torch.Tensor) -> None:
    """Their classes, their masks, and that one sequence ends after two steps and the other after one."""
    torch.manual_seed(0)
    model = RecurrentUNet(RecurrentUNetConfig(**TINY | {"hidden": 16})).train()  # type: ignore[arg-type]
    images, lengths = torch.rand(2, 3, 16, 16), torch.tensor([2, 1])
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(120):
        answer = model(images, lengths)
        terms = recurrent_loss(answer, labels, num_classes=21, max_steps=5)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
    found = answer.classes.argmax(dim=1) + 1
    assert sorted(found[:2].tolist()) == [3, 7] and found[2] == 5
    assert answer.stop[0, :2].max() < 0 < answer.stop[0, 2] and answer.stop[1, 0] < 0 < answer.stop[1, 1]
    shrunk = shrink_labels(labels, (answer.masks.shape[-2], answer.masks.shape[-1]))[answer.sample]  # (P, h, w)
    wrong = ((answer.masks > 0) != (shrunk == found[:, None, None])) & (shrunk != VOID)
    assert wrong.float().mean() < 0.05
