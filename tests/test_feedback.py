"""What steps claim and what they leave: a stick that is broken, image by image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recseg.models.feedback import Claims, amount
from recseg.models.heads import Reading, broken_off
from torch import Tensor

GRID, MAPS = (2, 3), (4, 6)  # cells, and pixels of E


def claims_of(embedding: Tensor, level: str = "remaining") -> Claims:
    """Claims that are what the test says: the embedding's one channel is the foreground.

    A step's "state" is its claim, its "summary" is its mask.
    """
    context = torch.zeros(len(embedding), 1, *GRID, dtype=embedding.dtype)
    return Claims(Said(), embedding, context, level)  # type: ignore[arg-type]


class Said:
    """A head that repeats what it is told."""

    def foreground(self, embedding: Tensor) -> Tensor:
        return embedding

    def __call__(
        self, embedding: Tensor, context: Tensor, state: Tensor, summary: Tensor, left: Tensor | None, named: object
    ) -> Reading:
        share = state if left is None else broken_off(state, left)
        return Reading(summary, torch.zeros(len(state), 3), share, state)


def shares(claims: Claims, claim: Tensor, mask: Tensor | None = None) -> Tensor:
    rough = claims.read(claim, claim if mask is None else mask).rough
    assert rough is not None
    return rough


def noise(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.sampled_from(["remaining", "explained"]), st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None)
def test_steps_break_a_stick(level: str, images: int, steps: int, seed: int) -> None:
    said, masks = noise(steps, images, *MAPS, seed=seed), noise(steps, images, *MAPS, seed=seed + 2)
    claims = claims_of(noise(images, 1, *MAPS, seed=seed + 1), level)
    assert claims.foreground is not None
    left = torch.ones(images, *MAPS, dtype=torch.float64)
    for claim, mask in zip(said, masks, strict=True):
        cells = (claims.foreground.sigmoid() * left).view(images, 2, 2, 3, 2).mean(dim=(2, 4))
        torch.testing.assert_close(claims.remaining(), cells)
        share = shares(claims, claim, mask).sigmoid()
        torch.testing.assert_close(share, claim.sigmoid() * left, rtol=1e-5, atol=1e-8)
        left = left * (1 - (claim if level == "remaining" else mask).sigmoid())
        torch.testing.assert_close(claims.planes()[:, 0], 1 - left.view(images, 2, 2, 3, 2).mean(dim=(2, 4)))


def test_everything_claimed_stays_a_number() -> None:
    claim = torch.full((1, *MAPS), 80.0, requires_grad=True)
    claims = claims_of(torch.zeros(1, 1, *MAPS))
    given = torch.stack([shares(claims, claim) for _ in range(3)])
    given.sum().backward()  # type: ignore[no-untyped-call]
    assert given.isfinite().all() and (given[1:] < -70).all()
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
        mine = shares(together, claim)[present.index(1)]
        # To the last digits but one: vectorised functions round otherwise at the end of a row of memory.
        torch.testing.assert_close(shares(alone, said[step][1:2])[0], mine, rtol=1e-13, atol=0)
    if level == "remaining":
        torch.testing.assert_close(alone.remaining(), together.remaining(), rtol=1e-13, atol=0)


def test_what_a_mask_leaves_is_free_for_the_next_step() -> None:
    """Level "explained": a claim on everything, of which the mask in the end covers the left half alone."""
    everything = torch.full((1, *MAPS), 9.0)
    mask = torch.full((1, *MAPS), -9.0)
    mask[..., :3] = 9.0
    for level, free in (("remaining", 0.0), ("explained", 1.0)):
        claims = claims_of(torch.full((1, 1, *MAPS), 9.0), level)
        claims.read(everything, mask)
        torch.testing.assert_close(claims.remaining()[..., 2], torch.full((1, 2), free), rtol=0, atol=0.01)
        second = shares(claims, everything).sigmoid()
        assert second[..., :3].max() < 0.01
        torch.testing.assert_close(second[..., 3:].mean(), torch.tensor(free), rtol=0, atol=0.01)


def test_level_none_takes_nothing() -> None:
    claims, claim = claims_of(torch.zeros(1, 1, *MAPS), "none"), noise(1, *MAPS, seed=3)
    assert claims.foreground is None
    assert torch.equal(shares(claims, claim), claim) and torch.equal(shares(claims, claim), claim)


def test_no_gradient_runs_from_what_is_left_to_who_claimed() -> None:
    claim = torch.zeros(1, *MAPS, requires_grad=True)
    claims = claims_of(torch.zeros(1, 1, *MAPS))
    shares(claims, claim)
    assert not claims.remaining().requires_grad and not claims.planes().requires_grad


def test_amount_tells_one_full_cell_from_a_thin_haze() -> None:
    one = torch.zeros(1, *GRID)
    one[0, 1, 2] = 0.6
    haze = torch.full((1, *GRID), 0.1)
    fullest, mean, *_ = torch.cat([amount(one), amount(haze)]).unbind(dim=1)
    torch.testing.assert_close(fullest, torch.tensor([0.6, 0.1]))
    torch.testing.assert_close(mean, torch.tensor([0.1, 0.1]))
