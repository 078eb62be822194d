"""What a training minimises: which of the losses, for each kind of network and each part of the budget."""

from typing import Any

from torch import Tensor

from recseg.training.config import TrainConfig
from recseg.training.losses import dense_loss, recurrent_loss
from recseg.training.targets import class_areas, to_sequence


def loss_of(model: Any, images: Tensor, labels: Tensor, config: TrainConfig, done: float = 1.0) -> dict[str, Tensor]:
    """Loss terms of a batch: images (B, 3, S, S) in [0, 1], labels (B, S, S); `done`: share of the budget used."""
    assert config.pixels_first is not None  # resolved
    pixels_only = model.kind == "recurrent" and done < config.pixels_first
    if model.kind == "dense" or pixels_only:
        return dense_loss(model.pixel_logits(images), labels)
    if model.kind == "published":
        from recseg.models.baseline import published_loss

        masks, classes = model.forward_all(images)
        sequence = to_sequence(labels, model.max_steps, num_classes=model.num_classes, order="class")
        return published_loss(masks, classes, sequence.masks, sequence.classes, sequence.lengths)
    present = (class_areas(labels, model.num_classes)[:, 1:] > 0).sum(dim=1)  # (B,)
    lengths = present.clamp(max=model.max_steps)
    output = model(images, lengths)
    if config.auxiliary == "none":
        output = output._replace(pixels=None)
    return recurrent_loss(output, labels, num_classes=model.num_classes, max_steps=model.max_steps, order=config.order)
