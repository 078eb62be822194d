"""The one label space: PASCAL VOC's 21 labels, their colours, and the value of unlabelled pixels.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recseg.errors import RecsegError

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
LONGEST_NAME = 200  # characters


def check_names(names: Sequence[object], origin: str) -> tuple[str, ...]:
    """The names of the classes of data, weights, a pack or an exported network, background first.

    Whatever stores names asks here before it writes them, and whatever reads them asks here, too.

    Args:
        names: of label 0, 1, 2 …
        origin: file or value that they come from, for the complaint.

    Raises:
        RecsegError: fewer than 2 names or more than 255, one twice, or one that cannot be shown in a line.
    """
    if not 2 <= len(names) <= VOID:  # labels 0 to 254: 255 is taken
        raise RecsegError(f"{origin}: names {len(names)} classes, expected 2 to {VOID} with background as the first")
    checked: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise RecsegError(f"{origin}: has {name!r} among its classes, expected a name")
        odd = next((sign for sign in name if not sign.isprintable()), None)
        if odd is not None:
            sign = f"U+{ord(odd):04X}, {unicodedata.name(odd, 'a control character').lower()}"
            raise RecsegError(
                f"{origin}: names the class {name!r}, which holds {sign}; expected letters and plain spaces"
            )
        if len(name) > LONGEST_NAME:
            raise RecsegError(f"{origin}: has a class name of {len(name)} characters, expected {LONGEST_NAME} at most")
        if name in checked:
            raise RecsegError(f"{origin}: names the class {name!r} twice")
        checked[name] = None
    return tuple(checked)


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
