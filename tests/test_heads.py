"""What the steps of an image owe to each other: no pixel claimed twice, no class named twice."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recseg.heads import distinct, unclaimed
from recseg.recurrent_unet import live_pairs

LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any)


def packed(lengths: list[int], *shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (P, *shape), and image and step of each pair."""
    sample, step = live_pairs(torch.tensor(lengths))
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(len(sample), *shape, generator=generator, dtype=torch.float64), sample, step


@given(LENGTHS, st.integers(0, 1000))
@settings(deadline=None)
def test_unclaimed_is_a_broken_stick(lengths: list[int], seed: int) -> None:
    claims, sample, step = packed(lengths, 2, 3, seed=seed)
    shares = unclaimed(claims, step, max_steps=4).sigmoid()
    for image in range(len(lengths)):
        left = torch.ones(2, 3, dtype=torch.float64)
        for claim, share in zip(claims[sample == image].sigmoid(), shares[sample == image], strict=True):
            torch.testing.assert_close(share, claim * left, rtol=1e-5, atol=1e-8)
            left = left * (1 - claim)


def test_unclaimed_stays_a_number_where_everything_is_claimed() -> None:
    claims = torch.full((3, 1, 1), 80.0, requires_grad=True)
    left = unclaimed(claims, torch.tensor([0, 1, 2]), max_steps=3)
    left.sum().backward()  # type: ignore[no-untyped-call]
    assert left.isfinite().all() and (left[1:] < -70).all()
    assert claims.grad is not None and claims.grad.isfinite().all()


@given(LENGTHS, st.integers(0, 1000))
@settings(deadline=None)
def test_unclaimed_does_not_depend_on_the_company(lengths: list[int], seed: int) -> None:
    claims, sample, step = packed(lengths, 2, 3, seed=seed)
    claims = 10 * claims.float()  # sure of much: sums over a whole batch would have few digits left
    together = unclaimed(claims, step, max_steps=4)
    for image in range(len(lengths)):
        mine = sample == image
        assert torch.equal(unclaimed(claims[mine], step[mine], max_steps=4), together[mine])


@given(LENGTHS, st.integers(2, 6), st.integers(0, 1000))
@settings(deadline=None)
def test_distinct_names_the_best_class_that_is_left(lengths: list[int], classes: int, seed: int) -> None:
    logits, sample, step = packed(lengths, classes, seed=seed)
    changed = distinct(logits, step, max_steps=4)
    for image in range(len(lengths)):
        taken: list[int] = []
        for before, after in zip(logits[sample == image], changed[sample == image], strict=True):
            if len(taken) == classes:
                break  # more steps than classes: there is nothing left to name
            free = [column for column in range(classes) if column not in taken]
            best = max(free, key=lambda column: float(before[column]))
            assert int(after.argmax()) == best
            assert torch.equal(after[free], before[free])
            taken.append(best)


def test_distinct_with_nothing_to_say() -> None:
    assert distinct(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), max_steps=4).shape == (0, 5)
