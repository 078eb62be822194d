"""The interface through which all networks of this package are trained, scored, saved and shown."""

from typing import Any, ClassVar

from torch import Tensor, nn

from recseg.classes import Legend, has_background


class SegmentationModel(nn.Module):
    """A network that takes images (B, 3, H, W) in [0, 1] and returns a `RecurrentOutput`, or logits (B, K, h, w).

    Attributes:
        kind: name of the network's kind in weight files.
        class_rows: tensors with a row for each class: their names, with the label of the first row.
        config: configuration, a dataclass of plain values; None if unknown.
        num_classes: number of labels, background included.
        classes: names of the labels, background first; empty until set by training or by a weight file. If the first is
            `recseg.classes.NO_BACKGROUND`, every pixel belongs to some class.
        image_size: short side in pixels that images are resized to; None: images are not resized.
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
        """Name, mask value and colour of each label in the data that the network was trained on."""
        return Legend.from_dict(self.classes, self.metadata.get("legend"))

    def pixel_logits(self, images: Tensor) -> Tensor | None:
        """(B, 3, H, W) → (B, num_classes, h, w) of the per-pixel classifier; None if the network has none."""
        return None
