"""The recurrent U-Net: encode the image once, unroll a ConvLSTM in the bottleneck, emit one mask and one class a step.

Chapter 4 of the book explains this file. The idea of a recurrence that emits one object after another and learns when
to stop: Romera-Paredes and Torr, "Recurrent instance segmentation", ECCV 2016, and Salvador et al., "Recurrent neural
networks for semantic instance segmentation", 2017; here a step is a *class* that is present. How a step becomes a mask
and a class: `recseg.models.heads`.

Three economies, each exact: the input's half of the gates is computed once (`ConvLSTMCell.input_gates`), the skips'
half of the decoder is computed once (`DecoderBlock.project_skip`), and only live (image, step) pairs get a mask,
packed in one batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.models.convlstm import ConvLSTMCell, State
from recseg.models.feedback import AMOUNTS, LEVELS, TOLD, Claims, amount
from recseg.models.heads import DecoderHead, EmbeddingHead, Reading
from recseg.models.unet import Decoder, Encoder, UNetConfig


@dataclass(frozen=True)
class RecurrentUNetConfig(UNetConfig):
    """Make-up of the recurrent model: that of its dense twin, and the recurrence.

    Attributes:
        hidden: channels of the ConvLSTM's state.
        reduced: channels that the deepest features are reduced to before the ConvLSTM reads them.
        grid: stride of the recurrence: its state has one cell for each grid×grid pixels.
        max_steps: the most classes that an image can be given.
        head: "embedding": the decoder runs once to a pixel embedding, a mask is its product with the step's query.
            "decoder": the decoder runs for each live step, on that step's state (the published idea).
        feedback: what a step learns of those before it, beyond the state (`recseg.models.feedback`). "none"; "claimed":
            what they have claimed is taken from its rough mask; "remaining": also, how much foreground they have left;
            "explained": they take no more than what their masks cover in the end; "coverage": also, the ConvLSTM reads
            where that is.
    """

    hidden: int = 64
    reduced: int = 64
    grid: int = 16
    max_steps: int = 5
    head: str = "embedding"
    feedback: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in ("embedding", "decoder"):
            raise RecsegError(f"head {self.head!r}: expected 'embedding' or 'decoder'")
        if self.feedback not in LEVELS:
            raise RecsegError(f"feedback {self.feedback!r}: expected one of {', '.join(LEVELS)}")
        if self.feedback != "none" and self.head == "decoder":
            raise RecsegError(f"feedback {self.feedback!r}: needs head 'embedding', whose rough masks cost nothing")
        if self.max_steps < 1:
            raise RecsegError(f"max_steps {self.max_steps}: expected at least 1")


ENDED = 30.0  # stop logit of steps that were never run: certainly over, and finite, so that sums stay numbers


class RecurrentOutput(NamedTuple):
    """What is present, and nothing else: P live (image, step) pairs of a batch of B images, at most T steps each.

    Attributes:
        masks: (P, h, w) mask logits at the decoder's resolution.
        classes: (P, C) logits over the C = num_classes − 1 foreground classes; column k is label k + 1.
        stop: (B, T) logit that the sequence has ended before step t emits a mask. T ≤ max_steps: as many as were run;
            an image whose sequence had ended earlier was not run any further and holds `ENDED` there.
        sample: (P,) image of each pair, ascending.
        step: (P,) step of each pair, 0-based, ascending within an image.
        lengths: (B,) live steps of each image.
        pixels: (B, num_classes, h, w) per-pixel logits, in training only, where the head has a pixel embedding.
        size: (H, W) of the input.
        rough: (P, h, w) logits of where the classes were read, in training only, likewise.
        foreground: (B, h, w) logits of what is any class at all, in training only, where feedback asks for it.
    """

    masks: Tensor
    classes: Tensor
    stop: Tensor
    sample: Tensor
    step: Tensor
    lengths: Tensor
    pixels: Tensor | None
    size: tuple[int, int]
    rough: Tensor | None = None
    foreground: Tensor | None = None


def live_pairs(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (B,) → image and step of each live pair, (P,) each: [2, 1] gives images 0, 0, 1 and steps 0, 1, 0."""
    sample = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)  # (P,)
    first = torch.cumsum(lengths, 0) - lengths  # (B,) where each image's pairs begin
    step = torch.arange(len(sample), device=lengths.device) - first[sample]  # (P,)
    return sample, step


def lengths_from_stop(stop: Tensor) -> Tensor:
    """Steps before the first whose stop probability exceeds one half: (B, T) logits → (B,)."""
    return (stop <= 0).long().cumprod(dim=1).sum(dim=1)


class RecurrentUNet(nn.Module):
    """One mask and one class a step, for the classes that are present.

    Equations, for an image with features x on the recurrence's grid and pixel embedding E (d channels):

        h_t, c_t = ConvLSTM(x, h_{t-1}, c_{t-1})
        left_t   = Π_{v<t} (1 − σ(m_v))                     share of each pixel that the steps before do not explain
        z_t      = relu(A [mean(h_t), max(h_t), amount(σ(⟨f, E⟩) left_t)])  what the state says, and what is left
        stop_t   = ⟨b, z_t⟩                                 has the sequence ended?
        s_t      = ⟨Q z_t, E⟩ / √d + upsample(⟨l, h_t⟩)     what it claims, logits: what it looks like, roughly where
        σ(r_t)   = σ(s_t) left_t                            rough mask: what the steps before have left of that
        k_t      = W pool_r(E) + V pool_r([x, h_t])         class logits: what lies under that mask, finely and coarsely
        m_t      = γ r_t + ⟨Σ_c p_t(c) (w_c − w_0), E⟩      mask logits: where the classifier sees the step's class

    W, of rows w_c (w_0 is background), is the same linear map that classifies single pixels in training. So classes and
    masks learn as fast as a dense head does, and yet no map of num_classes channels exists at inference: each step
    takes one row of W to the pixels.
    """

    kind = "recurrent"

    def __init__(self, config: RecurrentUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RecurrentUNetConfig()
        self.num_classes = config.num_classes
        self.max_steps = config.max_steps
        self.encoder = Encoder(config.encoder, config.encoder_widths)
        channels, strides = self.encoder.channels, self.encoder.strides
        if config.grid not in strides[1:]:
            raise RecsegError(f"grid {config.grid}: expected a stride of the encoder, one of {strides[1:]}")
        self.level = strides.index(config.grid)  # the encoder's map of the recurrence's resolution
        blocks = len(config.decoder_widths)
        finest = len(channels) - 1 - blocks  # the encoder's map of the decoder's output resolution
        if finest >= self.level:
            raise RecsegError(f"grid {config.grid}: expected coarser than the decoder's output, 1/{strides[finest]}")

        if config.head == "embedding":
            start, inputs, widths = len(channels) - 1, channels[-1], config.decoder_widths
            beside = widths[-1]  # the ConvLSTM reads the pixel embedding beside the deepest features
        else:
            start, inputs = self.level, config.hidden
            widths = config.decoder_widths[finest - self.level :]  # the blocks finer than the grid
            beside = channels[self.level]
        self.skip_levels = range(start - 1, start - 1 - len(widths), -1)  # coarse to fine
        self.decoder = Decoder(inputs, [channels[level] for level in self.skip_levels], widths)

        self.reduce = nn.Conv2d(channels[-1], config.reduced, 1)
        self.cell = ConvLSTMCell(config.reduced + beside, config.hidden)
        told = AMOUNTS if config.feedback in TOLD else 0
        self.summary = nn.Linear(2 * config.hidden + told, config.hidden)  # A
        self.stop = nn.Linear(config.hidden, 1)  # b
        self.head: EmbeddingHead | DecoderHead
        if config.head == "embedding":
            sizes = (self.decoder.channels, config.reduced, config.hidden, config.num_classes)
            self.head = EmbeddingHead(*sizes, config.max_steps, foreground=told > 0)
        else:
            self.head = DecoderHead(self.decoder.channels, config.hidden, config.num_classes, config.max_steps)
        if config.feedback == "coverage":
            self.feedback = nn.Conv2d(2, 4 * config.hidden, 3, padding=1, bias=False)

    def pixel_logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, num_classes, h, w) of the pixel embedding alone, without any recurrence.

        What the first part of a training is spent on. Needs head "embedding": the other has no map of its own.
        """
        assert isinstance(self.head, EmbeddingHead)
        features, projected = self._encode(images)
        logits: Tensor = self.head.classifier(self.decoder(features[-1], projected))
        return logits

    def _encode(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The encoder's features, finest first, and the skips' half of the decoder, coarse to fine."""
        features = self.encoder(images)
        return features, self._skips(features)

    def _skips(self, features: list[Tensor]) -> list[Tensor]:
        return self.decoder.project_skips([features[level] for level in self.skip_levels])

    def recurrence_input(self, features: list[Tensor], embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gates of the input (B, 4·hidden, gh, gw), and the deepest features on the grid (B, reduced, gh, gw).

        Beside the deepest features the ConvLSTM reads E, or with head "decoder" the encoder's map of the grid.
        """
        size = (features[self.level].shape[-2], features[self.level].shape[-1])
        beside = features[self.level] if embedding is None else F.adaptive_avg_pool2d(embedding, size)
        deepest = F.interpolate(self.reduce(features[-1]), size=size, mode="bilinear", align_corners=False)
        return self.cell.input_gates(torch.cat([deepest, beside], dim=1)), deepest

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> RecurrentOutput:
        """Segment images.

        Args:
            images: (B, 3, H, W) RGB floats in [0, 1], any H and W.
            lengths: (B,) true number of classes of each image, in training: these steps get masks, and the step
                after them gets its stop logit. None: the learned stop decides.
        """
        features, projected = self._encode(images)
        embedding = self.decoder(features[-1], projected) if self.config.head == "embedding" else None  # (B, d, h, w)
        gates_x, deepest = self.recurrence_input(features, embedding)  # once, whatever the number of steps

        claims = None
        if isinstance(self.head, EmbeddingHead):
            assert embedding is not None
            claims = Claims(self.head, embedding, deepest, self.config.feedback)
        run = self._unroll(gates_x, claims, lengths)
        steps = len(run.images)
        stop = gates_x.new_full((len(images), steps), ENDED, dtype=run.stops[0].dtype)
        for turn, (image, logits) in enumerate(zip(run.images, run.stops, strict=True)):
            stop[image, turn] = logits  # (B, T)
        lengths = lengths_from_stop(stop) if lengths is None else lengths.clamp(max=self.max_steps)
        sample, step = live_pairs(lengths)

        # Only live pairs from here on.
        place = _places(run.readers, len(images), sample, step)  # (P,)
        pixels = rough = foreground = None
        if claims is None:
            state = torch.cat(run.states)[place]  # (P, hidden, gh, gw)
            masks, classes, *_ = self.head(self.decoder(state, projected, sample), state, step)
        else:
            masks = torch.cat([read.masks for read in run.readings])[place]  # (P, h, w)
            classes = torch.cat([read.classes for read in run.readings])[place]  # (P, C)
            if self.training:
                rough = torch.cat([read.rough for read in run.readings if read.rough is not None])[place]  # (P, h, w)
                pixels, foreground = self.head.classifier(embedding), claims.foreground  # (B, num_classes, h, w)
        size = (images.shape[-2], images.shape[-1])
        return RecurrentOutput(masks, classes, stop, sample, step, lengths, pixels, size, rough, foreground)

    def _unroll(self, gates_x: Tensor, claims: Claims | None, lengths: Tensor | None) -> "_Run":
        """Run the recurrence from the gates of the input (B, 4·hidden, gh, gw), each image no longer than it needs."""
        steps = self.max_steps
        if lengths is not None:  # the longest image, and one more step that should stop it
            steps = min(steps, int(lengths.max()) + 1)
        image = torch.arange(len(gates_x), device=gates_x.device)  # which images still run
        state: State | None = None
        # Asking a GPU which images go on costs a round trip, where a step costs less: there all run to the end.
        asks = lengths is not None or (gates_x.device.type == "cpu" and not torch.compiler.is_compiling())
        run = _Run([], [], [], [], [])
        for step in range(steps):
            gates = gates_x
            if claims is not None and self.config.feedback == "coverage":
                gates = gates_x + self.feedback(claims.planes())
            state = self.cell.step(gates, state)
            summary = self._summarise(state[0], claims.remaining() if claims is not None and claims.told else None)
            stop = self.stop(summary).squeeze(1)  # (R,)
            run.stops.append(stop)
            run.images.append(image)
            if asks:
                goes_on = stop <= 0 if lengths is None else lengths[image] > step
                going = int(goes_on.sum())
                if run.readers and not going:
                    break
                if going < len(image):
                    image, gates_x, summary = image[goes_on], gates_x[goes_on], summary[goes_on]
                    state = (state[0][goes_on], state[1][goes_on])
                    if claims is not None:
                        claims.keep(goes_on)
            if len(image) or not run.readers:  # with nobody left, only for the shape
                run.readers.append(image)
                if claims is None:
                    run.states.append(state[0])
                else:
                    run.readings.append(claims.read(state[0], summary))
            if not len(image):
                break
        return run

    def _summarise(self, state: Tensor, left: Tensor | None) -> Tensor:
        """z_t: state (R, hidden, gh, gw) and, where it is told, remaining_t (R, gh, gw) → (R, hidden)."""
        pooled = [state.mean(dim=(2, 3)), state.amax(dim=(2, 3))] + (
            [] if left is None else [amount(left).to(state.dtype)]
        )
        z: Tensor = F.relu(self.summary(torch.cat(pooled, dim=1)))
        return z


class _Run(NamedTuple):
    """What the recurrence left behind, step by step, of the images that still ran: R of them, and N that went on.

    Attributes:
        stops: of each step, (R,) logits.
        images: of each step, (R,) which images those are, ascending.
        readers: of each step, (N,) which images went on, ascending: the step gives them a mask and a class.
        states: of each step, (N, hidden, gh, gw), which the decoder head reads in the end, all at once.
        readings: of each step, N of them, which the embedding head reads at once: the next step builds on them.
    """

    stops: list[Tensor]
    images: list[Tensor]
    readers: list[Tensor]
    states: list[Tensor]
    readings: list[Reading]


def _places(images: list[Tensor], number: int, sample: Tensor, step: Tensor) -> Tensor:
    """Where live pairs stand among what was kept step by step.

    Args:
        images: which of `number` images each step had.
        sample: (P,) image of each pair; step: (P,).

    Returns:
        (P,) rows of what was kept, all steps one after the other.
    """
    place = sample.new_zeros(len(images), number)
    start = 0
    for turn, present in enumerate(images):
        place[turn, present] = torch.arange(start, start + len(present), device=sample.device)
        start += len(present)
    return place[step, sample]
