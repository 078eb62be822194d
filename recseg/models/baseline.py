"""The published network, rebuilt from its description: the baseline that the recurrent U-Net is compared with.

The work "Recurrently Semantic Segmentation" had the idea that this book teaches: a U-Net with a ConvLSTM in its
bottleneck that names one class and draws one mask per step. Its network always runs all its steps and decodes each of
them to full resolution, whatever is in the image. It is rebuilt here as described, costs included, so that each saving
in `recurrent_unet.py` can be measured against it.

The description leaves some things open. They are read as follows:

- The first convolution of a decoder block halves the channels of the concatenation (1024 → 512 → 256). This reading has
  the stated 59.8 million parameters; halving the upsampled map alone, or going straight to the output width, has 55.8.
- Convolutions keep their bias although a batch norm follows (without them 59.77 million become 59.76: still 59.8).
- Decoder blocks have the encoder's dropout. The forget gate's bias starts at 0. Images in [0, 1] are not normalised
  (the batch norm after the first convolution adapts to any scale). The Dice term is computed per mask and averaged.
- Label 0 of the 21 is "end": it is the target of every step after the last class.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.classes import NO_STOP
from recseg.errors import RecsegError
from recseg.models.convlstm import ConvLSTMCell
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput, live_pairs


@dataclass(frozen=True)
class PublishedConfig:
    """Architecture of the published network; the defaults are the published values.

    Attributes:
        num_classes: labels, background included; at each step label 0 stands for "end".
        max_steps: number of steps; all of them always run.
        input_size: side of the images in pixels; the network takes no other size.
        widths: channels of each stage, finest first; a stage has half the resolution of the one before.
        dropout: after each convolution.
        head_dropout: after each hidden linear layer of the class head.
    """

    num_classes: int = 21
    max_steps: int = 5
    input_size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dropout: float = 0.25
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise RecsegError(f"num_classes {self.num_classes}: expected at least 2, background and one class")
        if self.max_steps < 1:
            raise RecsegError(f"max_steps {self.max_steps}: expected at least 1")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise RecsegError(f"widths {self.widths}: expected two or more stages of at least one channel")
        for name, rate in (("dropout", self.dropout), ("head_dropout", self.head_dropout)):
            if not 0 <= rate < 1:
                raise RecsegError(f"{name} {rate}: expected at least 0 and below 1")
        stride = 2 ** (len(self.widths) - 1)
        if self.input_size % stride or self.input_size // stride < 10:  # 10 → pooled 5 → 3 → 1 in the class head
            raise RecsegError(
                f"input_size {self.input_size}: expected a multiple of {stride} (the stride of {len(self.widths)} "
                f"stages), {10 * stride} or more"
            )


def _convolution(inputs: int, outputs: int, dropout: float, padding: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=padding),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    ]


def _hidden(inputs: int, outputs: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)]


class PublishedNetwork(SegmentationModel):
    """All steps of the recurrence, each decoded in full.

    With widths w, the bottleneck at 1/16 of the image's side (16×16 cells of 256×256 pixels) and T = 5 steps:

        x        = stages(image)                       (B, 512, 16, 16)
        h_t, c_t = ConvLSTM(x, h_{t-1}, c_{t-1})       the same x at every step
        mask_t   = decoder(h_t, skips)                 (B, 256, 256) logits
        class_t  = head(h_t)                           (B, 21) logits, label 0 is "end"
    """

    kind = "published"
    class_rows: ClassVar[dict[str, int]] = {"head.18.weight": 0, "head.18.bias": 0}
    input_size: int

    def __init__(self, config: PublishedConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PublishedConfig()
        self.num_classes = config.num_classes
        self.max_steps = config.max_steps
        self.input_size = config.input_size
        widths, drop = config.widths, config.dropout
        self.stages = nn.ModuleList(
            nn.Sequential(*_convolution(before, width, drop), *_convolution(width, width, drop))
            for before, width in zip((3, *widths), widths, strict=False)
        )
        deepest = widths[-1]
        self.cell = ConvLSTMCell(deepest, deepest, forget_bias=0.0)

        blocks, channels = [], deepest
        for level in range(len(widths) - 2, -1, -1):  # coarse to fine
            joined, outputs = channels + widths[level], widths[max(level - 1, 0)]
            half = joined // 2
            blocks.append(nn.Sequential(*_convolution(joined, half, drop), *_convolution(half, outputs, drop)))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.mask = nn.Conv2d(channels, 1, 1)

        side = config.input_size // 2 ** (len(widths) - 1) // 2 - 4  # pooled, then two 3×3 without padding: 4 of 256
        self.head = nn.Sequential(
            nn.MaxPool2d(2),
            *_convolution(deepest, deepest, drop, padding=0),
            *_convolution(deepest, deepest, drop, padding=0),
            nn.Flatten(),  # (B, 512, 4, 4) → (B, 8192)
            *_hidden(deepest * side * side, 4 * deepest, config.head_dropout),
            *_hidden(4 * deepest, 2 * deepest, config.head_dropout),
            nn.Linear(2 * deepest, config.num_classes),
        )

    def forward_all(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All steps of all images: what the network computes, and what `published_loss` takes.

        Args:
            images: (B, 3, S, S) RGB floats in [0, 1], S = `input_size`.

        Returns:
            Mask logits (B, T, S, S) and class logits (B, T, num_classes), label 0 meaning "end".

        Raises:
            RecsegError: images of another size, or a training batch of one image.
        """
        batch, _, height, width = images.shape
        if (height, width) != (self.input_size, self.input_size):
            size = f"{self.input_size}×{self.input_size}"
            raise RecsegError(f"images of {height}×{width} pixels: the published network takes {size} only")
        if self.training and batch < 2:
            raise RecsegError("training batch of 1: the published network's batch norm expected 2 images or more")
        skips = []
        x = images
        for level, stage in enumerate(self.stages):
            x = stage(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        x = skips.pop()  # (B, 512, S/16, S/16)

        gates_x = self.cell.input_gates(x)
        state = self.cell.zero_state(gates_x)
        masks, classes = [], []
        for _ in range(self.max_steps):
            state = self.cell.step(gates_x, state)
            # One step at a time: in training each step is normalised with its own batch statistics. This hides the step
            # index from the class head, and makes a training batch of 1 fail; eval() uses an average over all steps.
            masks.append(self._decode(state[0], skips))
            classes.append(self.head(state[0]))
        return torch.stack(masks, dim=1), torch.stack(classes, dim=1)  # (B, T, S, S), (B, T, num_classes)

    def _decode(self, h: Tensor, skips: list[Tensor]) -> Tensor:
        """Mask logits (B, S, S) of a step's state (B, 512, S/16, S/16)."""
        x = h
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([x, skip], dim=1))
        logits: Tensor = self.mask(x)  # (B, 1, S, S)
        return logits.squeeze(1)

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> RecurrentOutput:
        """Segment images; all steps are computed, and the live ones are returned.

        A softmax over "end" and C classes is a sigmoid for "end" times a softmax over the C classes. With logits l,
        stop = l_end − log Σ_{c ≠ end} exp(l_c) gives σ(stop) = p(end), so no information is lost.

        Args:
            images: (B, 3, S, S) RGB floats in [0, 1], S = `input_size`.
            lengths: (B,) true number of classes in each image, in training. None: a sequence ends at the first step
                whose most likely label is "end".
        """
        masks, labels = self.forward_all(images)
        if lengths is None:
            if not self.has_background:  # every image has at least one class
                labels[:, 0, 0] = labels[:, 0].amin(dim=1) + NO_STOP
            lengths = (labels.argmax(dim=2) != 0).long().cumprod(dim=1).sum(dim=1)  # (B,)
        else:
            lengths = lengths.clamp(max=self.max_steps).to(masks.device)
        sample, step = live_pairs(lengths)
        classes = labels[:, :, 1:]  # (B, T, C)
        stop = labels[:, :, 0] - classes.logsumexp(dim=2)  # (B, T)
        size = (self.input_size, self.input_size)
        return RecurrentOutput(masks[sample, step], classes[sample, step], stop, sample, step, lengths, None, size)


def published_loss(
    mask_logits: Tensor, class_logits: Tensor, masks: Tensor, classes: Tensor, lengths: Tensor
) -> dict[str, Tensor]:
    """The published loss: BCE + Dice over the masks of steps 1 … n + 1, and −y·log p averaged over all entries.

    The target mask of step n + 1 is empty; later masks are not trained. Void counts as background. The class term is a
    mean over T·num_classes entries, only T of which are non-zero, so it is weak. Both are as published.

    Args:
        mask_logits: (B, T, H, W), from `PublishedNetwork.forward_all`.
        class_logits: (B, T, num_classes), likewise.
        masks: (B, T, H, W) bool, the classes of each image by ascending label.
        classes: (B, T) their labels, 0 ("end") where the image has no more.
        lengths: (B,) number of classes n in each image; on the CPU, to avoid a GPU sync.

    Returns:
        {"loss": total, "bce", "dice", "classes": its terms}; scalars.
    """
    taught = live_pairs((lengths + 1).clamp(max=masks.shape[1]))  # steps 1 … n + 1 of each image
    sample, step = (index.to(masks.device, non_blocking=True) for index in taught)  # (P,)
    logits = mask_logits.float()[sample, step].flatten(1)  # (P, H·W)
    truth = masks[sample, step].flatten(1).float()  # (P, H·W)
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(dim=1) + 1  # the 1: an empty mask on an empty target is perfect
    terms = {
        "bce": F.binary_cross_entropy_with_logits(logits, truth),
        "dice": (1 - overlap / (probability.sum(dim=1) + truth.sum(dim=1) + 1)).mean(),
        "classes": F.cross_entropy(class_logits.float().flatten(0, 1), classes.flatten()) / class_logits.shape[2],
    }
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}
