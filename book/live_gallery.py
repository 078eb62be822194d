"""The images of the live page and a network's steps for each, recorded when the book is built."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from live_graphs import compress
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recseg.book.photographs import photographs, side_by_side
from recseg.classes import BACKGROUND, VOID
from recseg.data import open_dataset
from recseg.inference.mode import inference_mode
from recseg.inference.predict import prepare
from recseg.models.unet import crop_padding, pad_to_stride

CLASSES_OF_DRAWINGS = (3, 2, 1, 2, 4)  # number in each drawn image
LONGEST = 900  # pixels, longest side of a photograph
CLIP = 12.0  # mask logits are clipped to ± this


class GalleryImage(NamedTuple):
    """An image of the gallery: file name without suffix, alt text, RGB, classes, labels (H, W) if known."""

    name: str
    title: str
    image: Image.Image
    classes: list[str]
    labels: NDArray[np.uint8] | None = None


def photographed() -> list[GalleryImage]:
    """Photographs, and some of them side by side; empty if scikit-image is not installed."""
    known = photographs()
    if not known:
        return []
    cat, astronaut, motorcycle = (known[name] for name in ("cat", "astronaut", "motorcycle"))
    shown = {
        "pair": side_by_side(astronaut, motorcycle), "cat": cat, "astronaut": astronaut, "motorcycle": motorcycle,
        "three": side_by_side(astronaut, cat, motorcycle),
    }  # fmt: skip
    return [GalleryImage(name, one.title, one.image, list(one.classes)) for name, one in shown.items()]


def drawn() -> list[GalleryImage]:
    """A few images of the embedded set that no network was trained on, with ground truth."""
    dataset = open_dataset("pictograms", "val")
    gallery: list[GalleryImage] = []
    wanted = iter(CLASSES_OF_DRAWINGS)
    count = next(wanted)
    for index in range(len(dataset)):
        labels = dataset.labels(index)
        names = [dataset.classes[label] for label in np.unique(labels) if label not in (BACKGROUND, VOID)]
        if len(names) != count:
            continue
        number = len(gallery) + 1
        title = f"Drawn image {number}: {', '.join(names)}"
        gallery.append(GalleryImage(f"drawn_{number}", title, Image.fromarray(dataset.pixels(index)), names, labels))
        if (count := next(wanted, 0)) == 0:
            break
    return gallery


def packed(plane: Tensor, largest: float) -> dict[str, Any]:
    """A map (h, w) within ± largest as 8-bit integers, for `recorded.mjs`."""
    scale = largest / 127
    numbers = (plane / scale).round().clamp(-127, 127).to(torch.int8)
    data = base64.b64encode(numbers.numpy().tobytes()).decode()
    return {"data": data, "height": numbers.shape[0], "width": numbers.shape[1], "scale": scale}


def record(model: Any, image: Image.Image) -> Iterator[dict[str, Any]]:
    """A recurrent network's steps for an image, ending with the stop: stop, class scores, mask, attention."""
    with inference_mode(model) as model:
        pixels = prepare(image, model).unsqueeze(0)  # (1, 3, h, w)
        size = (pixels.shape[-2], pixels.shape[-1])
        features = model.encode(pad_to_stride(pixels, model.encoder.strides[-1]))
        state = model.initial_state(features)
        for _ in range(model.max_steps):
            state, step = model.step(features, state)
            stop = float(step.stop)
            if stop > 0:
                yield {"stop": stop}
                return
            maps = torch.cat([step.mask, step.attention])  # (2, h', w')
            mask, attention = crop_padding(maps, size, model.decoder.stride)
            scores = [round(score, 4) for score in step.classes[0].tolist()]
            yield {"stop": stop, "scores": scores, "mask": packed(mask, CLIP), "attention": packed(attention, 1)}


def write_image(shown: GalleryImage, model: Any, network: str, folder: Path) -> dict[str, Any]:
    """Write an image, its ground truth and a network's steps into a folder; returns what the page needs to know."""
    image = shown.image.copy()
    image.thumbnail((LONGEST, LONGEST))
    # Drawings losslessly; photographs small: decoders differ by a grey level here and there.
    suffix, options = (".webp", {"quality": 90}) if shown.labels is None else (".png", {"optimize": True})
    stored = io.BytesIO()
    image.save(stored, suffix[1:], **options)
    (folder / f"{shown.name}{suffix}").write_bytes(stored.getvalue())
    steps = list(record(model, Image.open(stored).convert("RGB")))
    compress(json.dumps(steps).encode(), folder / f"{network}.{shown.name}.json.gz")
    about = {
        "file": f"{shown.name}{suffix}", "title": shown.title, "classes": shown.classes,
        "recorded": f"{network}.{shown.name}.json.gz",
    }  # fmt: skip
    if shown.labels is not None:
        truth = f"{shown.name}.truth.png"
        Image.fromarray(shown.labels).save(folder / truth, optimize=True)
        about["truth"] = truth
    return about
