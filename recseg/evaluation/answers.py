"""A network's answer for an image: a label map, the classes it names, and a mask for each of them.

A recurrent network names classes and segments them. A dense one gives logits for each class at each pixel, and a rule
decides which classes it names. `answers_by_rule` applies several rules, the controls of a comparison: the same pixels
with other named classes show what the naming contributes, and what perfect naming would give.
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

# Rules of `answers_by_rule`; each threshold adds one.
OWN = "answer"
PIXELS = "own pixels"
NAMED = "own pixels, named classes only"
TRUE = "own pixels, true classes only"


class Answer(NamedTuple):
    """A network's answer for one image.

    Attributes:
        labels: (H, W) label map at the image's own size.
        classes: class id of each step, in the network's own order.
        masks: (N, 256, 256) bool, the mask of each step.
        stops: stop probability of each decision taken; empty without a learned stop.
        probabilities: probability of the class of each step; empty for a dense network, which has none.
        areas: share of the image that each label covers, if pixels could take any label; else empty.
    """

    labels: Tensor
    classes: list[int]
    masks: Tensor
    stops: list[float]
    probabilities: list[float]
    areas: list[float]


def answers(output: RecurrentOutput | Tensor, size: tuple[int, int], *, background: bool = True) -> Iterator[Answer]:
    """The answer for each image of a batch, with label maps of `size` (H, W).

    Dense logits name the classes that cover at least 0.4 % of the label map, in ascending id. With `background` False,
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
    """The network's own answer for each image. Arguments as for `answers_by_rule`."""
    found = answers(model(images), size, background=model.has_background)
    return ({OWN: answer} for answer in found)


def pixel_answers(
    model: SegmentationModel, images: Tensor, size: tuple[int, int], present: Sequence[Collection[int]]
) -> Iterator[dict[str, Answer]]:
    """The per-pixel answer for each image, with all classes allowed; thresholds are chosen on it."""
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
    """For each image, the network's own answer and the per-pixel answers under other naming rules.

    Pixels are the logits of a dense network, or of a recurrent one's per-pixel classifier. A rule names some classes;
    each pixel then takes the best of these and the background, where there is one.

    Args:
        model: in inference mode.
        images: (B, 3, h, w) floats in [0, 1].
        size: (H, W) of the label maps.
        present: the true classes of each image.
        thresholds: further rules, name → share of the image that a class must cover to be named.

    Yields:
        `OWN`; if the network has pixel logits, `TRUE` and the thresholds; if it is also recurrent, `PIXELS` (any class,
        named as for a dense network) and `NAMED` (the classes that the steps named).
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
    """Foreground classes whose share of the image, from `areas`, is at least `least`."""
    return [label for label, area in enumerate(areas) if label != BACKGROUND and area >= least]


def from_pixels(
    logits: Tensor, size: tuple[int, int], named: Collection[int] | None = None, *, background: bool = True
) -> Answer:
    """The answer from dense logits (K, h, w).

    Args:
        named: foreground classes that pixels may take besides background. None: all of them; those that cover at
            least 0.4 % of the image are named.
        background: whether a pixel may be background. If not, and no class is named, pixels may take any class.
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
        masks = resize(output.masks[pairs], (SLOT_SIZE, SLOT_SIZE)) > 0  # logit 0 is probability 0.5
        # Stop decisions: one before each live step, and the one that ended the sequence.
        taken = stops[image][: count + 1] if background else []
        yield Answer(labels[image], steps[pairs], masks.cpu(), taken, probabilities[pairs], [])


def argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w), then argmax: (B, H, W). One class at a time: C full-size planes may not fit in memory."""
    best = resize(logits[:, 0], size)  # (B, H, W)
    labels = torch.zeros_like(best, dtype=torch.int64)
    for label in range(1, logits.shape[1]):
        plane = resize(logits[:, label], size)
        labels[plane > best] = label
        best = torch.maximum(best, plane)
    return labels


def resize(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits bilinearly, (N, h, w) → (N, H, W)."""
    if not len(planes):
        return planes.new_zeros(0, *size)
    return F.interpolate(planes[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def to_slot_size(labels: Tensor) -> Tensor:
    """Resize labels (H, W) → (256, 256) by nearest neighbour."""
    planes = labels[None, None].float()  # integers up to 255 are exact
    return F.interpolate(planes, size=(SLOT_SIZE, SLOT_SIZE), mode="nearest-exact")[0, 0].long()
