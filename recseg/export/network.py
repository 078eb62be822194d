"""An exported network as a module, so that it can be scored by the same code as the original."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recseg.export.runtime import OnnxModel
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput, live_pairs


class OnnxNetwork(SegmentationModel):
    """`OnnxModel` with tensors as inputs: images (B, 3, H, W) in [0, 1], run one by one on the CPU.

    Masks and logits have the network's own resolution.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.onnx = OnnxModel(path, threads=torch.get_num_threads())
        self.kind = self.onnx.kind  # type: ignore[misc]  # of the network that was exported
        self.classes, self.image_size = self.onnx.classes, self.onnx.image_size
        self.num_classes = len(self.classes)
        self.metadata = {"onnx": Path(path).name, "legend": self.onnx.legend.to_dict()}
        self.register_parameter("dummy", nn.Parameter(torch.zeros(()), requires_grad=False))  # marks the device

    def forward(self, images: Tensor) -> RecurrentOutput | Tensor:
        """The output of a recurrent network, or logits (B, num_classes, h, w) of a dense one."""
        arrays, size = images.float().cpu().numpy(), (images.shape[-2], images.shape[-1])
        if self.kind == "dense":
            return torch.from_numpy(np.concatenate([self.onnx.pixel_logits(array[None]) for array in arrays]))
        found = [self.onnx.sequence(array[None]) for array in arrays]
        lengths = torch.tensor([len(sequence.masks) for sequence in found])
        steps = max(len(sequence.stops) for sequence in found)
        stop = torch.full((len(found), steps), 30.0)  # after a sequence's end: surely stopped, yet finite
        for row, sequence in zip(stop, found, strict=True):
            row[: len(sequence.stops)] = torch.tensor(sequence.stops)
        masks, classes = (
            torch.from_numpy(np.concatenate(parts))
            for parts in ([sequence.masks for sequence in found], [sequence.classes for sequence in found])
        )
        return RecurrentOutput(masks, classes, stop, *live_pairs(lengths), lengths, None, size)
