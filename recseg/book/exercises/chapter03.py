"""Exercises of chapter 3: the U-Net."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recseg.book.exercises.exercise import Case, Custom, Exercise, Function, Off
from recseg.models.config import UNetConfig
from recseg.models.unet import UNet, crop_padding, pad_to_stride

Layers = Sequence[tuple[int, int]]


def _field(layers: Layers) -> int:
    """By measurement: from the first to the last input with a gradient from one output."""
    x = torch.ones(1, 1, 600, dtype=torch.float64, requires_grad=True)
    y: Tensor = x
    for kernel, stride in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    (gradient,) = torch.autograd.grad(y[0, 0, y.shape[2] // 2], x)
    heard = gradient[0, 0].nonzero()
    return int(heard.max() - heard.min()) + 1


def _formula(grow: Callable[[int, int, int], int]) -> Callable[[Layers], int]:
    """A receptive field that starts with 1 and grows by `grow(kernel, stride, stride so far)`."""

    def field(layers: Layers) -> int:
        size, so_far = 1, 1
        for kernel, stride in layers:
            size += grow(kernel, stride, so_far)
            so_far *= stride
        return size

    return field


FIELD = Function(
    "layers → pixels a side",
    _field,
    lambda: (
        Case(f"layers = {layers}", (layers,))
        for layers in (
            [],
            [(3, 1)],
            [(3, 1), (3, 1)],
            [(3, 1), (2, 2), (3, 1)],
            [(7, 2), (3, 2), (3, 1), (5, 2), (3, 1)],
        )
    ),
    [
        (
            _formula(lambda k, s, so_far: k - 1),
            "after a stride a cell is wider than a pixel: multiply by the strides so far",
        ),
        (
            _formula(lambda k, s, so_far: k * so_far),
            "the first of the k cells is there already: a kernel adds k - 1 of them",
        ),
        (
            _formula(lambda k, s, so_far: (k - 1) * so_far * s),
            "a layer's own stride counts for the layers behind it only",
        ),
        (
            lambda layers: _formula(lambda k, s, n: (k - 1) * n)(layers) - 1,
            "a cell sees one pixel before any layer: start with 1",
        ),
    ],
)


@torch.no_grad()
def _multiplications(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(images)
    return int(counter.get_total_flops()) // 2  # a multiplication and an addition each


def _hooked(network: nn.Module, images: Tensor, count: Callable[[nn.Conv2d, Tensor], int]) -> int:
    total = 0

    def note(layer: Any, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += count(layer, output)

    hooks = [part.register_forward_hook(note) for part in network.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return total


def _networks() -> Iterator[Case]:
    for classes, widths, (height, width) in ((21, (8, 16, 24), (32, 32)), (3, (4, 8), (16, 24))):
        config = UNetConfig(num_classes=classes, encoder_widths=widths, decoder_widths=(8,))
        name = f"a small U-Net of {classes} labels and an image of {height}×{width}"
        yield Case(name, (UNet(config).eval(), torch.rand(1, 3, height, width)))


WORK = Function(
    "(network, images) → multiplications of all convolutions",
    _multiplications,
    _networks,
    [
        (
            lambda network, images: _hooked(network, images, lambda conv, out: conv.weight.numel()),
            "those are the weights; each is used at every position of the output",
        ),
        (
            lambda network, images: _hooked(
                network, images, lambda conv, out: conv.weight.numel() * images.shape[2] * images.shape[3]
            ),
            "a convolution works at the positions of its own output, which are fewer on coarse maps",
        ),
        (
            lambda network, images: 2 * _multiplications(network, images),
            "twice too much: additions are not asked for",
        ),
        (
            lambda network, images: _hooked(network, images, lambda conv, out: out.numel()),
            "those are the outputs; each of them takes inputs × k × k multiplications",
        ),
    ],
)


def _judge_full(answer: Any) -> None:
    if not isinstance(answer, UNet):
        raise Off(f"expected a `recseg.UNet`, not {type(answer).__name__}")
    images = torch.rand(1, 3, 32, 48)
    training = answer.training
    with torch.no_grad():
        shape = tuple(answer.eval().pixel_logits(images).shape)
    answer.train(training)
    if shape[2:] != (32, 48):
        raise Off(
            f"for an image of 32×48 the decoder's output is {shape[2]}×{shape[3]}, stride {32 // shape[2]}: "
            "each block of the decoder halves the stride, so one width for each halving"
        )


def _pass(*, padded: bool = True, cropped: bool = True, enlarged: bool = True, corners: bool = False) -> Any:
    """A forward pass from the parts of a U-Net, with the steps that are easily forgotten optional."""

    def forward(network: UNet, images: Tensor) -> Tensor:
        features = network.encoder(pad_to_stride(images, network.encoder.strides[-1]) if padded else images)
        logits: Tensor = network.classifier(network.decoder(features))
        if cropped:
            logits = crop_padding(logits, (images.shape[-2], images.shape[-1]), network.decoder.stride)
        if not enlarged:
            return logits
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=corners)

    return forward


def _odd_sizes() -> Iterator[Case]:
    network = UNet(UNetConfig(num_classes=4, encoder_widths=(4, 8, 8, 12), decoder_widths=(8, 6))).eval()
    for height, width in ((16, 24), (13, 21)):
        yield Case(f"a small U-Net and two images of {height}×{width}", (network, torch.rand(2, 3, height, width)))


FORWARD = Function(
    "(network, images) → logits (B, K, H, W)",
    _pass(),
    _odd_sizes,
    [
        (_pass(padded=False), "height and width have to be padded to multiples of the deepest stride first"),
        (_pass(cropped=False), "what the padding has added is still there when the logits are enlarged: cut it off"),
        (_pass(enlarged=False), "those are the logits at the decoder's resolution: enlarge them to H×W"),
        (_pass(corners=True), "enlarge with align_corners=False: cells have an extent, they are no grid of points"),
    ],
)


EXERCISES: dict[int, Exercise] = {
    1: FIELD,
    3: WORK,
    4: Custom(
        _judge_full,
        lambda: [
            (UNet(), "stride 2"),
            (UNet(UNetConfig(decoder_widths=(96, 64))), "stride 4"),
            (UNetConfig(decoder_widths=(96, 64, 40, 32)), "expected a `recseg.UNet`"),
        ],
    ),
    5: FORWARD,
}
