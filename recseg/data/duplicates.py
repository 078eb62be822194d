"""Images that two lists share under different names: a copy, scaled, saved anew, lightened or mirrored.

A list of ids cannot show such a leak. Here each image becomes a thumbnail of `SIDE`×`SIDE` colours with its own mean
and contrast taken out; two images are near-duplicates if their thumbnails correlate by `ALIKE` or more, one of them
mirrored or not. Whoever publishes a score on own lists should look once.

Two photographs of one event are no copies of each other, and are not found: in VOC, one aeroplane stands in an image
of SBD's training masks and, a moment later, in one of val, at 0.94, and two skylines that share nothing reach as much.
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
    """Pairs of images, one of each list, that look the same; the most alike first.

    Args:
        first: a split, such as that to train on.
        second: another, such as that to score on.
        alike: correlation from which two images count as the same.
        progress: show a bar on stderr.

    Raises:
        RecsegError: an image that cannot be read.
    """
    with tqdm(total=len(first) + len(second), disable=not progress, unit="image") as bar:
        mine, theirs = (_thumbnails(split.image_paths, bar) for split in (first, second))
    both = np.maximum(_flat(mine) @ _flat(theirs).T, _flat(mine[:, :, ::-1]) @ _flat(theirs).T)  # (N, M)
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


def _flat(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    return thumbnails.reshape(len(thumbnails), -1)
