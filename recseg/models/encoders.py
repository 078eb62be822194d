"""Encoders, which turn an image into feature maps at several strides, finest first, for the decoder.

Chapter 3 of the book explains this file. There are three kinds, by name:

- "plain": the U-Net's own stages, trained from scratch;
- "mobilenet_v2", "resnet18", "resnet34": torchvision's classifiers, cut into five stages. Sandler et al.,
  "MobileNetV2", CVPR 2018; He et al., "Deep residual learning", CVPR 2016;
- "timm:NAME": any timm network that returns feature maps and takes images of any size.
"""

import difflib
import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.errors import RecsegError, one_line
from recseg.models.config import ENCODERS, TIMM, check_encoder_name
from recseg.weights.safetensors import open_tensors

HEADS = ("classifier.", "fc.")  # prefixes of torchvision's own heads
COUNTER = "num_batches_tracked"  # used by batch norm only if momentum is None
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """Features of an image at several strides, finest first.

    Images are RGB floats in [0, 1]; the normalisation that the weights expect is part of the encoder, so that it cannot
    be forgotten.

    Attributes:
        channels: channels of each feature map, finest first.
        strides: stride of each feature map, in input pixels.
        frozen: number of frozen feature maps, finest first.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "plain", widths: Sequence[int] = (16, 32, 64, 128, 192)) -> None:
        super().__init__()
        check_encoder_name(name)
        self.name, self.frozen = name, 0
        self.network: Any = None  # for timm, whose networks are not chains of stages
        stages: list[nn.Module] = []
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if name == "plain":
            stages, self.channels = _plain_stages(widths), tuple(widths)
            self.strides = tuple(2**level for level in range(len(widths)))
        elif name.startswith(TIMM):
            self.channels, self.strides = _timm_sizes(name)
            self.network = _timm_network(name, features_only=True)
            _pad_by_constants(self.network)
            mean, std = self.network.pretrained_cfg["mean"], self.network.pretrained_cfg["std"]
        else:
            stages, self.channels = _torchvision_stages(name, torchvision_network(name))
            self.strides = (2, 4, 8, 16, 32)
        self.stages = nn.ModuleList(stages)
        # Not persistent: these are constants, not weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] → [(B, channels[k], ⌈H / strides[k]⌉, ⌈W / strides[k]⌉)]."""
        x = (images - self.mean) / self.std
        if self.network is None:
            features = []
            for stage in self.stages:
                x = stage(x)
                features.append(x)
            return features
        # timm's networks differ in how they round odd sides, so pad to a multiple of the deepest stride, then crop.
        height, width = x.shape[-2:]
        down, right = -height % self.strides[-1], -width % self.strides[-1]
        if not down and not right:
            return _channels_first(self.network, x)
        maps = _channels_first(self.network, F.pad(x, (0, right, 0, down)))  # 0 is the mean colour
        return [m[..., : -(-height // s), : -(-width // s)] for m, s in zip(maps, self.strides, strict=True)]

    def freeze(self, stages: int) -> None:
        """Freeze the layers that compute the finest feature maps, batch-norm statistics included.

        Pretrained, they detect edges and textures, which are useful in any image; and no gradient has to be computed
        for the largest maps of the network.

        Raises:
            RecsegError: the encoder has fewer feature maps.
        """
        if not 0 <= stages <= len(self.channels):
            raise RecsegError(f"freeze {stages}: expected 0 to {len(self.channels)}, the stages of {self.name}")
        mode, self.frozen = self.training, stages
        with torch.enable_grad():  # autograd finds the parameters that a map depends on, in any network
            maps = self.eval()(self.mean.new_zeros(1, 3, self.strides[-1], self.strides[-1]))[:stages]
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if outputs := [m.sum() for m in maps if m.requires_grad]:
            gradients = torch.autograd.grad(outputs, trained, allow_unused=True)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.requires_grad_(gradient is None)
        self.train(mode)

    def train(self, mode: bool = True) -> "Encoder":
        """Switch between training and evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self.modules() if self.frozen else ():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.training = False
        return self


def load_encoder_weights(encoder: Encoder, file: Path | str | None = None) -> None:
    """Load pretrained weights (usually ImageNet's) into an encoder, in place.

    Args:
        encoder: of torchvision or timm.
        file: a safetensors state dict of the whole classifier, with the names of torchvision or timm; its last layer
            may be missing. (Convert a pickled file first: see the API reference.) None downloads torchvision's or
            timm's own weights.

    Raises:
        RecsegError: the plain encoder (no weights are published for it), an unreadable or unfitting file, or no network
            connection.
    """
    if encoder.name == "plain":
        others = f"{', '.join(ENCODERS[1:])}, timm:NAME"
        raise RecsegError(f"encoder 'plain': no pretrained weights exist, expected one of {others}")
    name = encoder.name
    if file is None:
        state = _fetch(name)
    elif encoder.network is None:
        state = _from_file(Path(file), torchvision_network(name), HEADS)
    else:
        with torch.device("meta"):
            whole = _timm_network(name)
        heads = whole.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        state = _from_file(Path(file), whole, tuple(f"{head}." for head in heads))
    if encoder.network is not None:
        encoder.network.load_state_dict(_timm_cut(name, state))
        return
    network = torchvision_network(name)
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected and all(key.startswith(HEADS) or key.endswith(COUNTER) for key in missing)
    encoder.stages.load_state_dict(nn.ModuleList(_torchvision_stages(name, network)[0]).state_dict())


def _from_file(path: Path, whole: nn.Module, heads: tuple[str, ...]) -> dict[str, Tensor]:
    """Read a classifier's weights from a file, without its last layer, which is not used here."""
    with open_tensors(path) as file:
        expected = {
            name: tensor
            for name, tensor in whole.state_dict().items()
            if not name.startswith(heads) and (name in file.shapes or not name.endswith(COUNTER))
        }
        file.check(expected, beside=heads)
        return {name: file.read(name) for name in expected}


def _fetch(name: str) -> dict[str, Tensor]:
    """Download torchvision's or timm's own weights of a classifier; pickles are read with `weights_only`."""
    try:
        if name.startswith(TIMM):
            return dict(_timm_network(name, pretrained=True).state_dict())
        import torchvision

        weights = torchvision.models.get_model_weights(name).DEFAULT
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # the errors of the two hubs have no common base class
        raise RecsegError(
            f"--pretrained {name}: the weights could not be fetched ({one_line(str(error))}); "
            "expected a network connection, or a local file with --encoder-weights FILE"
        ) from error


def _plain_stage(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, the paper's building block: (B, inputs, H, W) → (B, outputs, H, W)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),  # no bias: batch norm has its own
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _plain_stages(widths: Sequence[int]) -> list[nn.Module]:
    stages: list[nn.Module] = [_plain_stage(3, widths[0])]
    for sizes in pairwise(widths):
        # ceil_mode keeps the last row of an odd-sized map, so that any H×W works and strides stay powers of two.
        stages.append(nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), _plain_stage(*sizes)))
    return stages


def torchvision_network(name: str) -> nn.Module:
    """One of torchvision's classifiers, with random weights."""
    import torchvision  # here: a plain U-Net does not need it

    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    return network


def _torchvision_stages(name: str, network: nn.Module) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Split a classifier into five stages of strides 2 … 32, with their channels; its own head is dropped."""
    part: dict[str, Any] = dict(network.named_children())
    if name == "mobilenet_v2":
        return [part["features"][slice(*ends)] for ends in pairwise((0, 2, 4, 7, 14, 18))], (16, 24, 32, 96, 320)
    first = nn.Sequential(part["conv1"], part["bn1"], part["relu"])
    second = nn.Sequential(part["maxpool"], part["layer1"])
    return [first, second, part["layer2"], part["layer3"], part["layer4"]], (64, 64, 128, 256, 512)


def _timm_network(name: str, **options: Any) -> Any:
    import timm  # here: slow to import

    return timm.create_model(name.removeprefix(TIMM), **options)


class _WholeCells(nn.Conv2d):
    """TensorFlow's "same" padding for sides that are multiples of the stride, where it is a constant.

    With dynamic sizes, `torch.export` would otherwise take minutes to reason about each convolution's padding.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (
            (whole // 2, whole - whole // 2)
            for k, s, d in zip(self.kernel_size, self.stride, self.dilation, strict=True)
            for whole in (d * (k - 1) + 1 - s,)
        )
        return F.conv2d(F.pad(x, (*columns, *rows)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _pad_by_constants(network: nn.Module) -> None:
    for module in network.modules():
        if type(module).__name__ == "Conv2dSame":
            module.__class__ = _WholeCells


def _channels_first(network: Any, x: Tensor) -> list[Tensor]:
    """Feature maps as (B, C, H, W); some timm networks return (B, H, W, C)."""
    last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    return [m.permute(0, 3, 1, 2) if last else m for m in network(x)]


@lru_cache
def _timm_sizes(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of a timm network's feature maps, found by a trial run on the "meta" device.

    Raises:
        RecsegError: timm has no such network; or the network takes images of one size only (fixed windows, position
            embeddings), or has no feature maps that get coarser by its strides.
    """
    import timm

    short = name.removeprefix(TIMM)
    near = [TIMM + other for other in difflib.get_close_matches(short, timm.list_models(), 4) if other != short]
    expected = f"expected another of timm's networks with feature maps{', such as ' if near else ''}{', '.join(near)}"
    if not timm.is_model(short):
        raise RecsegError(f"encoder {name!r}: timm has no such network, {expected}")
    try:
        with torch.device("meta"), torch.no_grad():
            network = _timm_network(name, features_only=True).eval()
            channels, strides = network.feature_info.channels(), network.feature_info.reduction()
            height, width = 3 * strides[-1], 5 * strides[-1]
            found = [tuple(m.shape) for m in _channels_first(network, torch.zeros(1, 3, height, width))]
    except Exception as error:  # each network fails in its own way
        reason = one_line(str(error)) or type(error).__name__
        raise RecsegError(f"encoder {name!r}: no features of images of any size ({reason}), {expected}") from error
    pyramid = [(1, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)]
    if found != pyramid or list(strides) != sorted(set(strides)):
        sizes = ", ".join(f"{rows}×{columns}" for *_, rows, columns in found)
        raise RecsegError(f"encoder {name!r}: feature maps of {sizes} for {height}×{width} pixels, {expected}")
    return tuple(channels), tuple(strides)


def _timm_cut(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a classifier's weights that its features need; timm selects it, and would warn about the rest."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        given = {"state_dict": state}
        return dict(_timm_network(name, features_only=True, pretrained=True, pretrained_cfg_overlay=given).state_dict())
    finally:
        logger.setLevel(level)
