"""What a network says of an image: a label map, the classes it names, a mask for each of them.

A recurrent network names classes and paints them. A dense one gives a logit to each class at each pixel; which classes
it names is a matter of a rule, and `answers_by_rule` knows several. They are the controls of a comparison: the same
pixels under other names say what the naming is worth, and what a perfect one would be.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.classes import BACKGROUND, SMALLEST_AREA
from recseg.inference.fusion import fuse
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput

SLOT_SIZE = 256  # the baseline's images and masks

# Rules of `answers_by_rule`; thresholds add more.
OWN = "answer"
PIXELS = "own pixels"
NAMED = "own pixels, named classes only"
TRUE = "own pixels, true classes only"


class Answer(NamedTuple):
    """What a network says of one image.

    Attributes:
        labels: (H, W) label map at the image's own size.
        classes: class id of each step, in the network's own order.
        masks: (N, 256, 256) bool, the mask of each step.
        stops: probability that the sequence had ended, for each decision that was taken; empty without a learned stop.
        probabilities: of the class of each step; empty for a dense network, which is sure of pixels, not of classes.
        areas: share of the image that each label covers, where pixels were free to take any; empty otherwise.
    """

    labels: Tensor
    classes: list[int]
    masks: Tensor
    stops: list[float]
    probabilities: list[float]
    areas: list[float]


def answers(output: RecurrentOutput | Tensor, size: tuple[int, int], *, background: bool = True) -> Iterator[Answer]:
    """The answer for each image of a batch, its label map at `size`, (H, W) of the labels.

    Dense logits name the classes that cover at least 0.4 % of their label map, in ascending id. With `background` False
    every pixel has some class.
    """
    if isinstance(output, RecurrentOutput):
        yield from _from_sequence(output, size, background)
    else:
        for logits in output:
            yield from_pixels(logits, size, background=background)


def own_answers(
    model: SegmentationModel, images: Tensor, size: tuple[int, int], present: Sequence[Collection[int]]
) -> Iterator[dict[str, Answer]]:
    """For each image what the network says of itself. Arguments as for `answers_by_rule`."""
    found = answers(model(images), size, background=model.has_background)
    return ({OWN: answer} for answer in found)


def pixel_answers(
    model: SegmentationModel, images: Tensor, size: tuple[int, int], present: Sequence[Collection[int]]
) -> Iterator[dict[str, Answer]]:
    """For each image what its pixels say, free to take any class: what thresholds are chosen by."""
    pixels = _pixels(model, images, model(images))
    if pixels is None:
        return ({} for _ in images)
    return ({PIXELS: from_pixels(logits, size, background=model.has_background)} for logits in pixels)


def answers_by_rule(
    model: SegmentationModel,
    images: Tensor,
    size: tuple[int, int],
    present: Sequence[Collection[int]],
    *,
    thresholds: Mapping[str, float],
) -> Iterator[dict[str, Answer]]:
    """For each image the network's own answer, and those of its pixels under other rules of naming.

    Pixels are the logits of a dense network, or of a recurrent one's per-pixel classifier. A rule names some classes;
    each pixel then takes the best of these and the background, where there is one.

    Args:
        model: in inference mode.
        images: (B, 3, h, w) floats in [0, 1].
        size: (H, W) of the label maps.
        present: the true classes of each image.
        thresholds: further rules: name → share of the image that a class must cover to be named.

    Yields:
        `OWN`; where the network has pixels `TRUE` and the thresholds; if it is recurrent also `PIXELS` (any class,
        named as a dense network names) and `NAMED` (those that the steps named).
    """
    output = model(images)
    pixels = _pixels(model, images, output)
    background = model.has_background
    for image, answer in enumerate(answers(output, size, background=background)):
        found = {OWN: answer}
        if pixels is not None:
            under = partial(from_pixels, pixels[image], size, background=background)
            free = answer
            if isinstance(output, RecurrentOutput):
                found[PIXELS] = free = under()
                found[NAMED] = under(answer.classes)
            for rule, least in thresholds.items():
                found[rule] = under(large(free.areas, least))
            found[TRUE] = under(present[image])
        yield found


def _pixels(model: SegmentationModel, images: Tensor, output: RecurrentOutput | Tensor) -> Tensor | None:
    return model.pixel_logits(images) if isinstance(output, RecurrentOutput) else output


def large(areas: Sequence[float], least: float) -> list[int]:
    """Foreground classes that cover at least a share of the image, given the share of each label."""
    return [label for label, area in enumerate(areas) if label != BACKGROUND and area >= least]


def from_pixels(
    logits: Tensor, size: tuple[int, int], named: Collection[int] | None = None, *, background: bool = True
) -> Answer:
    """The answer of a dense map: (K, h, w) logits.

    Args:
        named: foreground classes that pixels may take beside the background. None: all of them, and those that cover
            0.4 % of the image are named.
        background: whether a pixel may belong to no class. Otherwise pixels may take all classes where none is named.
    """
    classes = list(range(1, len(logits))) if named is None else sorted(set(named))
    rivals = [BACKGROUND, *classes] if background else classes or list(range(1, len(logits)))
    chosen = torch.tensor(rivals, device=logits.device)  # (N,)
    few = logits[chosen][None]  # (1, N, h, w)
    labels, small = (chosen[argmax(few, side)[0]] for side in (size, (SLOT_SIZE, SLOT_SIZE)))  # (H, W), (256, 256)
    areas: list[float] = []
    if named is None:
        areas = (torch.bincount(labels.flatten(), minlength=len(logits)).double() / labels.numel()).tolist()
        classes = large(areas, SMALLEST_AREA)
    masks = small.cpu() == torch.tensor(classes, dtype=torch.int64).view(-1, 1, 1)  # (N, 256, 256)
    return Answer(labels, classes, masks, [], [], areas)


def _from_sequence(output: RecurrentOutput, size: tuple[int, int], background: bool) -> Iterator[Answer]:
    labels = fuse(output, size, background=background)  # (B, H, W)
    best = output.classes.float().softmax(dim=1).max(dim=1)  # (P,)
    steps, probabilities = (best.indices + 1).tolist(), best.values.tolist()  # column k is class k + 1
    stops = output.stop.float().sigmoid().tolist()  # B × T
    first = 0
    for image, count in enumerate(output.lengths.tolist()):
        pairs = slice(first, first + count)
        first += count
        masks = resize(output.masks[pairs], (SLOT_SIZE, SLOT_SIZE)) > 0  # logit 0 is probability one half
        # Decisions taken: one before each live step, and the one that ended the sequence.
        taken = stops[image][: count + 1] if background else []
        yield Answer(labels[image], steps[pairs], masks.cpu(), taken, probabilities[pairs], [])


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) and take the largest: (B, H, W). One class at a time: C full-size planes may not fit."""
    best = resize(logits[:, 0], size)  # (B, H, W)
    labels = torch.zeros_like(best, dtype=torch.int64)
    for label in range(1, logits.shape[1]):
        plane = resize(logits[:, label], size)
        labels[plane > best] = label
        best = torch.maximum(best, plane)
    return labels


def resize(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretch logits (N, h, w) → (N, H, W)."""
    if not len(planes):
        return planes.new_zeros(0, *size)
    return F.interpolate(planes[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def to_slot_size(labels: Tensor) -> Tensor:
    """Labels (H, W) → (256, 256), each the label at the centre of its square: labels are names and do not blend."""
    planes = labels[None, None].float()  # whole numbers up to 255 are exact
    return F.interpolate(planes, size=(SLOT_SIZE, SLOT_SIZE), mode="nearest-exact")[0, 0].long()
