"""What happens to an image on its way to the model, and to its mask with it.

A label is a name, not a number: the mean of classes 1 and 3 is not class 2. So an image is resized with antialiasing,
its mask by taking the nearest pixel, and whatever lies outside the image is void: neither trained on nor scored.
All chance comes from torch's global generator, so that a seed for each sample makes training exact to resume.
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
    """A change of one's own to the images of a training, before its own random crop: any callable of this form.

    Chance is to come from torch, whose generator has a seed for each sample: then a run that goes on sees the same.
    A function at the top of a module, or an object of such a class, can also be sent to processes that read images.

    Example:
        A quarter turn of half of the images, in `recseg.train(config, out, augment=turned)`::

            def turned(image, labels):
                if torch.rand(()) < 0.5:
                    image, labels = image.rot90(1, (1, 2)), labels.rot90()
                return image, labels
    """

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Change an image and its label map alike.

        Args:
            image: (3, H, W) uint8, RGB, at its own size; not to be changed in place.
            labels: (H, W) uint8, 255 where void; likewise.

        Returns:
            The two changed, of any one size; what comes from outside of the image is void.
        """
        ...


class TrainTransform:
    """Random scale, crop, flip and colours; every sample comes out `size` × `size`.

    Scale 1 is what evaluation sees (the short side at `size`); at 2 the crop shows half of that, at 0.5 the image is
    smaller than the crop and stands somewhere in a void frame. See `train_transform` for the arguments.
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
        # Crop first, resize only what stays: the pixels that a crop throws away cost nothing.
        top, rows, top_out, rows_out = _span(height, factor, self.size, y)
        left, columns, left_out, columns_out = _span(width, factor, self.size, x)
        image = sample.image[:, top : top + rows, left : left + columns]
        labels = sample.labels[top : top + rows, left : left + columns]
        image = resize(image, rows_out, columns_out)
        labels = nearest(labels, rows_out, columns_out)
        if self.jitter and jittered < 0.8:  # some samples keep the colours that the model will be asked about
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
    """Make the random transform of training: `Sample` -> `Sample` with `(3, size, size)` and `(size, size)`.

    Args:
        size: side of the crop, pixels.
        scale: range of the random scale, relative to the short side at `size`.
        jitter: how far brightness, contrast and saturation move (0.4: factors 0.6 to 1.4); 0 leaves colours alone.
        flip: mirror half of the samples, left to right.
        augment: is applied first.
    """
    return TrainTransform(size, scale, jitter, flip, augment)


def augmented(sample: Sample, augment: Augmentation) -> Sample:
    """A sample after an augmentation.

    Raises:
        RecsegError: it does not give an image and a label map of one size, uint8.
    """
    image, labels = augment(sample.image, sample.labels.to(torch.uint8))
    if image.shape != (3, *labels.shape) or {image.dtype, labels.dtype} != {torch.uint8}:
        given = f"{tuple(image.shape)} {image.dtype} and {tuple(labels.shape)} {labels.dtype}"
        raise RecsegError(f"augmentation of {sample.id!r}: gave {given}, expected (3, H, W) and (H, W), uint8")
    return sample._replace(image=image, labels=labels)


class EvalTransform:
    """The image with its short side at `size`; labels stay as they are, since VOC is scored at full resolution."""

    def __init__(self, size: int | None) -> None:
        if size is not None and size < 2:
            raise RecsegError(f"size {size}: expected at least 2 pixels")
        self.size = size

    def __call__(self, sample: Sample) -> Sample:
        return sample if self.size is None else sample._replace(image=resize_short_side(sample.image, self.size))


def eval_transform(size: int | None) -> EvalTransform:
    """Make the transform of evaluation: `Sample` -> `Sample`; `None` keeps the image's own resolution."""
    return EvalTransform(size)


def resize_short_side(image: Tensor, size: int) -> Tensor:
    """Resize `(3, H, W)` uint8, antialiased, so that its short side is `size` and its shape is kept.

    A long side beyond 8 × `size` is squeezed to that.
    """
    height, width = resized_shape(image.shape[-2], image.shape[-1], size)
    return resize(image, height, width).contiguous()


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize `(3, H, W)` uint8, antialiased, to `(3, height, width)`."""
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def change_colours(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply brightness, contrast (around the mean grey), saturation (around each pixel's grey); 1 changes nothing.

    `(3, H, W)` uint8 in and out. All three are linear in the colour, so they are one 3 × 3 matrix and one offset: a
    third of the time of three passes, rounded and clipped once. No hue: turning it is not linear, and costly.
    """
    colours = image.flatten(1).float()  # (3, H, W) -> (3, H·W)
    mean_grey = brightness * float(GREY @ colours.mean(dim=1))
    keep = brightness * contrast * saturation * torch.eye(3)
    mix = brightness * contrast * (1 - saturation) * GREY.expand(3, 3)  # each row turns a colour into its grey
    offset = torch.full((3, 1), (1 - contrast) * mean_grey)  # a grey, so saturation leaves it as it is
    changed = torch.addmm(offset, keep + mix, colours).round_().clamp_(0, 255)
    return changed.to(torch.uint8).view(image.shape)


def nearest(labels: Tensor, height: int, width: int) -> Tensor:
    """Resize a label map `(H, W)` by its nearest pixels: no label comes out that did not go in.

    "Nearest-exact", not torch's "nearest": the latter takes the upper left pixel, half a pixel off the image's.
    """
    small = labels[None, None].to(torch.uint8)  # (1, 1, H, W); holds every label
    return F.interpolate(small, (height, width), mode="nearest-exact")[0, 0].to(labels.dtype)


def _span(length: int, factor: float, size: int, place: float) -> tuple[int, int, int, int]:
    """Along one axis: (first pixel, pixels) taken from the image, (first pixel, pixels) filled in the crop."""
    scaled = max(2, round(length * factor))  # torch 2.11 resizes uint8 wrongly to a width of 1
    if scaled <= size:  # all of it fits: it stands anywhere in the crop
        return 0, length, int(place * (size - scaled + 1)), scaled
    taken = min(length, max(1, round(size / factor)))
    return int(place * (length - taken + 1)), taken, 0, size
