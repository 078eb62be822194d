"""Images of a report: the image, its ground truth, what the network answers, and mask after mask how it got there."""

import base64
import io
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recseg.classes import VOID
from recseg.data.folder import SegmentationFolder
from recseg.inference.predict import predict
from recseg.inference.prediction import Prediction
from recseg.models.model import SegmentationModel
from recseg.viz.plotting import describe, overlay

SIDE = 240  # pixels of the longer side
MOST_STEPS = 12


@dataclass(frozen=True)
class Panel:
    """An image with its caption."""

    image: Image.Image
    caption: str
    alt: str

    def html(self) -> str:
        """A `<figure>` with the image inside, as a compact WebP."""
        stream = io.BytesIO()
        self.image.save(stream, format="WEBP", quality=72, method=4)
        data = base64.b64encode(stream.getvalue()).decode()
        size = f'width="{self.image.width}" height="{self.image.height}"'
        image = f'<img src="data:image/webp;base64,{data}" alt="{escape(self.alt)}" {size} loading="lazy">'
        return f"<figure>{image}<figcaption>{escape(self.caption)}</figcaption></figure>"


def panels(model: SegmentationModel, dataset: SegmentationFolder, name: str) -> list[Panel]:
    """The panels of the image of an id.

    Raises:
        RecsegError: it cannot be read.
    """
    index = dataset.ids.index(name)
    rgb = Image.fromarray(dataset.pixels(index))
    truth, found = dataset.labels(index), predict(rgb, model)
    small = rgb.copy()
    small.thumbnail((SIDE, SIDE))
    palette = dataset.legend.palette
    held = [label for label in np.unique(truth).tolist() if label not in (0, VOID)]
    named = ", ".join(dataset.classes[label] for label in held) or "only background"
    return [
        Panel(small, "image", f"the image {name}"),
        Panel(
            overlay(small, _shrunk(truth, small), palette), f"ground truth: {named}", f"{name}, ground truth: {named}"
        ),
        Panel(overlay(small, _shrunk(found.labels, small), palette), "answer", f"{name}, answer in {describe(found)}"),
        *_steps(small, found, palette, name),
    ]


def _steps(small: Image.Image, found: Prediction, palette: NDArray[np.uint8], name: str) -> list[Panel]:
    grey = Image.blend(small.convert("L").convert("RGB"), Image.new("RGB", small.size, "white"), 0.45)
    shown = []
    for number, step in enumerate(found.steps[:MOST_STEPS], 1):
        labels = np.where(step.mask, step.class_id, 0).astype(np.uint8)
        words = f"{number}: {step.name} {step.probability:.0%}"
        image = overlay(grey, _shrunk(labels, small), palette, alpha=0.7)
        shown.append(Panel(image, words, f"{name}, step {words}, its mask covers {step.area:.0%} of the image"))
    return shown


def _shrunk(labels: NDArray[np.uint8], image: Image.Image) -> NDArray[np.uint8]:
    """A label map (H, W) at the size of a smaller image."""
    return np.asarray(Image.fromarray(labels).resize(image.size, Image.Resampling.NEAREST))
