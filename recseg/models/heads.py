"""What a step of the recurrence turns its state into: a mask and a class.

Chapter 4 of the book explains this file. Two heads: `EmbeddingHead` multiplies a query with pixel embeddings that were
decoded once (masks as a product: Cheng et al., "MaskFormer", NeurIPS 2021); `DecoderHead` reads what the decoder made
of the step's own state (the published idea).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reading(NamedTuple):
    """P steps as masks and classes.

    Attributes:
        masks: (P, h, w) mask logits.
        classes: (P, C) logits of the foreground classes.
        rough: (P, h, w) logits of where the class was read; None with the decoder head.
        claims: (P, h, w) logits of what the step claimed, before it got its share; likewise.
    """

    masks: Tensor
    classes: Tensor
    rough: Tensor | None = None
    claims: Tensor | None = None


class EmbeddingHead(nn.Module):
    """Masks from products with a pixel embedding E that is decoded once an image.

    For a step with state h, summary z, and features x on the grid of the recurrence (equations of `RecurrentUNet`):

        s = ⟨Q z, E⟩ / √d + upsample(⟨l, h⟩)        claim: what it looks like, and roughly where
        σ(r) = σ(s) left                            rough mask: what the steps before have left of that
        k = W pool_r(E) + V pool_r([x, h])          class logits: what lies under that mask, finely and coarsely
        m = γ r + ⟨Σ_c p(c) (w_c − w_0), E⟩         mask logits: where the classifier sees that class

    pool_r is the mean over pixels, weighted by σ(r); p is the softmax of k. In evaluation the best class that no step
    before has named has p = 1.

    Args:
        embedding: d, channels of E.
        context: channels of x.
        hidden: channels of h and z.
        num_classes: labels, background included.
        max_steps: T.
        foreground: whether there is a map of what is any class at all, for `recseg.models.feedback`.
    """

    def __init__(
        self, embedding: int, context: int, hidden: int, num_classes: int, max_steps: int, foreground: bool = False
    ) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.query = nn.Linear(hidden, embedding)  # Q
        self.location = nn.Conv2d(hidden, 1, 1)  # l
        self.classifier = nn.Conv2d(embedding, num_classes, 1)  # W
        if foreground:
            self.foreground = nn.Conv2d(embedding, 1, 1)  # f: is a pixel of any class?
        self.region = nn.Linear(context + hidden, num_classes - 1, bias=False)  # V
        self.trust = nn.Parameter(torch.tensor(0.3))  # γ
        # From zero: at first a step reads classes as the pixels do, and V learns what they miss.
        nn.init.zeros_(self.region.weight)

    def claim(self, embedding: Tensor, state: Tensor, summary: Tensor) -> Tensor:
        """s: E (P, d, h, w), states (P, hidden, gh, gw) and summaries (P, hidden) → (P, h, w) logits."""
        height, width = embedding.shape[-2:]
        query = self.query(summary) / math.sqrt(embedding.shape[1])  # (P, d)
        look = along(embedding, query)  # (P, h, w)
        place = F.interpolate(self.location(state), size=(height, width), mode="bilinear", align_corners=False)
        return look + place.squeeze(1)

    def forward(
        self,
        embedding: Tensor,
        context: Tensor,
        state: Tensor,
        summary: Tensor,
        log_left: Tensor | None = None,
        named: Tensor | None = None,
    ) -> Reading:
        """Read a step of P images.

        Args:
            embedding: (P, d, h, w) E.
            context: (P, context, gh, gw) x.
            state: (P, hidden, gh, gw) h.
            summary: (P, hidden) z.
            log_left: (P, h, w) logarithm of the share of each pixel that the steps before have left; None: all.
            named: (P, C) bool, what the steps before have named, which evaluation does not name again; None: nothing.
        """
        claims = self.claim(embedding, state, summary)
        rough = claims if log_left is None else broken_off(claims.to(log_left.dtype), log_left)
        weight = rough.sigmoid().unsqueeze(1)  # (P, 1, h, w)
        coarse = F.adaptive_avg_pool2d(weight, (state.shape[-2], state.shape[-1]))  # (P, 1, gh, gw)
        classes = self.classes(weight, coarse, embedding, torch.cat([context, state], dim=1))  # (P, C)
        rows, bias = self.rows()
        if self.training:
            likely = classes.softmax(dim=1)
            row, offset = likely @ (rows[1:] - rows[:1]), likely @ (bias[1:] - bias[0])  # (P, d), (P,)
        else:
            classes = classes if named is None else not_again(classes, named)
            best = classes.argmax(dim=1) + 1
            row, offset = rows[best] - rows[:1], bias[best] - bias[0]
        return Reading(self.mask(rough, row, offset, embedding), classes, rough, claims)

    def rows(self) -> tuple[Tensor, Tensor]:
        """W as a matrix (num_classes, d), and its bias (num_classes,)."""
        assert self.classifier.bias is not None
        return self.classifier.weight.flatten(1), self.classifier.bias

    def classes(self, weight: Tensor, coarse: Tensor, embedding: Tensor, around: Tensor) -> Tensor:
        """k: rough masks as probabilities (P, 1, h, w) and (P, 1, gh, gw), E, and [x, h] on the grid → (P, C)."""
        rows, bias = self.rows()
        # A step is never background.
        fine: Tensor = F.linear(pool_under(weight, embedding), rows[1:], bias[1:])
        logits: Tensor = fine + self.region(pool_under(coarse, around))
        return logits

    def mask(self, rough: Tensor, row: Tensor, offset: Tensor, embedding: Tensor) -> Tensor:
        """m: rough masks (P, h, w), rows of W less that of background (P, d), their biases likewise (P,), and E."""
        seen = along(embedding, row) + offset.view(-1, 1, 1)
        masks: Tensor = self.trust * rough + seen
        return masks


class DecoderHead(nn.Module):
    """A mask from the map that the decoder made of a step's state, a class from where the state speaks loudest for it.

    Args:
        decoded: channels of the decoder's map.
        hidden: channels of the state.
        num_classes: labels, background included.
        max_steps: T.
    """

    def __init__(self, decoded: int, hidden: int, num_classes: int, max_steps: int) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.mask = nn.Conv2d(decoded, 1, 1)
        self.classifier = nn.Conv2d(hidden, num_classes - 1, 1)

    def forward(self, decoded: Tensor, state: Tensor, step: Tensor) -> Reading:
        """Decoded maps (P, d, h, w), states (P, hidden, gh, gw) and numbers (P,) of P steps."""
        classes = self.classifier(state).amax(dim=(2, 3))  # (P, C)
        if not self.training:
            classes = distinct(classes, step, self.max_steps)
        return Reading(self.mask(decoded).squeeze(1), classes)


def pool_under(weight: Tensor, features: Tensor) -> Tensor:
    """The mean of features (P, d, h, w) under masks (P, 1, h, w) of probabilities: (P, d)."""
    weight = weight.flatten(2)  # (P, 1, h·w)
    weight = weight / weight.sum(dim=2, keepdim=True).clamp(min=1e-6)
    return torch.bmm(weight, _pixels(features)).squeeze(1)


def along(features: Tensor, vectors: Tensor) -> Tensor:
    """Products ⟨v, F⟩ of vectors (P, d) with the pixels of features (P, d, h, w): (P, h, w)."""
    return torch.bmm(_pixels(features), vectors.unsqueeze(2)).view(-1, *features.shape[-2:])


def _pixels(features: Tensor) -> Tensor:
    """Features (P, d, h, w) as a list of pixels (P, h·w, d): as channels_last lays them out, so nothing is copied."""
    return features.flatten(2).transpose(1, 2)


def broken_off(claims: Tensor, log_left: Tensor) -> Tensor:
    """The share p that claims s (…, logits) take of what is left, L (…, its logarithm), as logits.

    With p = σ(s) L, its odds are p / (1 − p) = L / (exp(−s) + 1 − L): a sum of what is not negative, where 1 − p itself
    would cancel. In words that compilers keep exact: exp and tanh, where sigmoid and expm1 become approximations that
    lose what is next to zero.
    """
    t = torch.tanh(-log_left / 2)  # 1 − L = 2 t / (1 + t)
    rest = (-claims).clamp(max=80).exp() + 2 * t / (1 + t)  # exp(88) would be infinite in 32 bits
    return log_left - rest.clamp(min=1e-6).log()


def not_again(classes: Tensor, named: Tensor) -> Tensor:
    """Logits (P, C) in which the named classes, (P, C) bool, are less likely than all others."""
    return torch.where(named, classes.amin(dim=1, keepdim=True) - 1, classes)


def distinct(classes: Tensor, step: Tensor, max_steps: int) -> Tensor:
    """Give no class twice in an image: what a step names is, to those after it, less likely than all other classes.

    Args:
        classes: (P, C) logits; the steps of an image stand beside each other, in their order.
        step: (P,) number of each step, 0-based.
        max_steps: T.

    Returns:
        (P, C) logits, changed only where a step before has named the class.
    """
    taken = torch.zeros_like(classes, dtype=torch.bool)
    for turn in range(1, min(max_steps, classes.shape[1])):
        named = classes.masked_fill(taken, -torch.inf).argmax(dim=1, keepdim=True)  # (P, 1)
        passed_on = taken.scatter(1, named, True).roll(1, dims=0)  # what the pair before has, and what it names
        taken = torch.where((step == turn).unsqueeze(1), passed_on, taken)
    return not_again(classes, taken)
