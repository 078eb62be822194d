"""From one picture to its steps: a class, a probability and a mask each, and the label map that they make together.

The network sees the picture at the size it was trained for; its logits are stretched back to the picture's own size
*before* any threshold or argmax, so edges fall between pixels instead of on the network's coarse grid.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from recseg.classes import SMALLEST_AREA, palette
from recseg.data.transforms import resize_short_side
from recseg.inference.fusion import fuse
from recseg.inference.mode import in_use
from recseg.inference.prediction import Picture as Picture
from recseg.inference.prediction import Prediction as Prediction
from recseg.inference.prediction import Step as Step
from recseg.inference.prediction import as_image as as_image
from recseg.models.recurrent_unet import RecurrentOutput


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
    with in_use(model):
        output = model(prepare(picture, model).unsqueeze(0))  # (1, 3, h, w)
        if isinstance(output, RecurrentOutput):
            return from_sequence(output, size, names_of(model))
        return _from_pixels(output, size, names_of(model))


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


def names_of(model: nn.Module) -> tuple[str, ...]:
    """The labels' names, background first; none where a network has none."""
    return tuple(getattr(model, "classes", ()))


def _name(names: tuple[str, ...], label: int) -> str:
    return names[label] if label < len(names) else f"class {label}"


def from_sequence(
    output: RecurrentOutput, size: tuple[int, int], names: tuple[str, ...], threshold: float = 0.5
) -> Prediction:
    """The steps of one picture, at its own size (H, W); a pixel is in a mask from `threshold`, a probability, on."""
    bound = float(torch.tensor(threshold).logit())  # of one half: 0
    labels = fuse(output, size=size)[0]  # (H, W)
    stops = output.stop[0].float().sigmoid().tolist()  # (T,)
    steps: list[Step] = []
    for pair, step in enumerate(output.step.tolist()):
        logits = F.interpolate(output.masks[pair][None, None].float(), size, mode="bilinear", align_corners=False)
        mask = (logits[0, 0] > bound).cpu().numpy()  # (H, W)
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
