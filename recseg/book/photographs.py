"""Photographs with classes of VOC, from the package scikit-image; none of them are in this repository."""

from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT = 320  # pixels of images that stand side by side


class Photograph(NamedTuple):
    """A photograph.

    Attributes:
        title: what it shows, for use as alt text.
        image: RGB.
        classes: names of the VOC classes in it.
    """

    title: str
    image: Image.Image
    classes: tuple[str, ...]


def photographs() -> dict[str, Photograph]:
    """A cat, an astronaut and a motorcycle, by name; empty if scikit-image is not installed."""
    try:
        from skimage import data
    except ImportError:
        return {}

    def photograph(title: str, pixels: "np.typing.NDArray[np.uint8]", name: str) -> Photograph:
        return Photograph(title, Image.fromarray(pixels), (name,))

    return {
        "cat": photograph("A cat", data.cat(), "cat"),
        "astronaut": photograph("An astronaut", data.astronaut(), "person"),
        "motorcycle": photograph("A motorcycle in a workshop", data.stereo_motorcycle()[0], "motorbike"),
    }


def side_by_side(*shown: Photograph) -> Photograph:
    """One image of several photographs, from left to right."""
    resized = [one.image.resize((round(one.image.width * HEIGHT / one.image.height), HEIGHT)) for one in shown]
    title = ", ".join(one.title if not at else one.title[0].lower() + one.title[1:] for at, one in enumerate(shown))
    image = Image.fromarray(np.concatenate([np.asarray(part) for part in resized], axis=1))  # (HEIGHT, W, 3)
    return Photograph(f"{title}, side by side", image, tuple(name for one in shown for name in one.classes))
