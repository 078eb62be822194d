"""Finds images that two lists share under different names: copies, rescaled, re-encoded, brightened or mirrored.

Lists of ids cannot reveal such a leak. Here each image becomes a thumbnail of `SIDE`×`SIDE` pixels with its mean and
contrast normalised; two images are near-duplicates if their thumbnails, one of them mirrored or not, correlate by
`ALIKE` or more. Use it before publishing a score on lists of your own.

Two photographs of one event are not found: in VOC, an image of SBD's training masks and one of val show the same
aeroplane a moment apart, with a correlation of 0.94, but so do two unrelated skylines.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from recseg.data.folder import SegmentationFolder
from recseg.data.images import read_image

SIDE = 24
ALIKE = 0.97


class Pair(NamedTuple):
    """Two ids whose images are near-duplicates, and the correlation of their thumbnails."""

    first: str
    second: str
    alike: float


def near_duplicates(
    first: SegmentationFolder, second: SegmentationFolder, *, alike: float = ALIKE, progress: bool = False
) -> list[Pair]:
    """Pairs of images, one from each split, that look the same; most similar first.

    Args:
        first: a split, such as the training split.
        second: another, such as the validation split.
        alike: minimum correlation of near-duplicates.
        progress: show a bar on stderr.

    Raises:
        RecsegError: an image that cannot be read.
    """
    with tqdm(total=len(first) + len(second), disable=not progress, unit="image") as bar:
        mine, theirs = (_thumbnails(split.image_paths, bar) for split in (first, second))
    as_is, mirrored = (np.tensordot(view, theirs, ((1, 2, 3), (1, 2, 3))) for view in (mine, mine[:, :, ::-1]))
    both = np.maximum(as_is, mirrored)  # (N, M)
    found = [Pair(first.ids[a], second.ids[b], float(both[a, b])) for a, b in np.argwhere(both >= alike)]
    return sorted(found, key=lambda pair: -pair.alike)


def _thumbnails(paths: Iterable[Path], bar: "tqdm[None]") -> NDArray[np.float32]:
    """(N, SIDE, SIDE, 3) of mean 0 and length 1."""
    found = []
    for path in paths:
        small = read_image(path).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
        pixels = np.asarray(small, dtype=np.float32)
        pixels = pixels - pixels.mean()
        found.append(pixels / max(float(np.linalg.norm(pixels)), 1e-6))
        bar.update()
    return np.stack(found)
