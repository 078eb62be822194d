"""From one image to its steps: a class, a probability and a mask each, and the label map that they make together.

The network sees the image at the size it was trained for; its logits are stretched back to the image's own size
*before* any threshold or argmax, so edges fall between pixels instead of on the network's coarse grid.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from recseg.classes import Legend
from recseg.data.transforms import resize_short_side
from recseg.inference.mode import inference_mode
from recseg.inference.prediction import Picture as Picture
from recseg.inference.prediction import Prediction as Prediction
from recseg.inference.prediction import Step as Step
from recseg.inference.prediction import as_image as as_image
from recseg.inference.steps import from_pixels, from_steps
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput


def predict(image: Picture, model: SegmentationModel, *, device: torch.device | str | None = None) -> Prediction:
    """Segment one image.

    Args:
        image: path, Pillow image, uint8 array (H, W, 3) or tensor (3, H, W); floats in [0, 1] do as well.
        model: from `recseg.load`, or any of the three networks with `classes` and `image_size` set.
        device: where to run; by default where the model is.

    Returns:
        Steps and label map at the image's own size, whatever size the network works at.
    """
    picture = as_image(image)
    if device is not None:
        model.to(device)
    size = (picture.height, picture.width)
    with inference_mode(model):
        output = model(prepare(picture, model).unsqueeze(0))  # (1, 3, h, w)
        return to_prediction(output, size, model.legend)


def prepare(picture: Image.Image, model: SegmentationModel) -> Tensor:
    """The image as the model wants it: (3, h, w) floats in [0, 1] on the model's device.

    Most networks take any shape, so only the short side is set; one with an `input_size` wants that fixed square.
    """
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)  # (3, H, W) uint8
    if model.input_size is not None:
        pixels = resize(pixels, [model.input_size, model.input_size], antialias=True)  # (3, s, s)
    elif model.image_size is not None:
        pixels = resize_short_side(pixels, model.image_size).as_subclass(Tensor)  # (3, h, w)
    return (pixels.float() / 255).to(next(model.parameters()).device)


def to_prediction(
    output: RecurrentOutput | Tensor, size: tuple[int, int], legend: Legend, threshold: float = 0.5
) -> Prediction:
    """The prediction for one image from what any network gave for a batch of it alone.

    Args:
        output: of a recurrent network, or logits (1, num_classes, h, w) of a dense one.
        size: (H, W) of the image.
        legend: of the labels.
        threshold: probability from which on a pixel belongs to a step's mask.
    """
    if isinstance(output, RecurrentOutput):
        masks, classes, stop = (part.float().cpu().numpy() for part in output.split()[0])
        return from_steps(masks, classes, stop.tolist(), size, legend, threshold=threshold)
    return from_pixels(output[0].float().cpu().numpy(), size, legend)
