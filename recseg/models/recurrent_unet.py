"""The recurrent U-Net: name a class, then paint it, until the sequence has ended.

A U-Net encodes the image once. A ConvLSTM in its bottleneck is unrolled over time steps. Each step emits one class that
is present and the mask of that class; a learned stop ends the sequence. Chapter 4 of the book explains this file.

For an image with pixel embedding E (d channels, from the decoder) and bottleneck features x, one time step is

    h, c      = ConvLSTM([x, coverage], (h, c))       coverage = 1 − uncovered, on the grid of x
    z         = relu(A [mean(h), max(h)])             summary of the hidden state
    stop      = b · z                                 logit: has the sequence ended?
    attention = σ((Q z) · E / √d) · uncovered         one number per pixel, in [0, 1]
    class     = W ⟨E⟩ + V ⟨[x, h]⟩                    logits; ⟨·⟩ is the mean under the attention map
    mask      = (w_class − w_background) · E          logits; w_k is the row of class k in W
    uncovered = uncovered · (1 − σ(mask))

In training, W also classifies single pixels, like the last layer of a dense U-Net. The steps thus use a classifier that
is trained on every pixel, and no map of num_classes channels is computed at inference.

Sources: Romera-Paredes and Torr, "Recurrent instance segmentation", ECCV 2016 (emit one object after another and learn
when to stop; here a step is a class); Cheng et al., "MaskFormer", NeurIPS 2021 (a mask as the product of a vector with
a pixel embedding); Tu et al., "Modeling coverage for neural machine translation", ACL 2016 (coverage).
"""

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.classes import NO_STOP
from recseg.models.config import RecurrentUNetConfig
from recseg.models.convlstm import ConvLSTMCell
from recseg.models.encoders import Encoder
from recseg.models.model import SegmentationModel
from recseg.models.unet import Decoder, crop_padding, pad_to_stride


class Features(NamedTuple):
    """What is computed once per image.

    Attributes:
        embedding: (B, d, h, w) pixel embedding E, at the decoder's resolution.
        x: (B, reduced, gh, gw) bottleneck features.
        gates: (B, 4·hidden, gh, gw) the part of the ConvLSTM's gates that depends on x.
    """

    embedding: Tensor
    x: Tensor
    gates: Tensor


class State(NamedTuple):
    """What one time step passes to the next; it is never changed in place.

    Attributes:
        h: (B, hidden, gh, gw) hidden state.
        c: (B, hidden, gh, gw) cell state.
        uncovered: (B, h, w) share of each pixel that no earlier mask has covered, in [0, 1].
        named: (B, C) bool, classes that earlier steps have named.
    """

    h: Tensor
    c: Tensor
    uncovered: Tensor
    named: Tensor


class StepOutput(NamedTuple):
    """What one time step emits for each of B images.

    Attributes:
        stop: (B,) logit that the sequence has ended before this step.
        classes: (B, C) logits over the C = num_classes − 1 foreground classes; column k is label k + 1.
        mask: (B, h, w) mask logits.
        attention: (B, h, w) attention map, in [0, 1].
    """

    stop: Tensor
    classes: Tensor
    mask: Tensor
    attention: Tensor


class ImageOutput(NamedTuple):
    """The n steps of one image: masks (n, h, w), class logits (n, C), and the stop logits (T,) of all steps run."""

    masks: Tensor
    classes: Tensor
    stop: Tensor


class RecurrentOutput(NamedTuple):
    """The steps of B images, packed: P = Σ lengths live (image, step) pairs, without the steps after a stop.

    Attributes:
        masks: (P, h, w) mask logits at the decoder's resolution.
        classes: (P, C) logits over the C = num_classes − 1 foreground classes; column k is label k + 1.
        stop: (B, T) logit that the sequence has ended before step t; T is the number of steps that were run.
        sample: (P,) image of each pair, ascending.
        step: (P,) step of each pair, 0-based, ascending within an image.
        lengths: (B,) steps of each image.
        pixels: (B, num_classes, h, w) logits of the per-pixel classifier, in training mode only.
        size: (H, W) of the input.
    """

    masks: Tensor
    classes: Tensor
    stop: Tensor
    sample: Tensor
    step: Tensor
    lengths: Tensor
    pixels: Tensor | None
    size: tuple[int, int]

    def split(self) -> list[ImageOutput]:
        """One entry per image."""
        counts = self.lengths.tolist()
        masks, classes = torch.split(self.masks, counts), torch.split(self.classes, counts)
        return [ImageOutput(*parts) for parts in zip(masks, classes, self.stop, strict=True)]


def live_pairs(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (B,) → image and step of each live pair, (P,) each: [2, 1] gives images 0, 0, 1 and steps 0, 1, 0."""
    steps = torch.arange(int(lengths.max()), device=lengths.device)
    sample, step = (steps < lengths[:, None]).nonzero(as_tuple=True)  # (B, T) bool → (P,) each
    return sample, step


def lengths_from_stop(stop: Tensor) -> Tensor:
    """Steps before the first whose stop probability exceeds one half: (B, T) logits → (B,)."""
    return (stop <= 0).long().cumprod(dim=1).sum(dim=1)


def winners(masks: Tensor) -> Tensor:
    """Which steps have the largest mask logit at some pixel: (T, B, h, w) → (B, T) bool."""
    first = masks.argmax(dim=0).flatten(1)  # (B, h·w)
    return torch.stack([(first == step).any(dim=1) for step in range(len(masks))], dim=1)


def masked_average_pool(features: Tensor, weight: Tensor) -> Tensor:
    """Mean of features (B, d, h, w), weighted by maps (B, h, w) of non-negative numbers: (B, d)."""
    weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    return torch.einsum("bdhw,bhw->bd", features, weight.to(features.dtype))


class RecurrentUNet(SegmentationModel):
    """Emit one class and its mask per time step, for the classes that are present. Default config: as published."""

    kind = "recurrent"
    class_rows: ClassVar[dict[str, int]] = {"classifier.weight": 0, "classifier.bias": 0, "context.weight": 1}

    def __init__(self, config: RecurrentUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RecurrentUNetConfig()
        self.num_classes, self.max_steps = config.num_classes, config.max_steps
        self.encoder = Encoder(config.encoder, config.encoder_widths)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, config.decoder_widths)
        self.classifier = nn.Conv2d(self.decoder.channels, config.num_classes, 1)  # W

        # The recurrence runs on the grid of the second deepest features; the deepest grid has too few cells.
        grid, deepest = self.encoder.channels[-2:]
        self.reduce = nn.Conv2d(grid + deepest, config.reduced, 1)
        self.upsample = self.encoder.strides[-1] // self.encoder.strides[-2]
        self.pool = nn.AvgPool2d(self.encoder.strides[-2] // self.decoder.stride)  # from E's resolution to the grid

        self.cell = ConvLSTMCell(config.reduced, config.hidden)
        self.coverage = nn.Conv2d(1, 4 * config.hidden, 3, padding=1, bias=False)
        self.summary = nn.Linear(2 * config.hidden, config.hidden)  # A
        self.stop = nn.Linear(config.hidden, 1)  # b
        self.query = nn.Linear(config.hidden, self.decoder.channels)  # Q
        self.context = nn.Linear(config.reduced + config.hidden, config.num_classes - 1, bias=False)  # V
        nn.init.zeros_(self.context.weight)  # at first, steps classify by pixel features alone

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1], sides multiples of the encoder's deepest stride → what all steps share."""
        features = self.encoder(images)
        deepest = F.interpolate(features[-1], scale_factor=float(self.upsample), mode="bilinear")
        x = self.reduce(torch.cat([features[-2], deepest], dim=1))  # (B, reduced, gh, gw)
        return Features(self.decoder(features), x, self.cell.input_gates(x))

    def initial_state(self, features: Features) -> State:
        """The state before the first step: h and c are zero, nothing is covered, no class has been named."""
        h, c = self.cell.zero_state(features.gates)
        uncovered = c.new_ones(features.embedding[:, 0].shape)  # (B, h, w); a product of many factors needs 32 bits
        return State(h, c, uncovered, c.new_zeros((len(c), self.num_classes - 1), dtype=torch.bool))

    def step(self, features: Features, state: State) -> tuple[State, StepOutput]:
        """One time step: attend, name a class, paint its mask. The equations are at the top of this file."""
        embedding = features.embedding  # (B, d, h, w)
        # Detached: a mask is trained to fit its class, not to inform later steps.
        coverage = 1 - self.pool(state.uncovered.detach().unsqueeze(1)).to(features.x.dtype)  # (B, 1, gh, gw)
        h, c = self.cell.step(features.gates + self.coverage(coverage), (state.h, state.c))
        z = F.relu(self.summary(torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)))  # (B, hidden)
        stop = self.stop(z).squeeze(1)  # (B,)

        # Name.
        query = self.query(z) / math.sqrt(embedding.shape[1])  # (B, d)
        attention = torch.einsum("bd,bdhw->bhw", query, embedding).to(state.uncovered.dtype).sigmoid() * state.uncovered
        coarse = self.pool(attention.unsqueeze(1)).squeeze(1)  # (B, gh, gw)
        weight, bias = self.classifier.weight.flatten(1), self.classifier.bias  # (K, d), (K,)
        assert bias is not None
        classes = F.linear(masked_average_pool(embedding, attention), weight[1:], bias[1:])
        classes = classes + self.context(masked_average_pool(torch.cat([features.x, h], dim=1), coarse))  # (B, C)

        # Paint.
        if self.training:  # with the expected row, which passes a gradient to the class logits
            share, named = classes.softmax(dim=1), state.named  # (B, C)
        else:  # with the row of the best class that has not been named yet
            classes = torch.where(state.named, classes.amin(dim=1, keepdim=True) - 1, classes)
            share = F.one_hot(classes.argmax(dim=1), classes.shape[1]).to(classes.dtype)  # (B, C)
            named = state.named | (share > 0)
        row = share @ (weight[1:] - weight[:1])  # (B, d)
        offset = share @ (bias[1:] - bias[:1]).unsqueeze(1)  # (B, 1); ORT's WebGPU cannot multiply by a vector
        mask = torch.einsum("bd,bdhw->bhw", row, embedding) + offset.unsqueeze(2)
        uncovered = state.uncovered * (-mask.to(state.uncovered.dtype)).sigmoid()  # 1 − σ(m) = σ(−m)
        return State(h, c, uncovered, named), StepOutput(stop, classes, mask, attention)

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> RecurrentOutput:
        """Segment images.

        Args:
            images: (B, 3, H, W) RGB floats in [0, 1], any H and W.
            lengths: (B,) true number of classes in each image, in training: that many steps are emitted, and the stop
                logit of one more. Keep it on the CPU to avoid a GPU sync. None: the learned stop decides; without a
                background class all steps run, and those that win no pixel are left out.
        """
        features = self.encode(pad_to_stride(images, self.encoder.strides[-1]))
        state, outputs = self.initial_state(features), list[StepOutput]()
        # On a GPU, checking whether all images have stopped would force a sync, which costs more than a step.
        ask = lengths is None and self.has_background and images.is_cpu and not torch.compiler.is_compiling()
        for _ in range(self.max_steps if lengths is None else min(self.max_steps, int(lengths.max()) + 1)):
            state, output = self.step(features, state)
            outputs.append(output)
            if ask and (torch.stack([step.stop for step in outputs]) > 0).any(dim=0).all():  # each image has stopped
                break
        stop = torch.stack([output.stop for output in outputs], dim=1)  # (B, T)
        classes = torch.stack([output.classes for output in outputs])  # (T, B, C)
        masks = torch.stack([output.mask for output in outputs])  # (T, B, h, w), with the padding
        size = (images.shape[-2], images.shape[-1])
        masks = crop_padding(masks, size, self.decoder.stride)

        # Keep the live pairs.
        if lengths is None and not self.has_background:  # the stop is not used: keep the steps that win a pixel
            stop, live = torch.full_like(stop, NO_STOP), winners(masks)  # (B, T)
            (sample, step), lengths = live.nonzero(as_tuple=True), live.sum(dim=1)  # (P,), (B,)
        else:
            lengths = lengths_from_stop(stop) if lengths is None else lengths.clamp(max=self.max_steps)
            sample, step = (index.to(stop.device, non_blocking=True) for index in live_pairs(lengths))  # (P,)
            lengths = lengths.to(stop.device, non_blocking=True)
        pixels = self._classify_pixels(features.embedding, size) if self.training else None
        return RecurrentOutput(masks[step, sample], classes[step, sample], stop, sample, step, lengths, pixels, size)

    def pixel_logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, num_classes, h, w): the per-pixel classifier alone, without any recurrence."""
        features = self.encoder(pad_to_stride(images, self.encoder.strides[-1]))
        return self._classify_pixels(self.decoder(features), (images.shape[-2], images.shape[-1]))

    def _classify_pixels(self, embedding: Tensor, size: tuple[int, int]) -> Tensor:
        return crop_padding(self.classifier(embedding), size, self.decoder.stride)
