"""Convert label maps to sequences of (mask, class) and back, and assign a target to each step.

Chapter 5 of the book explains this file. A label map gives the class of each pixel; a recurrence emits one class after
another. The two hold the same information as long as an image has no more classes than the sequence has steps.
"""

import itertools
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recseg.classes import BACKGROUND, VOID
from recseg.errors import RecsegError
from recseg.training.config import ORDERS

DIVERGED = "matching: a cost is not finite, the training has diverged; expected a lower learning rate"


class TargetSequence(NamedTuple):
    """The classes of B images, one per step, at most T each.

    Attributes:
        classes: (B, T) label of each step; 0 where the image has no more.
        lengths: (B,) number of classes in each image.
        labels: (B, H, W) the label maps, without the classes beyond the last step.
        valid: (B, H, W) False at void pixels, which are neither trained on nor scored.
    """

    classes: Tensor
    lengths: Tensor
    labels: Tensor
    valid: Tensor

    @property
    def masks(self) -> Tensor:
        """(B, T, H, W) bool: where each step's class is; all False where the image has no more."""
        step = self.classes[:, :, None, None]  # (B, T, 1, 1)
        return (self.labels[:, None] == step) & (step != BACKGROUND)


def class_areas(labels: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each label, void excluded: (B, H, W) → (B, num_classes).

    Raises:
        RecsegError: a wrong shape, or a label that is neither void nor below num_classes. Labels are checked on the CPU
            only: on a GPU the check would wait for the device, and masks have been checked when they were read.
    """
    if labels.ndim != 3:
        raise RecsegError(f"label maps of shape {tuple(labels.shape)}: expected (B, H, W)")
    flat = labels.flatten(1).long()  # (B, H·W)
    wrong = (flat != VOID) & ((flat < 0) | (flat >= num_classes))
    if labels.is_cpu and wrong.any():
        raise RecsegError(f"label {int(flat[wrong][0])}: expected 0 to {num_classes - 1}, or {VOID} for void")
    flat = flat.where(flat != VOID, num_classes)  # void goes into a bin of its own, which is dropped
    areas = torch.zeros(len(flat), num_classes + 1, dtype=torch.long, device=labels.device)
    areas.scatter_add_(1, flat, torch.ones_like(flat))
    return areas[:, :num_classes]


def to_sequence(labels: Tensor, max_steps: int, *, num_classes: int, order: str = "class") -> TargetSequence:
    """Split label maps into one target per class.

    Args:
        labels: (B, H, W) integer label maps, 255 where void.
        max_steps: T. An image with more classes keeps its T largest; on the CPU a warning says how many were dropped.
        num_classes: labels, background included.
        order: "class": ascending label; "area": largest first; "matched": ascending label too, for `match` to reorder.
    """
    if order not in ORDERS:
        raise RecsegError(f"order {order!r}: expected one of {', '.join(ORDERS)}")
    areas = class_areas(labels, num_classes)[:, 1:]  # (B, C) foreground only
    steps = min(max_steps, areas.shape[1])
    # Stable: of two classes of the same size, the lower label comes first on every machine.
    largest, columns = areas.sort(dim=1, descending=True, stable=True)
    classes = (columns + 1).where(largest > 0, BACKGROUND)  # (B, C)
    dropped = classes[:, steps:]
    classes = classes[:, :steps]  # (B, T)
    if not labels.is_cpu:  # on a GPU, checking whether there are any costs more than voiding none
        labels = _forget(labels, dropped)
    elif dropped.any():
        labels = _forget(labels, dropped)
        warnings.warn(
            f"images with more than {max_steps} classes: {int((dropped > 0).any(dim=1).sum())}; their largest stay, "
            f"classes dropped: {int((dropped > 0).sum())}",
            stacklevel=2,
        )
    lengths = (classes > 0).sum(dim=1)
    if order != "area":
        classes = classes.where(classes > 0, num_classes).sort(dim=1).values  # the empty steps last
        classes = classes.where(classes < num_classes, BACKGROUND)
    if steps < max_steps:
        classes = torch.nn.functional.pad(classes, (0, max_steps - steps), value=BACKGROUND)
    return TargetSequence(classes, lengths, labels, labels != VOID)


def _forget(labels: Tensor, dropped: Tensor) -> Tensor:
    """Mark the pixels of dropped classes (B, K), 0 for none, as void: they are not background."""
    is_dropped = torch.zeros(len(labels), VOID + 1, dtype=torch.bool, device=labels.device).scatter(1, dropped, True)
    is_dropped[:, BACKGROUND] = False
    gone = is_dropped.gather(1, labels.flatten(1).long())  # (B, H·W)
    return labels.masked_fill(gone.view(labels.shape), VOID)


def to_labels(sequence: TargetSequence) -> Tensor:
    """The label maps (B, H, W) that a sequence describes: the inverse of `to_sequence` for up to T classes an image."""
    labels = (sequence.masks * sequence.classes[:, :, None, None]).sum(dim=1)  # (B, H, W): masks do not overlap
    return labels.where(sequence.valid, VOID)


def match(cost: Tensor, lengths: Tensor) -> Tensor:
    """Assign a target to each step, at the least total cost (Kuhn, 1955).

    Up to five steps, all permutations are tried at once on the device: 120 sums are faster than a round trip to the
    host. Above that, SciPy's `linear_sum_assignment` solves each image on the CPU, after one wait for the GPU.

    Args:
        cost: (B, T, T) of step (row) against target (column); only the first n×n of an image with n classes count.
        lengths: (B,) number of classes in each image, at most T.

    Returns:
        (B, T) target of each step: a permutation of the first n; later steps keep their own index.

    Raises:
        RecsegError: a cost that counts is not finite (training has diverged). On a GPU with up to five steps this is
            not checked here: the loss will not be finite either.
    """
    steps = cost.shape[1]
    if steps > 5:
        return _match_on_host(cost, lengths)
    index = torch.arange(steps, device=cost.device)
    alive = index < lengths[:, None]  # (B, T)
    both = alive[:, :, None] & alive[:, None, :]  # (B, T, T)
    if cost.is_cpu and not cost[both].isfinite().all():
        raise RecsegError(DIVERGED)
    # Unused steps may only take unused targets, at no cost.
    cost = cost.float().where(both, 0.0).masked_fill(alive[:, :, None] ^ alive[:, None, :], torch.inf)
    permutations = torch.tensor(list(itertools.permutations(range(steps))))  # (T!, T)
    permutations = permutations.to(cost.device, non_blocking=True)
    # totals[b, k] = Σ_t cost[b, t, permutations[k, t]]
    totals = cost[:, index, permutations].sum(dim=2)  # (B, T!)
    best = permutations[totals.argmin(dim=1)]  # (B, T)
    # argmin takes the first of equals and permutations come in ascending order, so unused steps keep their own index.
    return best


def _match_on_host(cost: Tensor, lengths: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    steps = cost.shape[1]
    together = torch.cat([cost.float().flatten(1), lengths[:, None]], dim=1).cpu().numpy()  # (B, T·T + 1): one wait
    best = torch.arange(steps).repeat(len(cost), 1)  # (B, T)
    for image, row in enumerate(together):
        length = int(row[-1])
        matrix = row[:-1].reshape(steps, steps)[:length, :length]
        if not np.isfinite(matrix).all():
            raise RecsegError(DIVERGED)
        best[image, :length] = torch.from_numpy(linear_sum_assignment(matrix)[1])
    return best.to(cost.device, non_blocking=True)
