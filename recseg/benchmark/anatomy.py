"""Time of the parts of a forward pass, to explain the ratios that the benchmark measures."""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.benchmark.networks import forward, random_images
from recseg.benchmark.parts import Found, Setting
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet


def anatomy(setting: Setting) -> Found:
    """Milliseconds of the parts of a forward pass in 32 bits, for a batch of 1 and of 16 images with one class each.

    Each part is run separately on the output of the one before, so the parts add up to a little less than the whole.
    """
    dense, model = setting.make("dense"), setting.make("recurrent")
    assert isinstance(dense, UNet) and isinstance(model, RecurrentUNet)
    result = {}
    for batch in (1, 16):
        images = random_images(batch, setting.side, setting.device)
        with torch.inference_mode():
            times = setting.times(parts_of(dense, model, images))
        result[f"batch_{batch}"] = {name: round(1000 * statistics.median(row), 3) for name, row in times.items()}
    return result, []


def parts_of(dense: UNet, model: RecurrentUNet, images: Tensor) -> dict[str, Callable[[], object]]:
    """The parts of a dense and a recurrent network as functions to time, each on the output of those before it."""
    batch, size = len(images), images.shape[-2:]
    maps = model.encoder(images)
    features = model.encode(images)
    state, output = model.step(features, model.initial_state(features))
    masks, embedding = output.mask.unsqueeze(1), features.embedding
    logits = dense.classifier(embedding)
    return {
        "encoder": lambda: model.encoder(images),
        "decoder": lambda: model.decoder(maps),
        "encoder, decoder, input of the recurrence and its gates": lambda: model.encode(images),
        "ConvLSTM of a step": lambda: model.cell.step(features.gates, (state.h, state.c)),
        "a whole step: ConvLSTM, stop, class and mask": lambda: model.step(features, state),
        "mask to full size": lambda: F.interpolate(masks, size=size, mode="bilinear"),
        "dense: map of each class": lambda: dense.classifier(embedding),
        "dense: maps to full size": lambda: F.interpolate(logits, size=size, mode="bilinear"),
        "recurrent, whole": forward("recurrent", model, images, [1] * batch),
        "dense, whole": forward("dense", dense, images, [1] * batch),
    }
