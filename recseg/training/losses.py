"""Losses for masks, classes, the stop and single pixels. All take logits and ignore void pixels.

Chapter 5 of the book explains this file. Dice: Milletari et al., "V-Net", 3DV 2016. The matched order follows Carion
et al., "End-to-end object detection with transformers", ECCV 2020.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.classes import VOID
from recseg.distributed import global_count
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.training.targets import match, to_sequence


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term in the total loss."""

    bce: float = 1.5
    dice: float = 0.5
    classes: float = 0.5
    stop: float = 0.5
    pixels: float = 3.0


def shrink_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize label maps (B, H, W) to (B, h, w): each new pixel takes the label nearest to its centre."""
    shrunk = F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")  # (B, 1, h, w)
    return shrunk[:, 0].long()


def dense_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per-pixel cross-entropy of the dense baseline: logits (B, K, h, w) and labels (B, H, W) → {"loss", "pixels"}."""
    labels = shrink_labels(labels, (logits.shape[-2], logits.shape[-1]))
    # Sum over a count of at least 1: an all-void batch gives 0, where the mean would be NaN.
    total = F.cross_entropy(logits.float(), labels, ignore_index=VOID, reduction="sum")
    loss = total / global_count((labels != VOID).sum())
    return {"loss": loss, "pixels": loss}


def mask_bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean binary cross-entropy of each mask over its valid pixels: three (P, N) → (P,)."""
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * valid).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def mask_dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 − Dice coefficient of each mask over its valid pixels: three (P, N) → (P,).

    Adding 1 to numerator and denominator makes an empty mask on an empty target perfect.
    """
    probability = logits.sigmoid() * valid
    overlap = 2 * (probability * target).sum(dim=1) + 1
    return 1 - overlap / (probability.sum(dim=1) + (target * valid).sum(dim=1) + 1)


def stop_target(lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Target and weight (B, T) of the stop logits: 0 while classes remain, 1 at the step after, weight 0 later."""
    index = torch.arange(steps, device=lengths.device)
    return (index == lengths[:, None]).float(), (index <= lengths[:, None]).float()


def recurrent_loss(
    output: RecurrentOutput,
    labels: Tensor,
    *,
    num_classes: int,
    max_steps: int,
    order: str = "matched",
    weights: LossWeights | None = None,
) -> dict[str, Tensor]:
    """Loss of a recurrent model that was run with the true lengths.

    Args:
        output: of `model(images, lengths)`.
        labels: (B, H, W) label maps of the crops, 255 where void.
        num_classes: labels, background included.
        max_steps: T of the targets.
        order: "matched": each step learns the target that fits it best; "class" or "area": step t learns target t.
        weights: of the terms.

    Returns:
        {"loss": total, "bce", "dice", "classes", "stop", "pixels": its terms, unweighted}; scalars. "pixels" exists
        in training mode only.
    """
    weights = weights or LossWeights()
    label, truth, valid = step_targets(output, labels, num_classes=num_classes, max_steps=max_steps, order=order)
    logits = output.masks.float().flatten(1)  # (P, N)
    log_class = output.classes.float().log_softmax(dim=1)  # (P, C)
    live = global_count(len(label))
    stop_truth, stop_weight = stop_target(output.lengths, output.stop.shape[1])
    stop = F.binary_cross_entropy_with_logits(output.stop.float(), stop_truth, stop_weight, reduction="sum")
    terms = {
        "bce": mask_bce(logits, truth, valid).sum() / live,
        "dice": mask_dice(logits, truth, valid).sum() / live,
        "classes": F.nll_loss(log_class, label - 1, reduction="sum") / live,
        "stop": stop / global_count(stop_weight.sum()),
    }
    if output.pixels is not None:
        terms["pixels"] = dense_loss(output.pixels, labels)["pixels"]
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return {"loss": total, **terms}


def step_targets(
    output: RecurrentOutput, labels: Tensor, *, num_classes: int, max_steps: int, order: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The target of each live step, at the resolution of its mask of N = h·w pixels.

    Args: as for `recurrent_loss`.

    Returns:
        label (P,) of the class, its mask (P, N) of 0 and 1, and valid (P, N): 0 where the ground truth is void.
    """
    height, width = output.masks.shape[-2:]
    # Classes are counted at full size: one too small for the coarse map is still present.
    sequence = to_sequence(labels, max_steps, num_classes=num_classes, order=order)
    sample, step = output.sample, output.step
    pixels = shrink_labels(labels, (height, width)).flatten(1)[sample]  # (P, N)
    valid = (pixels != VOID).float()
    target = step
    if order == "matched" and len(sample):
        with torch.no_grad():
            log_class = output.classes.float().log_softmax(dim=1)  # (P, C)
            cost = _cost(output.masks.float().flatten(1), log_class, pixels, valid, sequence.classes[sample])  # (P, T)
            padded = cost.new_zeros(len(labels), max_steps, max_steps)
            padded[sample, step] = cost
            target = match(padded, output.lengths)[sample, step]  # (P,)
    label = sequence.classes[sample, target]  # (P,)
    return label, (pixels == label[:, None]).float(), valid


def _cost(logits: Tensor, log_class: Tensor, pixels: Tensor, valid: Tensor, classes: Tensor) -> Tensor:
    """Cost of each live step against each target of its image: (P, N) maps and (P, T) classes → (P, T).

    −p(class) + Dice + BCE, as matrix products instead of a loop over targets: Σ BCE(m, y) = Σ softplus(m) − Σ y·m.
    """
    masks = (pixels[:, None, :] == classes[:, :, None]).float()  # (P, T, N)
    probability = logits.sigmoid() * valid
    count = valid.sum(dim=1, keepdim=True).clamp(min=1)  # (P, 1)
    overlap = torch.bmm(masks, probability.unsqueeze(2)).squeeze(2)  # (P, T)
    area = masks.sum(dim=2)  # (P, T)
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=1, keepdim=True) + area + 1)
    inside = torch.bmm(masks, logits.unsqueeze(2)).squeeze(2)  # (P, T): Σ y·m
    bce = ((F.softplus(logits) * valid).sum(dim=1, keepdim=True) - inside) / count
    likely = log_class.exp().gather(1, (classes - 1).clamp(min=0))  # (P, T)
    return bce + dice - likely
