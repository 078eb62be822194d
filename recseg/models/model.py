"""What every network of this package is to the code that trains, scores, saves and shows it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from recseg.classes import Legend, has_background


class SegmentationModel(nn.Module):
    """A network that takes images (B, 3, H, W) in [0, 1] and gives a `RecurrentOutput`, or logits (B, K, h, w).

    Attributes:
        kind: name of the network's kind in weight files.
        class_rows: tensors that have a row for each class, by name: the label of their first row.
        config: what it is made of, a dataclass of plain values; None where that is not known.
        num_classes: labels, background included.
        classes: names of the labels, background first; none before a training or a file gives them. Where the first is
            `recseg.classes.NO_BACKGROUND`, every pixel belongs to some class.
        image_size: short side in pixels that images are resized to; None takes them as they are.
        input_size: side of the square that they are resized to instead, for a network that takes one size only.
        metadata: where the weights come from.
    """

    kind: ClassVar[str]
    class_rows: ClassVar[dict[str, int]]
    config: Any = None
    num_classes: int
    classes: tuple[str, ...] = ()
    image_size: int | None = None
    input_size: int | None = None
    metadata: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {}

    @property
    def has_background(self) -> bool:
        """Whether a pixel may belong to none of the classes."""
        return has_background(self.classes)

    @property
    def legend(self) -> Legend:
        """What stands for each label in the data that the network learned from."""
        return Legend.from_dict(self.classes, self.metadata.get("legend"))

    def pixel_logits(self, images: Tensor) -> Tensor | None:
        """(B, 3, H, W) → (B, num_classes, h, w) of the per-pixel classifier; None: this network has none."""
        return None
