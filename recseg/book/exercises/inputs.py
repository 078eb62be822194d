"""Inputs shared by several exercises: label maps that cover the usual pitfalls."""

import torch
from torch import Tensor

from recseg.classes import VOID


def label_maps(*, void: bool = True) -> dict[str, Tensor]:
    """Label maps (7, 9) with VOC's 21 labels, by their names in messages."""
    draw = torch.Generator().manual_seed(0)

    def noise(*labels: int) -> Tensor:
        values = torch.tensor(labels)
        return values[torch.randint(len(labels), (7, 9), generator=draw)]

    maps = {
        "a map of four classes": noise(0, 3, 7, 15, 20),
        "a map of one class without background": noise(8),
        "a map that is all background": noise(0),
        "a map of a cat and a dog": noise(0, 0, 8, 12),
    }
    if void:
        maps["a map with void pixels"] = noise(0, 0, 1, 15, VOID)
        maps["a map without background, with void"] = noise(5, 9, 12, VOID)
        maps["a map that is all void"] = noise(VOID)
    return maps
