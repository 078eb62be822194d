"""Fuse packed steps into one label map, weighted by the probability that the sequence was still running.

Chapter 5 of the book explains this file. Each step is weighted by its survival, a_t = Π_{s≤t} (1 − p_stop,s): the
probability that the sequence has not ended before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.classes import BACKGROUND
from recseg.models.recurrent_unet import RecurrentOutput


def survival(stop: Tensor) -> Tensor:
    """Probability that the sequence reaches each step: stop logits (B, T) → (B, T), falling along T."""
    return log_survival(stop).exp()


def log_survival(stop: Tensor) -> Tensor:
    """The logarithm of `survival`, which stays finite where the probability underflows."""
    return F.logsigmoid(-stop.float()).cumsum(dim=1)


def fuse(output: RecurrentOutput, size: tuple[int, int] | None = None, *, background: bool = True) -> Tensor:
    """The label map of each image.

    A mask logit m_t(x) is the log-odds of the step's class c_t against background at pixel x. It is discounted by the
    step's survival a_t:

        o_t(x) = m_t(x) + log a_t
        label(x) = c_t of the step with the largest o_t(x), or background where none exceeds 0

    This is how a dense softmax decides, but over the classes that were named instead of all of them: at most T + 1 maps
    compete, whatever the number of classes.

    Args:
        output: of a recurrent model.
        size: (H, W) of the label map; the input's size by default. Logits are resized, never labels.
        background: whether a pixel may belong to no class. If not, it gets the class of the step with the largest
            o_t(x), and an image has at least one step.

    Returns:
        (B, H, W) int64.
    """
    height, width = size or output.size
    labels = torch.zeros(len(output.lengths), height, width, dtype=torch.long, device=output.stop.device)
    discount = log_survival(output.stop)[output.sample, output.step]  # (P,)
    named = output.classes.argmax(dim=1) + 1  # (P,)
    start = 0
    for image, count in enumerate(output.lengths.tolist()):
        if not count:
            continue
        pairs = slice(start, start + count)
        start += count
        # Resized one image at a time: a batch of full-size masks would be the largest tensor of the whole model.
        masks = F.interpolate(output.masks[pairs, None].float(), size=(height, width), mode="bilinear").squeeze(1)
        best, winner = (masks + discount[pairs, None, None]).max(dim=0)  # (H, W)
        classes = named[pairs][winner]
        labels[image] = classes.where(best > 0, BACKGROUND) if background else classes
    return labels
