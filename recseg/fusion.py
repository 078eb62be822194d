"""From packed steps to one label map, weighted by how likely the sequence was still running.

Chapter 5 of the book explains this file. A step counts with its survival, a_t = Π_{s≤t} (1 − p_stop,s): the
probability that the sequence had not ended before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.recurrent_unet import RecurrentOutput


def survival(stop: Tensor) -> Tensor:
    """Probability that the sequence reaches each step: stop logits (B, T) → (B, T), falling along T."""
    return F.logsigmoid(-stop.float()).cumsum(dim=1).exp()


def fuse(output: RecurrentOutput, size: tuple[int, int] | None = None) -> Tensor:
    """The label map of each image.

    With survival a_t, class probabilities p_t, masks m_t of the live steps of an image:

        S_c(x) = Σ_{t: c_t = c} a_t · p_t(c) · σ(m_t(x)),   c_t = argmax p_t
        S_0(x) = Π_t (1 − a_t · σ(m_t(x)))                   what nobody claimed
        label(x) = argmax_c S_c(x)

    Only the likeliest class of each step competes: at most T + 1 maps, whatever the number of classes.

    Args:
        output: of a recurrent model.
        size: (H, W) of the label map; the input's size by default. Logits are resized, never labels.

    Returns:
        (B, H, W) int64.
    """
    height, width = size or output.size
    labels = torch.zeros(len(output.lengths), height, width, dtype=torch.long, device=output.stop.device)
    if not len(output.sample):
        return labels
    reached = survival(output.stop)[output.sample, output.step]  # (P,)
    probability, column = output.classes.float().softmax(dim=1).max(dim=1)  # (P,), (P,)
    start = 0
    for image, count in enumerate(output.lengths.tolist()):
        if not count:
            continue
        pairs = slice(start, start + count)
        start += count
        # Resized an image at a time: a batch of full-size masks would be the largest tensor of the whole model.
        logits = F.interpolate(output.masks[pairs, None].float(), size=(height, width), mode="bilinear")
        claimed = reached[pairs, None, None] * logits.squeeze(1).sigmoid()  # (n, H, W)
        unclaimed = (1 - claimed).prod(dim=0)  # (H, W)
        # Steps of one class are merged: their scores add up, each then holds the sum.
        same = (column[pairs, None] == column[None, pairs]).float()  # (n, n)
        scores = torch.einsum("st,thw->shw", same, probability[pairs, None, None] * claimed)
        best, winner = scores.max(dim=0)  # (H, W)
        labels[image] = (column[pairs] + 1)[winner].where(best > unclaimed, 0)
    return labels
