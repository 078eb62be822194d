"""An exported network as a module, so that what scores a network scores its export by the same rules."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.onnx_model import OnnxModel, rounded_shape
from recseg.recurrent_unet import ENDED, RecurrentOutput, live_pairs


class OnnxNetwork(nn.Module):
    """`OnnxModel`, asked with tensors: images (B, 3, H, W) in [0, 1], one by one, on the CPU.

    The sides become multiples of 32 first; masks and logits come at the resolution that follows from that.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.onnx = OnnxModel(path, threads=torch.get_num_threads())
        self.kind, self.classes, self.image_size = self.onnx.kind, self.onnx.classes, self.onnx.image_size
        self.num_classes = len(self.classes)
        self.metadata = {"onnx": Path(path).name}
        self.register_parameter("place", nn.Parameter(torch.zeros(()), requires_grad=False))  # says: on the CPU

    def forward(self, images: Tensor) -> RecurrentOutput | Tensor:
        """The output of a recurrent network, or logits (B, num_classes, h, w) of a dense one."""
        height, width = images.shape[-2:]
        shape = rounded_shape(height, width, min(height, width))
        pixels = F.interpolate(images, shape, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
        arrays = pixels.float().numpy()
        if self.kind == "dense":
            return torch.from_numpy(np.concatenate([self.onnx.pixel_logits(array[None]) for array in arrays]))
        found = [self.onnx.sequence(array[None]) for array in arrays]
        lengths = torch.tensor([len(sequence.masks) for sequence in found])
        steps = max(len(sequence.stops) for sequence in found)
        stop = torch.full((len(found), steps), ENDED)
        for row, sequence in zip(stop, found, strict=True):
            row[: len(sequence.stops)] = torch.tensor(sequence.stops)
        masks, classes = (
            torch.from_numpy(np.concatenate(parts))
            for parts in ([sequence.masks for sequence in found], [sequence.classes for sequence in found])
        )
        return RecurrentOutput(masks, classes, stop, *live_pairs(lengths), lengths, None, (height, width))
