"""What steps claim and what they leave: a stick that is broken, image by image."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recseg.feedback import Claims, amount

GRID, MAPS = (2, 3), (4, 6)  # cells, and pixels of E


def claims_of(embedding: Tensor, level: str = "remaining") -> Claims:
    """Claims that are what the test says: a step's "state" is its claim, the embedding's one channel the foreground."""
    head: Any = SimpleNamespace(claim=lambda embedding, state, summary: state, foreground=lambda embedding: embedding)
    return Claims(head, embedding, GRID, level)


def noise(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None)
def test_claims_break_a_stick(images: int, steps: int, seed: int) -> None:
    said = noise(steps, images, *MAPS, seed=seed)
    claims = claims_of(noise(images, 1, *MAPS, seed=seed + 1))
    assert claims.foreground is not None
    left = torch.ones(images, *MAPS, dtype=torch.float64)
    for claim in said:
        cells = (claims.foreground.sigmoid() * left).view(images, 2, 2, 3, 2).mean(dim=(2, 4))
        torch.testing.assert_close(claims.remaining(), cells)
        share = claims.claim(claim, claim).sigmoid()
        torch.testing.assert_close(share, claim.sigmoid() * left, rtol=1e-5, atol=1e-8)
        left = left * (1 - claim.sigmoid())
        torch.testing.assert_close(claims.planes()[:, 0], 1 - left.view(images, 2, 2, 3, 2).mean(dim=(2, 4)))


def test_everything_claimed_stays_a_number() -> None:
    claim = torch.full((1, *MAPS), 80.0, requires_grad=True)
    claims = claims_of(torch.zeros(1, 1, *MAPS))
    shares = torch.stack([claims.claim(claim, claim) for _ in range(3)])
    shares.sum().backward()  # type: ignore[no-untyped-call]
    assert shares.isfinite().all() and (shares[1:] < -70).all()
    assert claim.grad is not None and claim.grad.isfinite().all()
    assert (claims.remaining() == 0).all() and amount(claims.remaining()).isfinite().all()


@pytest.mark.parametrize("level", ["claimed", "remaining"])
def test_an_image_does_not_depend_on_the_company(level: str) -> None:
    said, embedding = noise(3, 3, *MAPS, seed=1), noise(3, 1, *MAPS, seed=2)
    together, alone = claims_of(embedding, level), claims_of(embedding[1:2], level)
    for step, present in enumerate(([0, 1, 2], [0, 1, 2], [1])):
        if step == 2:
            together.keep(torch.tensor([False, True, False]))
        claim = said[step][present]
        mine = together.claim(claim, claim)[present.index(1)]
        assert torch.equal(alone.claim(said[step][1:2], claim)[0], mine)
    if level == "remaining":
        assert torch.equal(alone.remaining(), together.remaining())


def test_level_none_takes_nothing() -> None:
    claims, claim = claims_of(torch.zeros(1, 1, *MAPS), "none"), noise(1, *MAPS, seed=3)
    assert claims.foreground is None
    assert torch.equal(claims.claim(claim, claim), claim) and torch.equal(claims.claim(claim, claim), claim)


def test_no_gradient_runs_from_what_is_left_to_who_claimed() -> None:
    claim = torch.zeros(1, *MAPS, requires_grad=True)
    claims = claims_of(torch.zeros(1, 1, *MAPS))
    claims.claim(claim, claim)
    assert not claims.remaining().requires_grad and not claims.planes().requires_grad


def test_amount_tells_one_full_cell_from_a_thin_haze() -> None:
    one = torch.zeros(1, *GRID)
    one[0, 1, 2] = 0.6
    haze = torch.full((1, *GRID), 0.1)
    fullest, mean, *_ = torch.cat([amount(one), amount(haze)]).unbind(dim=1)
    torch.testing.assert_close(fullest, torch.tensor([0.6, 0.1]))
    torch.testing.assert_close(mean, torch.tensor([0.1, 0.1]))
