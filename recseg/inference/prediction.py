"""The prediction for one image: its steps, each a class and a mask, and the label map they form together.

No torch here: a prediction can be made, drawn and saved with ONNX Runtime alone.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recseg.data.images import MOST_PIXELS, as_rgb, read_image
from recseg.errors import RecsegError
from recseg.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

ImageLike: TypeAlias = "Image.Image | str | os.PathLike[str] | NDArray[Any] | Tensor"


@dataclass(frozen=True)
class Step:
    """One step of the sequence.

    Attributes:
        class_id: label, 1 … number of classes − 1 (0 is background, which no step names).
        name: the label's name.
        probability: of the class; for a dense network, which has no steps, the mean over the pixels of the class.
        stop_probability: that the sequence ended before this step; None if the network has no learned stop.
        mask: (H, W) bool at the image's size.
        area: share of the image that the mask covers, 0 … 1.
    """

    class_id: int
    name: str
    probability: float
    stop_probability: float | None
    mask: NDArray[np.bool_]
    area: float

    def to_dict(self) -> dict[str, Any]:
        """Everything but the mask, ready for JSON."""
        return {
            "class": self.name,
            "class_id": self.class_id,
            "probability": round(self.probability, 6),
            "stop_probability": None if self.stop_probability is None else round(self.stop_probability, 6),
            "area": round(self.area, 6),
        }


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        steps: in the network's own order (for a dense network, classes by decreasing area).
        labels: (H, W) uint8 at the image's size, the steps fused into one label map.
        palette: (256, 3) uint8, the colour of each label.
        stop_probability: of the stop that ended the sequence; None if all steps ran or there is no learned stop.
        values: (number of labels,) uint8, the value of each label in the data's masks; None: the label itself, as in
            VOC.
    """

    steps: list[Step]
    labels: NDArray[np.uint8]
    palette: NDArray[np.uint8]
    stop_probability: float | None = None
    values: NDArray[np.uint8] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Steps and size, without the masks, ready for JSON."""
        height, width = self.labels.shape
        return {
            "height": height,
            "width": width,
            "steps": [step.to_dict() | {"class_id": self._value(step.class_id)} for step in self.steps],
            "stop_probability": None if self.stop_probability is None else round(self.stop_probability, 6),
        }

    def _value(self, label: int) -> int:
        return label if self.values is None else int(self.values[label])

    def save_labels(self, path: Path | str) -> None:
        """Write the label map as an indexed PNG with a palette, using the mask values of the training data."""
        values, colours = self.labels, self.palette.copy()
        if self.values is not None:
            values = self.values[self.labels]
            colours[self.values] = self.palette[: len(self.values)]  # the later of two labels with the same value wins
        indexed = Image.fromarray(values)
        indexed.putpalette(colours.tobytes())
        with atomic_write(path) as temporary:
            indexed.save(temporary, format="PNG", optimize=True)


def as_image(image: ImageLike, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Upright RGB image from a path, a Pillow image, an array (H, W[, 3 or 4]) or a tensor (1 or 3, H, W).

    Arrays and tensors hold RGB (convert OpenCV's BGR first), uint8 or floats in [0, 1]. However an image is passed, it
    is treated as `read_image` treats its file: rotated by its EXIF orientation, and composited over white where it is
    transparent. A file may have at most `most_pixels` pixels.
    """
    if isinstance(image, Image.Image):
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:  # opened lazily: truncated, or closed since
            raise RecsegError(f"image: cannot be read ({error})") from error
        return as_rgb(image, "image")
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, most_pixels=most_pixels)
    if hasattr(image, "requires_grad"):  # a tensor; checked without importing torch
        tensor: Any = image
        if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
            raise RecsegError(f"image tensor of shape {tuple(tensor.shape)}: expected (3, H, W)")
        tensor = tensor.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        array = np.moveaxis(array, 0, -1)  # (H, W, C)
        image = array[..., 0] if array.shape[-1] == 1 else array
    pixels = np.asarray(image)
    if pixels.dtype.kind in "OSU":
        raise RecsegError(f"image of type {type(image).__name__}: expected a path, Pillow image, array or tensor")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or pixels.size == 0:
        raise RecsegError(f"image array of shape {pixels.shape}: expected (H, W) or (H, W, 3)")
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise RecsegError("image of floats: expected values in [0, 1]")
        pixels = np.round(pixels * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise RecsegError(f"image of {pixels.dtype}: expected uint8, or floats in [0, 1]")
    return as_rgb(Image.fromarray(np.ascontiguousarray(pixels)), "image")
