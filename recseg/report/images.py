"""Images of a report: the image, its ground truth, the prediction, and the mask of each step."""

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recseg.classes import BACKGROUND, VOID
from recseg.data.folder import SegmentationFolder
from recseg.inference.predict import predict
from recseg.models.model import SegmentationModel
from recseg.viz.plotting import describe, overlay

SIDE = 240  # pixels of the longer side
MOST_STEPS = 12


def panels(model: SegmentationModel, dataset: SegmentationFolder, name: str) -> str:
    """The image with this id, its ground truth, the prediction and its steps, each as a `<figure>`.

    Raises:
        RecsegError: the image cannot be read.
    """
    index, palette = dataset.ids.index(name), dataset.legend.palette
    rgb = Image.fromarray(dataset.pixels(index))
    truth, found = dataset.labels(index), predict(rgb, model)
    small = rgb.copy()
    small.thumbnail((SIDE, SIDE))
    grey = Image.blend(small.convert("L").convert("RGB"), Image.new("RGB", small.size, "white"), 0.45)
    held = [dataset.classes[label] for label in np.unique(truth).tolist() if label not in (BACKGROUND, VOID)]
    words = f"ground truth: {', '.join(held) or 'only background'}"
    true, given = (overlay(small, _shrunk(labels, small), palette) for labels in (truth, found.labels))
    shown = [
        _figure(small, "image", f"the image {name}"),
        _figure(true, words, f"{name}, {words}"),
        _figure(given, "prediction", f"{name}, prediction in {describe(found)}"),
    ]
    for number, step in enumerate(found.steps[:MOST_STEPS], 1):
        mask = _shrunk(np.where(step.mask, step.class_id, 0).astype(np.uint8), small)
        words = f"{number}: {step.name} {step.probability:.0%}"
        alt = f"{name}, step {words}, its mask covers {step.area:.0%} of the image"
        shown.append(_figure(overlay(grey, mask, palette, alpha=0.7), words, alt))
    return "".join(shown)


def _figure(image: Image.Image, caption: str, alt: str) -> str:
    """A `<figure>` with the image embedded as a compact WebP."""
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=72, method=4)
    data = base64.b64encode(stream.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    tag = f'<img src="data:image/webp;base64,{data}" alt="{escape(alt)}" {size} loading="lazy">'
    return f"<figure>{tag}<figcaption>{escape(caption)}</figcaption></figure>"


def _shrunk(labels: NDArray[np.uint8], image: Image.Image) -> NDArray[np.uint8]:
    """A label map (H, W), resized to a smaller image."""
    return np.asarray(Image.fromarray(labels).resize(image.size, Image.Resampling.NEAREST))
