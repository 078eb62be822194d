"""The recurrent U-Net: encode the image once, unroll a ConvLSTM in the bottleneck, emit one mask and one class a step.

Chapter 4 of the book explains this file. The idea of a recurrence that emits one object after another and learns when
to stop: Romera-Paredes and Torr, "Recurrent instance segmentation", ECCV 2016, and Salvador et al., "Recurrent neural
networks for semantic instance segmentation", 2017; here a step is a *class* that is present. Masks as a product of a
query and a pixel embedding: Cheng et al., "MaskFormer", NeurIPS 2021.

Three economies, each exact: the input's half of the gates is computed once (`ConvLSTMCell.input_gates`), the skips'
half of the decoder is computed once (`DecoderBlock.project_skip`), and only live (image, step) pairs get a mask,
packed in one batch.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.convlstm import ConvLSTMCell, State
from recseg.errors import RecsegError
from recseg.unet import Decoder, Encoder, UNetConfig


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
        feedback: "coverage" tells each step what is claimed so far and which foreground is not; "none" does not.
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
        if self.feedback not in ("none", "coverage"):
            raise RecsegError(f"feedback {self.feedback!r}: expected 'none' or 'coverage'")
        if self.feedback == "coverage" and self.head == "decoder":
            raise RecsegError("feedback 'coverage': needs head 'embedding', whose coarse masks cost nothing")
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
    """

    masks: Tensor
    classes: Tensor
    stop: Tensor
    sample: Tensor
    step: Tensor
    lengths: Tensor
    pixels: Tensor | None
    size: tuple[int, int]


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
        z_t      = relu(A [mean(h_t), max(h_t)])            what the state says, without place
        stop_t   = ⟨b, z_t⟩                                 has the sequence ended?
        r_t      = ⟨Q z_t, E⟩ / √d + upsample(⟨l, h_t⟩)     rough mask logits: what it looks like, and roughly where
        k_t      = W (Σ σ(r_t) E / Σ σ(r_t))                class logits: E under that mask, read by the classifier W
        m_t      = r_t + ⟨Σ_c p_t(c) (w_c − w_0), E⟩        mask logits: and where the classifier sees the step's class

    W, of rows w_c (w_0 is background), is the same linear map that classifies single pixels in training. So classes and
    masks learn as fast as a dense head does, and yet no map of num_classes channels exists at inference: the rows are
    summed over the classes before they meet a pixel.
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
        self.summary = nn.Linear(2 * config.hidden, config.hidden)  # A
        self.stop = nn.Linear(config.hidden, 1)  # b
        if config.head == "embedding":
            self.query = nn.Linear(config.hidden, self.decoder.channels)  # Q
            self.location = nn.Conv2d(config.hidden, 1, 1)  # l
            self.classifier = nn.Conv2d(self.decoder.channels, config.num_classes, 1)  # W
        else:
            self.mask = nn.Conv2d(self.decoder.channels, 1, 1)
            self.classifier = nn.Conv2d(config.hidden, config.num_classes - 1, 1)
        if config.feedback == "coverage":
            self.feedback = nn.Conv2d(2, 4 * config.hidden, 3, padding=1, bias=False)

    def pixel_logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, num_classes, h, w) of the pixel embedding alone, without any recurrence.

        What the first part of a training is spent on. Needs head "embedding": the other has no map of its own.
        """
        features = self.encoder(images)
        projected = self.decoder.project_skips([features[level] for level in self.skip_levels])
        logits: Tensor = self.classifier(self.decoder(features[-1], projected))
        return logits

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> RecurrentOutput:
        """Segment images.

        Args:
            images: (B, 3, H, W) RGB floats in [0, 1], any H and W.
            lengths: (B,) true number of classes of each image, in training: these steps get masks, and the step
                after them gets its stop logit. None: the learned stop decides.
        """
        features = self.encoder(images)
        projected = self.decoder.project_skips([features[level] for level in self.skip_levels])
        grid_size = features[self.level].shape[-2:]
        if self.config.head == "embedding":
            embedding = self.decoder(features[-1], projected)  # (B, d, h, w)
            beside = F.adaptive_avg_pool2d(embedding, grid_size)  # (B, d, gh, gw)
        else:
            embedding, beside = None, features[self.level]
        deepest = F.interpolate(self.reduce(features[-1]), size=grid_size, mode="bilinear", align_corners=False)
        gates_x = self.cell.input_gates(torch.cat([deepest, beside], dim=1))  # (B, 4·hidden, gh, gw), once

        states, image, turn = self._unroll(gates_x, beside, lengths)  # (R, hidden, gh, gw), (R,), (R,)
        summaries = self._summarise(states)  # (R, hidden)
        steps = int(turn[-1]) + 1
        stop = summaries.new_full((len(images), steps), ENDED)
        stop[image, turn] = self.stop(summaries).squeeze(1)  # (B, T)
        lengths = lengths_from_stop(stop) if lengths is None else lengths.clamp(max=self.max_steps)
        sample, step = live_pairs(lengths)

        # Only live pairs from here on. `row` finds the state of a pair among those that were run.
        row = torch.zeros(len(images), steps, dtype=torch.long, device=images.device)
        row[image, turn] = torch.arange(len(image), device=images.device)
        live = row[sample, step]  # (P,)
        state = states[live]  # (P, hidden, gh, gw)
        if embedding is not None:
            queries = self.query(summaries[live])  # (P, d)
            masks, classes = self._read_embedding(embedding, queries, state, sample)
            pixels = self.classifier(embedding) if self.training else None  # (B, num_classes, h, w)
        else:
            decoded = self.decoder(state, projected, sample)  # (P, d, h, w)
            masks, pixels = self.mask(decoded).squeeze(1), None  # (P, h, w)
            classes = self.classifier(state).amax(dim=(2, 3))  # (P, C): where the state speaks loudest for a class
        size = (images.shape[-2], images.shape[-1])
        return RecurrentOutput(masks, classes, stop, sample, step, lengths, pixels, size)

    def _unroll(self, gates_x: Tensor, embedding_grid: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Run the recurrence from the gates of the input (B, 4·hidden, gh, gw), each image no longer than it needs.

        Returns:
            R states (R, hidden, gh, gw), one for each (image, step) that was run, with their image and their step (R,);
            steps ascend.
        """
        steps = self.max_steps
        if lengths is not None:  # the longest image, and one more step that should stop it
            steps = min(steps, int(lengths.max()) + 1)
        image = torch.arange(len(gates_x), device=gates_x.device)  # which images still run
        state: State = self.cell.zero_state(gates_x)
        coverage = _Coverage(self, embedding_grid) if self.config.feedback == "coverage" else None
        # Asking a GPU which images go on costs a round trip, where a step costs less: there all run to the end.
        asks = lengths is not None or (gates_x.device.type == "cpu" and not torch.compiler.is_compiling())
        states, images = [], []
        for step in range(steps):
            gates = gates_x if coverage is None else gates_x + self.feedback(coverage.planes())
            state = self.cell.step(gates, state)
            states.append(state[0])
            images.append(image)
            if step + 1 == steps:
                break
            if coverage is not None:
                coverage.claim(state[0])
            if asks:
                if lengths is not None:
                    goes_on = lengths[image] > step
                else:
                    goes_on = self.stop(self._summarise(state[0])).squeeze(1) <= 0
                if not goes_on.any():
                    break
                if not goes_on.all():
                    image, gates_x = image[goes_on], gates_x[goes_on]
                    state = (state[0][goes_on], state[1][goes_on])
                    if coverage is not None:
                        coverage.keep(goes_on)
        turn = torch.cat([torch.full_like(rows, step) for step, rows in enumerate(images)])  # (R,)
        return torch.cat(states), torch.cat(images), turn

    def _summarise(self, state: Tensor) -> Tensor:
        """z_t: (B, hidden, gh, gw) → (B, hidden)."""
        pooled = torch.cat([state.mean(dim=(2, 3)), state.amax(dim=(2, 3))], dim=1)  # (B, 2·hidden)
        return F.relu(self.summary(pooled))

    def _read_embedding(
        self, embedding: Tensor, queries: Tensor, state: Tensor, sample: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Masks (P, h, w) and classes (P, C) of live pairs: E (B, d, h, w), queries (P, d), states (P, hidden, …)."""
        height, width = embedding.shape[-2:]
        pixels = embedding.flatten(2).index_select(0, sample)  # (P, d, h·w)
        look = torch.bmm(queries.unsqueeze(1), pixels) / math.sqrt(queries.shape[1])  # (P, 1, h·w)
        place = F.interpolate(self.location(state), size=(height, width), mode="bilinear", align_corners=False)
        rough = look + place.flatten(2)  # (P, 1, h·w)
        weight = rough.sigmoid()
        weight = weight / weight.sum(dim=2, keepdim=True).clamp(min=1e-6)
        pooled = torch.bmm(pixels, weight.transpose(1, 2))  # (P, d, 1)
        scores = self.classifier(pooled.unsqueeze(3)).flatten(1)[:, 1:]  # (P, C): a step is never background
        rows, bias = self.classifier.weight.flatten(1), self.classifier.bias  # (num_classes, d), (num_classes,)
        assert bias is not None
        likely = scores.softmax(dim=1)  # (P, C)
        row = likely @ (rows[1:] - rows[:1])  # (P, d): the expected class against background
        seen = torch.bmm(row.unsqueeze(1), pixels) + (likely @ (bias[1:] - bias[0])).view(-1, 1, 1)  # (P, 1, h·w)
        return (rough + seen).view(-1, height, width), scores


class _Coverage:
    """What the steps so far have claimed, on the recurrence's grid (full resolution would break the packing)."""

    def __init__(self, model: RecurrentUNet, embedding: Tensor) -> None:
        self.model = model
        self.embedding = embedding  # (B, d, gh, gw)
        # The per-pixel classifier on a few hundred cells: how sure is it that there is something?
        self.foreground = 1 - model.classifier(embedding).softmax(dim=1)[:, :1]  # (B, 1, gh, gw)
        self.free = torch.ones_like(self.foreground)  # share of each cell that no step has claimed

    def planes(self) -> Tensor:
        """(B, 2, gh, gw): what is claimed, and the foreground that is not."""
        return torch.cat([1 - self.free, self.foreground * self.free], dim=1)

    def claim(self, state: Tensor) -> None:
        """Add the coarse mask of a step's state (B, hidden, gh, gw)."""
        query = self.model.query(self.model._summarise(state))  # (B, d)
        look = torch.einsum("bd,bdhw->bhw", query, self.embedding).unsqueeze(1) / math.sqrt(query.shape[1])
        self.free = self.free * (1 - (look + self.model.location(state)).sigmoid())

    def keep(self, images: Tensor) -> None:
        """Forget the images (B,) bool whose sequence has ended."""
        self.embedding, self.foreground = self.embedding[images], self.foreground[images]
        self.free = self.free[images]
