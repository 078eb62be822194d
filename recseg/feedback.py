"""What a step knows of those before it: what they have claimed, and what they have left.

Chapter 4 of the book explains this file. Each step breaks its share off a stick at every pixel, so two steps cannot
both stand for one thing; and foreground that nobody has claimed is what tells the recurrence to go on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.heads import EmbeddingHead

LEVELS = ("none", "claimed", "remaining", "coverage")  # each knows what those before it do, and more
TOLD = LEVELS[2:]  # there a step is told how much is left
AMOUNTS = 4  # numbers of `amount`
SMALLEST = 1e-3  # share of a picture: below it, nothing is left


class Claims:
    """What the steps claim, of the images whose sequence still runs (R of them; all B at first).

    With s_u, the claims of the steps so far, and g, the probability that a pixel is of any class:

        left_t(x) = Π_{u<t} (1 − σ(s_u(x)))
        remaining_t(x) = g(x) left_t(x)

    Args:
        head: of the model.
        embedding: (B, d, h, w) E.
        grid: (gh, gw), cells of the recurrence.
        level: one of `LEVELS`.

    Attributes:
        told: whether steps are told how much is left.
        foreground: (B, h, w) logits of g, of all images; None where nobody asks for it.
    """

    def __init__(self, head: EmbeddingHead, embedding: Tensor, grid: tuple[int, int], level: str) -> None:
        self.head, self.embedding, self.grid = head, embedding, grid
        self.foreground: Tensor | None = None
        self._shared, self.told = level != "none", level in TOLD
        # Logarithms of shares: 16 bits are too few.
        self._log_left = embedding.new_zeros(  # (R, h, w)
            (len(embedding), *embedding.shape[-2:]), dtype=torch.promote_types(embedding.dtype, torch.float32)
        )
        if self.told:
            self.foreground = head.foreground(embedding).squeeze(1).to(self._log_left.dtype)  # (B, h, w)
            self._present = self.foreground.detach().sigmoid()  # (R, h, w)

    def remaining(self) -> Tensor:
        """remaining_t as means over cells: (R, gh, gw). Without a gradient: a claim shall fit, not pass notes."""
        return remaining(self._present, self._log_left.detach(), self.grid)

    def planes(self) -> Tensor:
        """What level "coverage" shows the ConvLSTM: (R, 2, gh, gw), what is claimed, and the foreground that is not."""
        claimed = 1 - F.adaptive_avg_pool2d(self._log_left.detach().exp().unsqueeze(1), self.grid)
        return torch.cat([claimed, self.remaining().unsqueeze(1)], dim=1).to(self.embedding.dtype)

    def claim(self, state: Tensor, summary: Tensor) -> Tensor:
        """A step with state (R, hidden, gh, gw) and summary (R, hidden) takes its share: logits (R, h, w)."""
        claims = self.head.claim(self.embedding, state, summary)
        if not self._shared:
            return claims
        claims = claims.to(self._log_left.dtype)
        share, self._log_left = broken_off(claims, self._log_left), self._log_left + F.logsigmoid(-claims)
        return share

    def keep(self, goes_on: Tensor) -> None:
        """Forget the images, (R,) bool, whose sequence has ended."""
        self.embedding, self._log_left = self.embedding[goes_on], self._log_left[goes_on]
        if self.foreground is not None:
            self._present = self._present[goes_on]


def broken_off(claims: Tensor, log_left: Tensor) -> Tensor:
    """The share that claims (…, logits) take of what is left (…, its logarithm), as logits."""
    log_p = (F.logsigmoid(claims) + log_left).clamp(max=-1e-6)
    return log_p - torch.log(-torch.expm1(log_p))


def remaining(present: Tensor, log_left: Tensor, grid: tuple[int, int]) -> Tensor:
    """Foreground that is left: g and the logarithm of left_t, (R, h, w) → means over cells (R, gh, gw)."""
    return F.adaptive_avg_pool2d((present * log_left.exp()).unsqueeze(1), grid).squeeze(1)


def amount(cells: Tensor) -> Tensor:
    """How much is left: (R, gh, gw) → (R, 4), the fullest cell and the mean of all, and their logarithms.

    The fullest cell shows one small thing that a mean would drown; logarithms tell little from nothing.
    """
    cells = cells.flatten(1)  # (R, gh·gw)
    both = torch.stack([cells.amax(dim=1), cells.mean(dim=1)], dim=1)  # (R, 2)
    return torch.cat([both, (both + SMALLEST).log() / 4], dim=1)
