"""U-Net: an encoder that halves the picture again and again, a decoder that puts it back together, and the dense twin.

Chapter 3 of the book explains this file. Sources: Ronneberger et al., "U-Net", MICCAI 2015 (the shape of the network);
Sandler et al., "MobileNetV2", CVPR 2018 and He et al., "Deep residual learning", CVPR 2016 (the encoders by name).

Where it departs from the paper: padded convolutions, so the output covers the whole input; batch normalisation;
bilinear upsampling; and the decoder stops at a stride of 2 or 4, since the last octave costs the most and shows least.
"""

from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.models.config import ENCODERS, UNetConfig
from recseg.weights.safetensors import open_tensors

HEADS = ("classifier.", "fc.")  # how the names of torchvision's own heads begin
COUNTER = "num_batches_tracked"  # only matters to a momentum of None
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, the paper's building block: (B, inputs, H, W) → (B, outputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),  # no bias: the norm's own shift follows
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _plain_stages(widths: Sequence[int]) -> list[nn.Module]:
    stages: list[nn.Module] = [_stage(3, widths[0])]
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        # ceil_mode keeps the last row of an odd-sized map, so any H×W works and strides stay powers of two.
        stages.append(nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), _stage(inputs, outputs)))
    return stages


def _torchvision_network(name: str) -> nn.Module:
    import torchvision  # here: a plain U-Net needs none of it

    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    return network


def _torchvision_stages(name: str, network: nn.Module) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Cut a classifier into five stages of strides 2 … 32; its own head is dropped."""
    if name == "mobilenet_v2":
        features = network.features
        assert isinstance(features, nn.Sequential)
        cuts = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))
        return [features[start:stop] for start, stop in cuts], (16, 24, 32, 96, 320)
    part = dict(network.named_children())
    stages: list[nn.Module] = [
        nn.Sequential(part["conv1"], part["bn1"], part["relu"]),
        nn.Sequential(part["maxpool"], part["layer1"]),
        part["layer2"],
        part["layer3"],
        part["layer4"],
    ]
    return stages, (64, 64, 128, 256, 512)


class Encoder(nn.Module):
    """Features of an image at five or so strides, finest first.

    Images come as RGB floats in [0, 1]; the ImageNet normalisation is part of the encoder: it cannot be forgotten.

    Attributes:
        channels: channels of each feature map, finest first.
        strides: how many input pixels one cell of each map spans a side.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "plain", widths: Sequence[int] = (16, 32, 64, 128, 192)) -> None:
        super().__init__()
        self.name = name
        if name == "plain":
            stages, self.channels = _plain_stages(widths), tuple(widths)
            self.strides = tuple(2**level for level in range(len(widths)))
        else:
            stages, self.channels = _torchvision_stages(name, _torchvision_network(name))
            self.strides = (2, 4, 8, 16, 32)
        self.stages = nn.ModuleList(stages)
        # Not persistent: constants of the code, not of a training.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.frozen = 0

    def freeze(self, stages: int) -> None:
        """Keep the finest stages as they are, statistics of their norms included: pretrained, they hold edges and
        textures, which serve any picture; and no gradient has to pass the largest maps of the network.
        """
        self.frozen = stages
        for stage in self.stages[:stages]:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Encoder":
        """Switch to training or evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        for stage in self.stages[: self.frozen]:
            stage.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] → [(B, channels[k], ⌈H / strides[k]⌉, ⌈W / strides[k]⌉)]."""
        x = (images - self.mean) / self.std
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def load_encoder_weights(encoder: Encoder, file: Path | str | None = None) -> None:
    """Fill a torchvision encoder with ImageNet weights, in place.

    Args:
        encoder: built with a torchvision name.
        file: a safetensors state dict of the whole torchvision classifier; None fetches torchvision's own.

    Raises:
        RecsegError: the plain encoder (nothing is published for it), an unreadable or unfitting file, no network.
    """
    if encoder.name == "plain":
        raise RecsegError(f"encoder 'plain': no pretrained weights exist, expected one of {', '.join(ENCODERS[1:])}")
    network = _torchvision_network(encoder.name)
    if file is None:
        import torchvision

        try:
            weights = torchvision.models.get_model_weights(encoder.name).DEFAULT
            # torchvision's files are pickles: read as tensors only, and only if they are what was published.
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, HTTPException) as error:  # urllib's errors are OSErrors, a cut answer is not
            raise RecsegError(
                f"--pretrained {encoder.name}: the weights could not be fetched ({error}); "
                "expected a network connection, or a local file with --encoder-weights FILE"
            ) from error
    else:
        state = _from_file(Path(file), network)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith(HEADS) or name.endswith(COUNTER) for name in missing)
    stages, _ = _torchvision_stages(encoder.name, network)
    encoder.stages.load_state_dict(nn.ModuleList(stages).state_dict())


def _from_file(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """What a file has for the network; the classifier is not used here, whatever it classified."""
    with open_tensors(path) as file:
        expected = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if not name.startswith(HEADS) and (name in file.shapes or not name.endswith(COUNTER))
        }
        file.check(expected, beside=HEADS)
        return {name: file.read(name) for name in expected}


class DecoderBlock(nn.Module):
    """Double the resolution and merge a skip connection: two 3×3 convolutions.

    The paper enlarges the coarse map, concatenates the skip and convolves. A convolution of a concatenation is the sum
    of two convolutions, and that of the coarse map is four times cheaper before it is enlarged than after.
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
    """From the deepest features to a fine map, one block a resolution.

    Args:
        channels: of the encoder's features, finest first.
        strides: of the encoder's features, finest first.
        widths: channels after each block, coarse to fine.

    Attributes:
        channels: of the output.
        stride: of the output: how many input pixels one cell spans a side.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        skips = channels[-2::-1][: len(widths)]  # coarse to fine
        sources = (channels[-1], *widths[:-1])
        self.blocks = nn.ModuleList(DecoderBlock(*sizes) for sizes in zip(sources, skips, widths, strict=True))
        self.channels, self.stride = widths[-1], strides[-1 - len(widths)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The encoder's features, finest first → (B, channels, H / stride, W / stride)."""
        x, *skips = features[::-1]  # coarse to fine
        for block, skip in zip(self.blocks, skips, strict=False):  # finer features than the output's are not used
            x = block(x, skip)
        return x


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] → sides that are multiples of a stride, filled with grey at the right and below."""
    height, width = (-(-side // stride) * stride for side in images.shape[-2:])
    if (height, width) == images.shape[-2:]:
        return images
    colour = (torch.tensor(IMAGENET_MEAN, device=images.device) * 255).round() / 255  # as training crops are filled
    padded = colour.to(images.dtype).view(1, 3, 1, 1).expand(len(images), 3, height, width).clone()
    padded[..., : images.shape[-2], : images.shape[-1]] = images
    return padded


def crop_padding(maps: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Maps (…, h, w) of a padded image → those of its own size (H, W), without what the padding added."""
    return maps[..., : -(-size[0] // stride), : -(-size[1] // stride)]


class UNet(nn.Module):
    """The dense baseline: one channel for each label, at every pixel."""

    kind = "dense"

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
