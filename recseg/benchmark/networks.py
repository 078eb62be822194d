"""The networks compared: an encoder, a dense and a recurrent U-Net, the published network; all give full-size logits.

Weights are random, since time does not depend on them. The number of steps would, so the recurrent models are given the
number of classes in each image, as in training, and run that many steps and the one that stops.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.models.baseline import PublishedNetwork
from recseg.models.config import RecurrentUNetConfig
from recseg.training.config import TrainConfig, build_model, resolve

CONTESTANTS = ("encoder", "dense", "recurrent", "published")
# Number of images in VOC 2012's training list with 1, 2 … 5 classes.
VOC_MIX = (933, 383, 124, 21, 3)


def voc_lengths(batch: int) -> list[int]:
    """Number of classes in each image of a batch, distributed as in VOC (largest remainder method)."""
    shares = [batch * count / sum(VOC_MIX) for count in VOC_MIX]
    counts = [int(share) for share in shares]
    remainders = sorted(range(len(shares)), key=lambda k: counts[k] - shares[k])
    for k in remainders[: batch - sum(counts)]:
        counts[k] += 1
    return [k + 1 for k, count in enumerate(counts) for _ in range(count)]


def contestants(side: int) -> tuple[str, ...]:
    """The contestants that take images of this size; the published network's class head does not take small ones."""
    return CONTESTANTS if side >= 160 and side % 16 == 0 else CONTESTANTS[:-1]


def contestant_config(name: str, network: RecurrentUNetConfig | None = None, **options: Any) -> TrainConfig:
    """The configuration as of `recseg train`; for the encoder alone, that of the dense baseline."""
    kind = "dense" if name == "encoder" else name
    return resolve(TrainConfig("voc", model=kind, network=network or RecurrentUNetConfig(), **options))


def build(
    name: str,
    *,
    encoder: str = "mobilenet_v2",
    num_classes: int = 21,
    side: int = 256,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """An untrained contestant, as `recseg train` would build it."""
    network = RecurrentUNetConfig(num_classes=num_classes, encoder="plain" if name == "published" else encoder)
    torch.manual_seed(0)
    model: nn.Module = build_model(contestant_config(name, network, size=side))
    if name == "encoder":
        model = model.get_submodule("encoder")
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,unused-ignore,no-any-return]


def full_size(name: str, model: nn.Module, images: Tensor, lengths: Tensor) -> Any:
    """One forward pass: images (B, 3, H, W), lengths (B,) → all logits at (H, W), or the encoder's features."""
    if name in ("encoder", "dense"):
        return model(images)
    if isinstance(model, PublishedNetwork):
        return model.forward_all(images)
    output = model(images, lengths)
    masks = F.interpolate(output.masks.unsqueeze(1), size=images.shape[-2:], mode="bilinear", align_corners=False)
    return masks.squeeze(1), output.classes, output.stop  # (P, H, W), (P, C), (B, T)


def forward(
    name: str, model: nn.Module, images: Tensor, lengths: Sequence[int], precision: torch.dtype | None = None
) -> Callable[[], Any]:
    """`full_size` as a function to time, in inference mode; under autocast if `precision` is given."""
    device = images.device
    steps = torch.tensor(lengths)

    def act() -> Any:
        with torch.inference_mode(), torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            return full_size(name, model, images, steps)

    return act


def output_bytes(result: Any) -> int:
    """Bytes of all tensors of an output."""
    if isinstance(result, Tensor):
        return result.numel() * result.element_size()
    return sum(output_bytes(part) for part in result)


def random_images(batch: int, side: int, device: torch.device | str = "cpu") -> Tensor:
    """(B, 3, S, S) noise in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, side, side, generator=generator)
    return images.to(device).contiguous(memory_format=torch.channels_last)


def random_labels(lengths: Sequence[int], side: int, num_classes: int, device: torch.device | str = "cpu") -> Tensor:
    """(B, S, S) label maps: stripes, as many as each image has classes, on background."""
    labels = torch.zeros(len(lengths), side, side, dtype=torch.long)
    for image, count in enumerate(lengths):
        for k in range(count):
            labels[image, :, k * side // 8 : (k + 1) * side // 8] = 1 + (image + k) % (num_classes - 1)
    return labels.to(device)
