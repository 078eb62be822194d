"""The training objective: which loss is minimised, for each kind of network and each phase of training."""

from torch import Tensor, nn

from recseg.models.baseline import PublishedNetwork, published_loss
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.training.config import TrainConfig
from recseg.training.losses import dense_loss, recurrent_loss
from recseg.training.targets import to_sequence


def compute_loss(
    model: SegmentationModel, images: Tensor, labels: Tensor, lengths: Tensor, config: TrainConfig, done: float = 1.0
) -> dict[str, Tensor]:
    """Loss terms of a batch.

    Args:
        model: to train.
        images: (B, 3, S, S) in [0, 1].
        labels: (B, S, S) ground truth.
        lengths: (B,) number of classes of each image, on the CPU.
        config: of the run, resolved.
        done: share of the budget that is used up.
    """
    assert config.pixels_first is not None  # resolved
    if isinstance(model, PublishedNetwork):
        masks, classes = model.forward_all(images)
        sequence = to_sequence(labels, model.max_steps, num_classes=model.num_classes, order="class")
        return published_loss(masks, classes, sequence.masks, sequence.classes, lengths.clamp(max=model.max_steps))
    assert isinstance(model, UNet | RecurrentUNet)
    if isinstance(model, UNet) or done < config.pixels_first:
        return dense_loss(model.pixel_logits(images), labels)
    output = model(images, lengths)
    return recurrent_loss(output, labels, num_classes=model.num_classes, max_steps=model.max_steps, order=config.order)


class Objective(nn.Module):
    """`compute_loss` as a module, so that DistributedDataParallel sees every parameter that gets a gradient."""

    def __init__(self, model: SegmentationModel, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, images: Tensor, labels: Tensor, lengths: Tensor, done: float) -> dict[str, Tensor]:
        return compute_loss(self.model, images, labels, lengths, self.config, done)
