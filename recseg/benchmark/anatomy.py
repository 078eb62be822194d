"""Where the time of one picture goes, part by part: what a ratio that is missed is made of."""

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recseg.benchmark.networks import forward, random_images
from recseg.benchmark.parts import Found, Setting
from recseg.models.feedback import Claims


def anatomy(setting: Setting) -> Found:
    """Milliseconds of the parts of a forward pass in 32 bits, for one picture with one class and for sixteen of them.

    Each part runs by itself on what the part before left, so the parts add up to a little less than the whole.
    """
    dense, model = setting.make("dense"), setting.make("recurrent")
    result = {}
    for batch in (1, 16):
        images = random_images(batch, setting.side, setting.device)
        with torch.inference_mode():
            acts = parts_of(dense, model, images)
        times = setting.times({name: _without_gradients(act) for name, act in acts.items()})
        result[f"batch_{batch}"] = {name: round(1000 * statistics.median(row), 3) for name, row in times.items()}
    return result, []


def parts_of(dense: Any, model: Any, images: Tensor) -> dict[str, Callable[[], object]]:
    """The parts of a dense and a recurrent network as acts, each on what the parts before it leave."""
    batch, size = len(images), images.shape[-2:]
    features, projected = model._encode(images)
    embedding = model.decoder(features[-1], projected)
    gates, deepest = model.recurrence_input(features, embedding)
    claims = Claims(model.head, embedding, deepest, model.config.feedback)
    state = model.cell.step(gates, None)
    summary = model._summarise(state[0], claims.remaining())
    masks = claims.read(state[0], summary).masks.unsqueeze(1)
    maps = dense.classifier(embedding)
    return {
        "encoder": lambda: model.encoder(images),
        "decoder": lambda: model.decoder(features[-1], model._skips(features)),
        "input of the recurrence, and its gates": lambda: model.recurrence_input(features, embedding),
        "first turn of the ConvLSTM": lambda: model.cell.step(gates, None),
        "each further turn": lambda: model.cell.step(gates, state),
        "summary and stop of a turn": lambda: model.stop(model._summarise(state[0], claims.remaining())),
        "claim, class and mask of a step": lambda: claims.read(state[0], summary),
        "mask to full size": lambda: F.interpolate(masks, size=size, mode="bilinear"),
        "dense: map of each class": lambda: dense.classifier(embedding),
        "dense: maps to full size": lambda: F.interpolate(maps, size=size, mode="bilinear"),
        "recurrent, whole": forward("recurrent", model, images, [1] * batch),
        "dense, whole": forward("dense", dense, images, [1] * batch),
    }


def _without_gradients(act: Callable[[], object]) -> Callable[[], object]:
    def quietly() -> object:
        with torch.inference_mode():
            return act()

    return quietly
