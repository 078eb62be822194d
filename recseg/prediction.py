"""From one picture to its steps: a class, a probability and a mask each, and the label map that they make together.

The network sees the picture at the size it was trained for; its logits are stretched back to the picture's own size
*before* any threshold or argmax, so edges fall between pixels instead of on the network's coarse grid.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from recseg.classes import palette
from recseg.data.images import read_image
from recseg.data.transforms import resize_short_side
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.fusion import fuse
from recseg.metrics import SMALLEST_AREA
from recseg.recurrent_unet import RecurrentOutput

Picture = Image.Image | str | os.PathLike[str] | NDArray[Any] | Tensor


@dataclass(frozen=True)
class Step:
    """One step of the sequence.

    Attributes:
        class_id: label, 1 … number of classes − 1 (0 is background, which no step names).
        name: the label's name.
        probability: of the class. A dense network has no steps: there it is the mean over the class's pixels.
        stop_probability: that the sequence had ended before this step; None where the network learns no stop.
        mask: (H, W) bool at the picture's size.
        area: share of the picture that the mask covers, 0 … 1.
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
    """What a network says of one picture.

    Attributes:
        steps: in the network's own order (a dense network's classes by decreasing area).
        labels: (H, W) uint8 at the picture's size, the steps fused into one label map.
        palette: (256, 3) uint8, the colour of each label.
        stop_probability: of the stop that ended the sequence; None if all steps ran or the network learns no stop.
    """

    steps: list[Step]
    labels: NDArray[np.uint8]
    palette: NDArray[np.uint8]
    stop_probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Steps and size, ready for JSON; the masks stay behind."""
        height, width = self.labels.shape
        return {
            "height": height,
            "width": width,
            "steps": [step.to_dict() for step in self.steps],
            "stop_probability": None if self.stop_probability is None else round(self.stop_probability, 6),
        }

    def save_labels(self, path: Path | str) -> None:
        """Write the label map as an indexed PNG: a pixel's value is its label, the palette only shows it."""
        indexed = Image.fromarray(self.labels)
        indexed.putpalette(self.palette.tobytes())
        with atomic_write(path) as temporary:
            indexed.save(temporary, format="PNG", optimize=True)


def as_image(image: Picture) -> Image.Image:
    """RGB picture of a path, a Pillow image, an array (H, W[, 3 or 4]) or a tensor (3, H, W).

    Arrays and tensors hold uint8, or floats in [0, 1].
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise RecsegError(f"image tensor of shape {tuple(image.shape)}: expected (3, H, W)")
        image = image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu().numpy()
        image = np.moveaxis(image, 0, -1)  # (H, W, 3)
        image = image[..., 0] if image.shape[-1] == 1 else image
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or pixels.size == 0:
        raise RecsegError(f"image array of shape {pixels.shape}: expected (H, W) or (H, W, 3)")
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise RecsegError("image of floats: expected values in [0, 1]")
        pixels = np.round(pixels * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise RecsegError(f"image of {pixels.dtype}: expected uint8, or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def predict(image: Picture, model: nn.Module, *, device: torch.device | str | None = None) -> Prediction:
    """Segment one picture.

    Args:
        image: path, Pillow image, uint8 array (H, W, 3) or tensor (3, H, W); floats in [0, 1] do as well.
        model: from `recseg.load`, or any of the three networks with `classes` and `image_size` set.
        device: where to run; by default where the model is.

    Returns:
        Steps and label map at the picture's own size, whatever size the network works at.
    """
    picture = as_image(image)
    if device is not None:
        model.to(device)
    size = (picture.height, picture.width)
    training = model.training
    model.eval()  # batch statistics and dropout of a training run are no part of an answer
    try:
        with torch.inference_mode():
            output = model(prepare(picture, model).unsqueeze(0))  # (1, 3, h, w)
            if isinstance(output, RecurrentOutput):
                return _from_sequence(output, size, _names(model))
            return _from_pixels(output, size, _names(model))
    finally:
        model.train(training)


def prepare(picture: Image.Image, model: nn.Module) -> Tensor:
    """The picture as the model wants it: (3, h, w) floats in [0, 1] on the model's device.

    Most networks take any shape, so only the short side is set; one with an `input_size` wants that fixed square.
    """
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)  # (3, H, W) uint8
    fixed, short = getattr(model, "input_size", None), getattr(model, "image_size", None)
    if fixed is not None:
        pixels = resize(pixels, [fixed, fixed], antialias=True)  # (3, s, s)
    elif short is not None:
        pixels = resize_short_side(pixels, short).as_subclass(Tensor)  # (3, h, w)
    return (pixels.float() / 255).to(next(model.parameters()).device)


def _names(model: nn.Module) -> tuple[str, ...]:
    return tuple(getattr(model, "classes", ()))


def _name(names: tuple[str, ...], label: int) -> str:
    return names[label] if label < len(names) else f"class {label}"


def _from_sequence(output: RecurrentOutput, size: tuple[int, int], names: tuple[str, ...]) -> Prediction:
    labels = fuse(output, size=size)[0]  # (H, W)
    stops = output.stop[0].float().sigmoid().tolist()  # (T,)
    steps: list[Step] = []
    for pair, step in enumerate(output.step.tolist()):
        logits = F.interpolate(output.masks[pair][None, None].float(), size, mode="bilinear", align_corners=False)
        mask = (logits[0, 0] > 0).cpu().numpy()  # (H, W)
        probability, column = output.classes[pair].float().softmax(-1).max(-1)
        label = int(column) + 1  # column k is label k + 1: no step names background
        steps.append(Step(label, _name(names, label), float(probability), stops[step], mask, float(mask.mean())))
    end = stops[len(steps)] if len(steps) < len(stops) else None
    return Prediction(steps, labels.to(torch.uint8).cpu().numpy(), palette(), end)


def _from_pixels(logits: Tensor, size: tuple[int, int], names: tuple[str, ...]) -> Prediction:
    """A dense network's logits (1, C, h, w). One class at a time: C planes at a camera's size would fill the memory."""
    best = torch.full(size, -torch.inf, device=logits.device)  # (H, W)
    total = best.clone()
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for label in range(logits.shape[1]):
        plane = F.interpolate(logits[:, label : label + 1].float(), size, mode="bilinear", align_corners=False)[0, 0]
        labels[plane > best] = label
        best = torch.maximum(best, plane)
        total = torch.logaddexp(total, plane)
    confidence = (best - total).exp().cpu().numpy()  # (H, W) softmax of the winner
    final = labels.cpu().numpy()
    steps: list[Step] = []
    for label in range(1, logits.shape[1]):
        mask = final == label
        area = float(mask.mean())
        if area >= SMALLEST_AREA:
            steps.append(Step(label, _name(names, label), float(confidence[mask].mean()), None, mask, area))
    steps.sort(key=lambda step: -step.area)
    return Prediction(steps, final, palette())
