"""The one label space: PASCAL VOC's 21 labels, their colours, and the value of unlabelled pixels.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

BACKGROUND = 0
VOID = 255  # outlines and doubtful pixels: neither trained on nor scored

VOC_CLASSES: tuple[str, ...] = (
    "background",
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# A dense head scatters specks: it names a class that covers this share of the image. 95 % of VOC's true classes do.
SMALLEST_AREA = 0.004


def palette(size: int = 256) -> NDArray[np.uint8]:
    """VOC's colour of each label: `(size, 3)` RGB.

    The development kit spreads the bits of a label over the three channels, lowest bits of the label to the highest
    bits of the colour, so that neighbouring labels look different. Colours carry no order: never interpolate them.
    """
    return _colours(size).copy()


@cache
def _colours(size: int) -> NDArray[np.uint8]:
    """Every mask that is read is compared with them."""
    labels = np.arange(size)
    colours = np.zeros((size, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
