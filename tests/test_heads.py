"""What the steps of an image owe to each other: no class named twice."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recseg.models.heads import broken_off, distinct
from torch import Tensor

from recseg.models.recurrent_unet import live_pairs

LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any)


def packed(lengths: list[int], *shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (P, *shape), and image and step of each pair."""
    sample, step = live_pairs(torch.tensor(lengths))
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(len(sample), *shape, generator=generator, dtype=torch.float64), sample, step


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


@given(claim=st.floats(-15, 15), log_left=st.floats(-15, 0))
def test_a_share_is_exact_at_both_ends(claim: float, log_left: float) -> None:
    """Against the formula as it stands, in twice the digits."""
    s, left = torch.tensor(claim, dtype=torch.float64), torch.tensor(log_left, dtype=torch.float64).exp()
    p = (s.sigmoid() * left).clamp(max=1 - 1e-6)
    found = broken_off(torch.tensor(claim), torch.tensor(log_left))
    torch.testing.assert_close(found.double(), p.log() - (1 - p).log(), rtol=1e-5, atol=1e-5)
