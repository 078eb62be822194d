"""Predict the steps of one image, each with a class, a probability and a mask, and the label map they form together.

The network gets the image at the size it was trained for; its logits are resized to the image's own size *before* any
threshold or argmax, so that edges do not follow the network's coarse grid.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recseg.data.images import MOST_PIXELS, MOST_PIXELS_TILED
from recseg.data.transforms import resize, resize_short_side
from recseg.errors import RecsegError
from recseg.inference.mode import inference_mode
from recseg.inference.prediction import ImageLike, Prediction, as_image
from recseg.inference.steps import Output, Sequence, to_prediction
from recseg.inference.tiling import predict_tiles, tile_side
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput


def predict(
    image: ImageLike, model: SegmentationModel, *, device: torch.device | str | None = None, tile: bool | int = False
) -> Prediction:
    """Segment one image.

    Args:
        image: path, Pillow image, RGB array (H, W, 3) or tensor (3, H, W), uint8 or floats in [0, 1].
        model: from `recseg.load`, or any of the three networks with `classes` and `image_size` set.
        device: where to run; by default where the model is.
        tile: split the image into overlapping windows and predict each, for images much larger than the network's own
            size: the side of a window in pixels, or True for the network's own size. See `recseg.inference.tiling`.

    Returns:
        Steps and label map at the image's own size, whatever size the network works at.

    Threads may share a network, in `eval()` or in training mode.

    Raises:
        RecsegError: an image that cannot be read, non-finite outputs, or a network that another thread puts into
            training mode in the meantime.
    """
    rgb = as_image(image, most_pixels=MOST_PIXELS_TILED if tile else MOST_PIXELS)
    if device is not None:
        model.to(device)
    with inference_mode(model) as network:

        def ask(part: Image.Image) -> Output:
            return to_arrays(network(prepare(part, network).unsqueeze(0)))  # (1, 3, h, w)

        if tile:
            return predict_tiles(rgb, tile_side(tile, model.input_size or model.image_size), ask, model.legend)
        return to_prediction(ask(rgb), (rgb.height, rgb.width), model.legend)


def prepare(image: Image.Image, model: SegmentationModel) -> Tensor:
    """The image as the model takes it: (3, h, w) in [0, 1], on the device and in the precision of its weights.

    Most networks take any shape, so only the short side is set; a network with an `input_size` takes that square only.
    """
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)  # (3, H, W) uint8
    if model.input_size is not None:
        pixels = resize(pixels, model.input_size, model.input_size)  # (3, s, s)
    elif model.image_size is not None:
        pixels = resize_short_side(pixels, model.image_size)  # (3, h, w)
    weight = next(model.parameters())
    return (pixels.float() / 255).to(weight.device, weight.dtype)


def to_arrays(output: RecurrentOutput | Tensor) -> Output:
    """The output of any network for a batch of one image, as `recseg.inference.steps` takes it.

    Args:
        output: of a recurrent network, or logits (1, num_classes, h, w) of a dense one.

    Raises:
        RecsegError: the output is not finite.
    """
    parts = output.split()[0] if isinstance(output, RecurrentOutput) else (output[0],)
    arrays = [part.float().cpu().numpy() for part in parts]
    if not all(np.isfinite(values).all() for values in arrays):
        raise RecsegError("the output of the network is not finite; train it with a lower --lr")
    return Sequence(arrays[0], arrays[1], arrays[2].tolist()) if len(arrays) == 3 else arrays[0]
