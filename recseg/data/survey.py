"""Statistics of the masks of a split, read once: labels, sizes and colours."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from recseg.classes import BACKGROUND, VOID
from recseg.errors import RecsegError

if TYPE_CHECKING:
    from recseg.data.folder import SegmentationFolder


@dataclass
class Survey:
    """Statistics of all masks of a split.

    Attributes:
        areas: (N, 256) pixels of each label in each readable mask.
        ids: of these masks.
        sizes: (N, 2) their height and width.
        solid: (256,) number of 2×2 squares of a single label, over all masks.
        unreadable: why the other masks could not be read, by id.
        colours: of indexed masks, the distinct tuples (value, its colour, whether the palette has only colours that the
            mask uses), each with the id of the first such mask.
    """

    areas: NDArray[np.int32]
    ids: list[str]
    sizes: NDArray[np.int32]
    solid: NDArray[np.int64]
    unreadable: dict[str, RecsegError]
    colours: list[tuple[int, tuple[int, ...], bool, str]] = field(default_factory=list)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """(256,) pixels of each label."""
        return np.asarray(self.areas.sum(axis=0, dtype=np.int64))

    @property
    def images(self) -> NDArray[np.int64]:
        """(256,) images that contain each label."""
        return np.asarray((self.areas > 0).sum(axis=0))

    @property
    def shares(self) -> NDArray[np.float64]:
        """(255,) share of each label in all non-void pixels."""
        labelled = self.pixels[:VOID]
        return labelled / max(1, int(labelled.sum()))

    @property
    def most_classes(self) -> int:
        """Maximum number of classes in one image, without background."""
        return int((self.areas[:, BACKGROUND + 1 : VOID] > 0).sum(axis=1).max(initial=0))


def survey(dataset: "SegmentationFolder", *, skip: bool = False) -> Survey:
    """Read all masks of a split once.

    Raises:
        RecsegError: a mask that cannot be read; with `skip`, it is listed instead.
    """
    areas, ids, sizes, solid = [], [], [], np.zeros(256, np.int64)
    unreadable: dict[str, RecsegError] = {}
    colours: dict[tuple[int, tuple[int, ...], bool], str] = {}
    for index in tqdm(range(len(dataset)), desc="read masks", disable=None if len(dataset) > 500 else True):
        try:
            labels = dataset.labels(index)  # (H, W)
        except RecsegError as error:
            if not skip:
                raise
            unreadable[dataset.ids[index]] = error
            continue
        areas.append(np.bincount(labels.ravel(), minlength=256).astype(np.int32))
        ids.append(dataset.ids[index])
        sizes.append(labels.shape)
        corner = labels[:-1, :-1]
        same = (corner == labels[1:, :-1]) & (corner == labels[:-1, 1:]) & (corner == labels[1:, 1:])
        solid += np.bincount(corner[same], minlength=256)
        for key in _colours(dataset, index, np.flatnonzero(areas[-1]).tolist()):
            colours.setdefault(key, dataset.ids[index])
    return Survey(
        np.array(areas, np.int32).reshape(-1, 256), ids, np.array(sizes, np.int32).reshape(-1, 2), solid, unreadable,
        [(*key, name) for key, name in colours.items()],
    )  # fmt: skip


def _colours(
    dataset: "SegmentationFolder", index: int, present: list[int]
) -> Iterator[tuple[int, tuple[int, ...], bool]]:
    """Values of an indexed mask, their colours, and whether its palette has no others."""
    if not hasattr(dataset, "mask_paths"):  # a pack
        return
    with suppress(OSError), Image.open(dataset.mask_paths[index]) as mask:  # decodes no pixels
        if mask.mode != "P":
            return
        palette = mask.getpalette() or []
        for label in present:
            value = dataset.legend.values[label] if label != VOID else None
            if value is not None and 3 * value < len(palette):
                yield value, tuple(palette[3 * value : 3 * value + 3]), len(palette) <= 3 * len(present)
