"""Transforms of images and their masks, for training and evaluation.

A label is a name, not a number: the mean of classes 1 and 3 is not class 2. So images are resized with antialiasing and
masks by nearest neighbour; pixels outside the image are void, neither trained on nor scored.
All random numbers come from torch's global generator, so that a seed per sample makes resumed training exact.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from recseg.classes import VOID
from recseg.data.folder import Sample
from recseg.data.images import MEAN_COLOUR, resized_shape
from recseg.errors import RecsegError

MEAN = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]  # (3, 1, 1)
GREY = torch.tensor([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as in JPEG


class Augmentation(Protocol):
    """A custom augmentation of training images, applied before the random crop: any callable of this form.

    Draw random numbers from torch, whose generator is seeded per sample: then a resumed run sees the same images.
    To be sent to reader processes, it must be a module-level function or an object of a module-level class.

    Example:
        A quarter turn of half of the images, with `recseg.train(config, out, augment=turned)`::

            def turned(image, labels):
                if torch.rand(()) < 0.5:
                    image, labels = image.rot90(1, (1, 2)), labels.rot90()
                return image, labels
    """

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Transform an image and its label map together.

        Args:
            image: (3, H, W) uint8, RGB, at its original size; not to be changed in place.
            labels: (H, W) uint8, 255 where void; likewise.

        Returns:
            Both, of any size but the same for both; pixels from outside the image must be void.
        """
        ...


class TrainTransform:
    """Random scale, crop, flip and colours; every sample comes out `size` × `size`.

    Scale 1 is that of evaluation (the short side at `size`); at 2 the crop shows half of that, at 0.5 the image is
    smaller than the crop and is placed at random in a void frame. See `train_transform` for the arguments.
    """

    def __init__(
        self, size: int, scale: tuple[float, float], jitter: float, flip: bool, augment: Augmentation | None = None
    ) -> None:
        if size < 2 or not 0 < scale[0] <= scale[1] or not 0 <= jitter < 1:
            raise RecsegError(
                f"size {size}, scale {scale}, jitter {jitter}: expected size >= 2, "
                "0 < scale[0] <= scale[1] and 0 <= jitter < 1"
            )
        self.size, self.scale, self.jitter, self.flip, self.augment = size, scale, jitter, flip, augment

    def __call__(self, sample: Sample) -> Sample:
        if self.augment is not None:
            sample = augmented(sample, self.augment)
        height, width = sample.image.shape[-2:]
        zoom, x, y, mirrored, jittered, *colours = torch.rand(8).tolist()
        factor = self.size / min(height, width) * (self.scale[0] + zoom * (self.scale[1] - self.scale[0]))
        # Crop before resizing: pixels that are cropped away cost nothing.
        top, rows, top_out, rows_out = _span(height, factor, self.size, y)
        left, columns, left_out, columns_out = _span(width, factor, self.size, x)
        image = sample.image[:, top : top + rows, left : left + columns]
        labels = sample.labels[top : top + rows, left : left + columns]
        image = resize(image, rows_out, columns_out)
        labels = nearest(labels, rows_out, columns_out)
        if self.jitter and jittered < 0.8:  # the rest keep their true colours, as in evaluation
            image = change_colours(image, *(1 + self.jitter * (2 * chance - 1) for chance in colours))
        if (rows_out, columns_out) != (self.size, self.size):
            part = slice(top_out, top_out + rows_out), slice(left_out, left_out + columns_out)
            framed = MEAN.repeat(1, self.size, self.size)  # (3, size, size)
            framed_labels = torch.full((self.size, self.size), VOID)
            framed[:, *part], framed_labels[part] = image, labels
            image, labels = framed, framed_labels
        if self.flip and mirrored < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        return Sample(image.contiguous(), labels.long(), sample.id)


def train_transform(
    size: int,
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    jitter: float = 0.4,
    flip: bool = True,
    augment: Augmentation | None = None,
) -> TrainTransform:
    """The random transform of training: `Sample` -> `Sample` with `(3, size, size)` and `(size, size)`.

    Args:
        size: side of the crop, pixels.
        scale: range of the random scale, relative to the short side at `size`.
        jitter: range of brightness, contrast and saturation (0.4: factors 0.6 to 1.4); 0 leaves colours unchanged.
        flip: mirror half of the samples, left to right.
        augment: custom augmentation, applied first.
    """
    return TrainTransform(size, scale, jitter, flip, augment)


def augmented(sample: Sample, augment: Augmentation) -> Sample:
    """A sample after a custom augmentation.

    Raises:
        RecsegError: the result is not a uint8 image and label map of the same size.
    """
    image, labels = augment(sample.image, sample.labels.to(torch.uint8))
    if image.shape != (3, *labels.shape) or {image.dtype, labels.dtype} != {torch.uint8}:
        given = f"{tuple(image.shape)} {image.dtype} and {tuple(labels.shape)} {labels.dtype}"
        raise RecsegError(f"augmentation of {sample.id!r}: gave {given}, expected (3, H, W) and (H, W), uint8")
    return sample._replace(image=image, labels=labels)


class EvalTransform:
    """Resizes the image's short side to `size`; labels are unchanged, since VOC is scored at full resolution."""

    def __init__(self, size: int | None) -> None:
        if size is not None and size < 2:
            raise RecsegError(f"size {size}: expected at least 2 pixels")
        self.size = size

    def __call__(self, sample: Sample) -> Sample:
        return sample if self.size is None else sample._replace(image=resize_short_side(sample.image, self.size))


def eval_transform(size: int | None) -> EvalTransform:
    """The transform of evaluation: `Sample` -> `Sample`; `None` keeps the image's resolution."""
    return EvalTransform(size)


def resize_short_side(image: Tensor, size: int) -> Tensor:
    """Resize `(3, H, W)` uint8, antialiased, to a short side of `size`, keeping the aspect ratio.

    A long side beyond 8 × `size` is squeezed to that.
    """
    height, width = resized_shape(image.shape[-2], image.shape[-1], size)
    return resize(image, height, width).contiguous()


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize `(3, H, W)` uint8, antialiased, to `(3, height, width)`."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def change_colours(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, contrast (around the mean grey), saturation (around each pixel's grey); 1 changes nothing.

    `(3, H, W)` uint8 in and out. All three are linear in the colour, so they are one 3 × 3 matrix and one offset: a
    third of the time of three passes, rounded and clipped once. No hue, whose rotation is non-linear and costly.
    """
    colours = image.flatten(1).float()  # (3, H, W) -> (3, H·W)
    mean_grey = brightness * float(GREY @ colours.mean(dim=1))
    keep = brightness * contrast * saturation * torch.eye(3)
    mix = brightness * contrast * (1 - saturation) * GREY.expand(3, 3)  # each row maps a colour to its grey
    offset = torch.full((3, 1), (1 - contrast) * mean_grey)  # a grey, so saturation does not change it
    changed = torch.addmm(offset, keep + mix, colours).round_().clamp_(0, 255)
    return changed.to(torch.uint8).view(image.shape)


def nearest(labels: Tensor, height: int, width: int) -> Tensor:
    """Resize a label map `(H, W)` by nearest neighbour, which creates no new labels.

    "nearest-exact", not torch's "nearest", which takes the upper left pixel and shifts labels by half a pixel.
    """
    small = labels[None, None].to(torch.uint8)  # (1, 1, H, W); holds every label
    return F.interpolate(small, (height, width), mode="nearest-exact")[0, 0].to(labels.dtype)


def _span(length: int, factor: float, size: int, place: float) -> tuple[int, int, int, int]:
    """Along one axis: (start, length) taken from the image, (start, length) filled in the crop."""
    scaled = max(2, round(length * factor))  # torch 2.11 resizes uint8 wrongly to a width of 1
    if scaled <= size:  # it fits: placed at random in the crop
        return 0, length, int(place * (size - scaled + 1)), scaled
    taken = min(length, max(1, round(size / factor)))
    return int(place * (length - taken + 1)), taken, 0, size
