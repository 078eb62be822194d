"""The label space: names, mask values and colours of PASCAL VOC's 21 labels, or of any other data set.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recseg.errors import RecsegError

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue

BACKGROUND = 0
NO_BACKGROUND = ""  # name of label 0 in sets without a background, where no pixel has label 0
NO_STOP = -30.0  # stop logit where stopping is ruled out (no background): finite, but effectively minus infinity
VOID = 255  # outlines and ambiguous pixels: neither trained on nor scored

VOC_CLASSES: tuple[str, ...] = (
    "background",
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Dense networks predict stray specks, so a class must cover this share of the image to count as present (95 % of
# VOC's do).
SMALLEST_AREA = 0.004
LONGEST_NAME = 200  # characters


def check_names(names: Sequence[object], origin: str) -> tuple[str, ...]:
    """Check label names, background first; called whenever they are read or written.

    Args:
        names: of labels 0, 1, 2 …; only the first may be empty (`NO_BACKGROUND`).
        origin: file or value they come from, for error messages.

    Raises:
        RecsegError: fewer than 2 or more than 255 names, a duplicate, or a name that cannot be printed on one line.
    """
    if not 2 <= len(names) <= VOID:  # labels 0 to 254; 255 is void
        raise RecsegError(f"{origin}: names {len(names)} classes, expected 2 to {VOID} with background as the first")
    for label, name in enumerate(names):
        absent = label == BACKGROUND and name == NO_BACKGROUND
        if not isinstance(name, str) or not (name.strip() or absent):
            raise RecsegError(f"{origin}: has {name!r} among its classes, expected a name")
        if odd := next((sign for sign in name if not sign.isprintable()), None):
            sign = f"U+{ord(odd):04X}, {unicodedata.name(odd, 'a control character').lower()}"
            raise RecsegError(
                f"{origin}: names the class {name!r}, which contains {sign}; expected letters and plain spaces"
            )
        if len(name) > LONGEST_NAME:
            raise RecsegError(f"{origin}: has a class name of {len(name)} characters, expected {LONGEST_NAME} at most")
        if name in names[:label]:
            raise RecsegError(f"{origin}: names the class {name!r} twice")
    return tuple(map(str, names))


def palette(size: int = 256) -> NDArray[np.uint8]:
    """VOC's colour of each label: `(size, 3)` RGB.

    The development kit spreads the bits of a label over the three channels, lowest bits of the label to highest bits of
    the colour, so that neighbouring labels look different. Colours have no order: never interpolate them.
    """
    return _colours(size).copy()


@cache  # needed for every mask that is read
def _colours(size: int) -> NDArray[np.uint8]:
    labels = np.arange(size)
    colours = np.zeros((size, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def has_background(names: Sequence[str]) -> bool:
    """Whether label 0 of these names is a background."""
    return not names or names[BACKGROUND] != NO_BACKGROUND


def by_name(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    """The value of each label by its name, without label 0 if there is no background."""
    return {name: value for name, value in zip(names, values, strict=True) if name != NO_BACKGROUND}


@dataclass(frozen=True)
class Legend:
    """The name of each label, its value in the masks of a data set, and its colour.

    Label 0 is always the background. In a set without one, label 0 has no name, value or pixels, and the first class is
    label 1 whatever its value.

    Attributes:
        names: of the labels; the first is the background's, or `NO_BACKGROUND`.
        values: of each label in a mask, 0 … 255; None for a missing background.
        colours: of each label, for drawings and for masks that are stored as colours.
        void: values of pixels that are neither trained on nor scored.
        void_colour: their colour.
        coloured: whether masks may be stored in these colours; if not, they are for drawing only.
    """

    names: tuple[str, ...]
    values: tuple[int | None, ...]
    colours: tuple[Colour, ...]
    void: tuple[int, ...] = (VOID,)
    void_colour: Colour = (224, 224, 192)
    coloured: bool = True

    @classmethod
    def plain(cls, names: Sequence[str]) -> "Legend":
        """VOC's convention: a pixel's value is its label, a label's colour that of VOC's palette."""
        return cls(tuple(names), tuple(range(len(names))), default_colours(len(names)))

    @classmethod
    def from_dict(cls, names: Sequence[str], facts: Any, origin: str = "weights") -> "Legend":
        """The inverse of `to_dict`.

        Args:
            names: of the labels.
            facts: what `to_dict` returned.
            origin: file they come from, for error messages.

        Raises:
            RecsegError: not what `to_dict` returns for these names.
        """
        if facts is None:
            return cls.plain(names)
        try:
            values, colours = tuple(facts["values"]), tuple(tuple(colour) for colour in facts["colours"])
            given = values if has_background(names) else values[1:]
            numbers = [*given, *(part for colour in colours for part in colour)]
            fits = len(values) == len(colours) == len(names) and all(len(colour) == 3 for colour in colours)
            fits = fits and (given is values or values[BACKGROUND] is None)
            if not fits or not all(type(number) is int and 0 <= number <= 255 for number in numbers):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise RecsegError(f"{origin}: its legend does not give each class a value and a colour") from error
        return cls(tuple(names), values, colours)

    def to_dict(self) -> dict[str, Any] | None:
        """Values and colours as JSON data, for drawing and writing label maps; None for the plain legend."""
        plain = Legend.plain(self.names)
        if (self.values, self.colours) == (plain.values, plain.colours):
            return None
        return {"values": list(self.values), "colours": [list(colour) for colour in self.colours]}

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """Colour of each label, void's last: `(256, 3)` RGB."""
        colours = palette()
        colours[: len(self.colours)] = np.reshape(self.colours, (-1, 3))
        colours[VOID] = self.void_colour
        return colours

    @cached_property
    def label_of_value(self) -> NDArray[np.int16]:
        """Label of each value of a mask, −1 for undefined values: `(256,)`."""
        labels = np.full(256, -1, np.int16)
        labels[list(self.void)] = VOID
        for label, value in enumerate(self.values):
            if value is not None:
                labels[value] = label
        return labels

    @cached_property
    def moved(self) -> bool:
        """Whether any value differs from its label."""
        return self.values != tuple(range(len(self.names))) or not set(self.void) <= {VOID}

    @cached_property
    def value_of_label(self) -> NDArray[np.uint8] | None:
        """Value of each label, for writing label maps with the data set's values: `(len(names),)`; None if equal."""
        return np.array([value or 0 for value in self.values], np.uint8) if self.moved else None


def default_colours(size: int) -> tuple[Colour, ...]:
    """VOC's colours of the first labels."""
    return tuple((red, green, blue) for red, green, blue in palette(size).tolist())
