"""What a step knows of those before it: what they have claimed, and what they have left.

Chapter 4 of the book explains this file. Each step breaks its share off a stick at every pixel, so two steps cannot
both stand for one thing; and foreground that nobody has claimed is what tells the recurrence to go on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.models.heads import EmbeddingHead, Reading

LEVELS = ("none", "claimed", "remaining", "explained", "coverage")  # each knows what those before it do, and more
TOLD = LEVELS[2:]  # there a step is told how much is left
EXPLAINED = LEVELS[3:]  # there a step takes what its final mask covers, not what it had claimed
AMOUNTS = 4  # numbers of `amount`
SMALLEST = 1e-3  # share of a picture: below it, nothing is left


class Claims:
    """What the steps take, of the images whose sequence still runs (R of them; all B at first).

    With g, the probability that a pixel is of any class, and m_u, what step u takes (its final mask; at the levels
    "claimed" and "remaining", the claim s_u that it began with):

        left_t(x) = Π_{u<t} (1 − σ(m_u(x)))
        remaining_t(x) = g(x) left_t(x)

    Args:
        head: of the model.
        embedding: (B, d, h, w) E.
        context: (B, context, gh, gw), the features that the head reads beside the state.
        level: one of `LEVELS`.

    Attributes:
        told: whether steps are told how much is left.
        foreground: (B, h, w) logits of g, of all images; None where nobody asks for it.
    """

    def __init__(self, head: EmbeddingHead, embedding: Tensor, context: Tensor, level: str) -> None:
        self.head, self.embedding, self.context, self.level = head, embedding, context, level
        self.grid = (context.shape[-2], context.shape[-1])
        self.foreground: Tensor | None = None
        self.told = level in TOLD
        # Logarithms of shares: 16 bits are too few.
        self._log_left = embedding.new_zeros(  # (R, h, w)
            (len(embedding), *embedding.shape[-2:]), dtype=torch.promote_types(embedding.dtype, torch.float32)
        )
        self._named: Tensor | None = None  # (R, C), once a step has been read
        if self.told:
            self.foreground = head.foreground(embedding).squeeze(1).to(self._log_left.dtype)  # (B, h, w)
            self._present = self.foreground.detach().sigmoid()  # (R, h, w)

    def remaining(self) -> Tensor:
        """remaining_t as means over cells: (R, gh, gw). Without a gradient: a mask shall fit, not pass notes."""
        return remaining(self._present, self._log_left.detach(), self.grid)

    def planes(self) -> Tensor:
        """What level "coverage" shows the ConvLSTM: (R, 2, gh, gw), what is taken, and the foreground that is not."""
        taken = 1 - F.adaptive_avg_pool2d(self._log_left.detach().exp().unsqueeze(1), self.grid)
        return torch.cat([taken, self.remaining().unsqueeze(1)], dim=1).to(self.embedding.dtype)

    def read(self, state: Tensor, summary: Tensor) -> Reading:
        """A step with state (R, hidden, gh, gw) and summary (R, hidden) takes its share of each image."""
        shared = self.level != "none"
        log_left = self._log_left if shared else None
        read: Reading = self.head(self.embedding, self.context, state, summary, log_left, self._named)
        named = torch.zeros_like(read.classes, dtype=torch.bool) if self._named is None else self._named
        self._named = named.scatter(1, read.classes.argmax(dim=1, keepdim=True), True)
        if shared:
            takes = read.masks if self.level in EXPLAINED else read.claims
            assert takes is not None  # of the embedding head
            self._log_left = self._log_left + F.logsigmoid(-takes.to(self._log_left.dtype))
        return read

    def keep(self, goes_on: Tensor) -> None:
        """Forget the images, (R,) bool, whose sequence has ended."""
        self.embedding, self.context = self.embedding[goes_on], self.context[goes_on]
        self._log_left = self._log_left[goes_on]
        if self._named is not None:
            self._named = self._named[goes_on]
        if self.told:
            self._present = self._present[goes_on]


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
