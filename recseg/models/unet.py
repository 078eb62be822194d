"""U-Net, the dense baseline: an encoder that halves the resolution repeatedly, and a decoder that restores it.

Chapter 3 of the book explains this file. Source: Ronneberger et al., "U-Net", MICCAI 2015. The encoders are in
`recseg.models.encoders`.

Differences from the paper: padded convolutions, so that the output covers the whole input; batch normalisation;
bilinear upsampling; and the decoder stops at a stride of 2 or 4, since the last blocks cost the most and gain least.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.models.config import UNetConfig
from recseg.models.encoders import IMAGENET_MEAN, Encoder
from recseg.models.model import SegmentationModel


class DecoderBlock(nn.Module):
    """Double the resolution and merge a skip connection: two 3×3 convolutions.

    The paper upsamples the coarse map, concatenates the skip and convolves. A convolution of a concatenation is the sum
    of two convolutions, and that of the coarse map is four times cheaper before upsampling than after.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv_x = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv_skip = nn.Conv2d(skip, outputs, 3, padding=1, bias=False)
        self.merge = nn.Sequential(
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, ⌈H/2⌉, ⌈W/2⌉) and (B, skip, H, W) → (B, outputs, H, W)."""
        x = F.interpolate(self.conv_x(x), size=skip.shape[-2:], mode="bilinear", align_corners=False)
        merged: Tensor = self.merge(x + self.conv_skip(skip))
        return merged


class Decoder(nn.Module):
    """From the deepest features to a fine map, one block per resolution.

    Args:
        channels: of the encoder's features, finest first.
        strides: of the encoder's features, finest first.
        widths: channels after each block, coarse to fine.

    Attributes:
        channels: of the output.
        stride: of the output, in input pixels.

    Raises:
        RecsegError: too many blocks, or none: each block needs a skip connection.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        if not 1 <= len(widths) < len(channels):
            raise RecsegError(f"decoder_widths {tuple(widths)}: expected 1 to {len(channels) - 1} blocks")
        skips = channels[-2::-1][: len(widths)]  # coarse to fine
        sources = (channels[-1], *widths[:-1])
        self.blocks = nn.ModuleList(DecoderBlock(*sizes) for sizes in zip(sources, skips, widths, strict=True))
        self.channels, self.stride = widths[-1], strides[-1 - len(widths)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The encoder's features, finest first → (B, channels, H / stride, W / stride)."""
        x, *skips = features[::-1]  # coarse to fine
        for block, skip in zip(self.blocks, skips, strict=False):  # features finer than the output are not used
            x = block(x, skip)
        return x


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Pad (B, 3, H, W) in [0, 1] with grey at the right and the bottom, to sides that are multiples of a stride."""
    height, width = (-(-side // stride) * stride for side in images.shape[-2:])
    if (height, width) == images.shape[-2:]:
        return images
    colour = (torch.tensor(IMAGENET_MEAN, device=images.device) * 255).round() / 255  # as training crops are filled
    padded = colour.to(images.dtype).view(1, 3, 1, 1).expand(images.shape[0], 3, height, width).clone()
    padded[..., : images.shape[-2], : images.shape[-1]] = images
    return padded


def crop_padding(maps: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Crop maps (…, h, w) of a padded image to the part for its own size (H, W)."""
    return maps[..., : -(-size[0] // stride), : -(-size[1] // stride)]


class UNet(SegmentationModel):
    """The dense baseline: one channel for each label, at every pixel."""

    kind = "dense"
    class_rows: ClassVar[dict[str, int]] = {"classifier.weight": 0, "classifier.bias": 0}

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        self.num_classes = config.num_classes
        self.encoder = Encoder(config.encoder, config.encoder_widths)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, config.decoder_widths)
        self.classifier = nn.Conv2d(self.decoder.channels, config.num_classes, 1)

    def pixel_logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, num_classes, h, w) at the decoder's resolution: what the loss is computed on."""
        features = self.encoder(pad_to_stride(images, self.encoder.strides[-1]))
        logits = self.classifier(self.decoder(features))
        return crop_padding(logits, (images.shape[-2], images.shape[-1]), self.decoder.stride)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) floats in [0, 1] → (B, num_classes, H, W) logits."""
        return F.interpolate(self.pixel_logits(images), size=images.shape[-2:], mode="bilinear", align_corners=False)
