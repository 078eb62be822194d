"""One reader for VOC, the embedded pictograms and your own data: all are folders in VOC's layout.

JPEGImages/ID.jpg                    the images (jpg, png, tif, webp … as `read_image` takes them)
SegmentationClass/ID.png             their masks: a pixel's value gives its class, 255 is unlabelled
ImageSets/Segmentation/SPLIT.txt     the IDs of each split, one per line
classes.txt                          what the values mean: `recseg.data.description` (absent: VOC's 21 classes)
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recseg.classes import Legend, check_names
from recseg.data.description import FILE, export_hint, read_table, undescribed
from recseg.data.images import SUFFIXES, is_turned, read_image, read_labels
from recseg.data.survey import Survey, survey
from recseg.errors import RecsegError
from recseg.files import one_spelling, read_lines

MASK_SUFFIXES = (".png",)


class Sample(NamedTuple):
    """An image and its label map; transforms take one and return one.

    A dataset returns labels as int64; its transform gets them as they were read, uint8.
    """

    image: Tensor  # (3, H, W) uint8
    labels: Tensor  # (H, W), VOID where unlabelled
    id: str


class SegmentationFolder(torch.utils.data.Dataset[Sample]):
    """A split of a folder in VOC's layout.

    Args:
        root: the folder itself, or one that contains `VOCdevkit/VOC2012`.
        split: name of a list, e.g. `"train"`.
        classes: names, background first; by default those of `classes.txt`, or VOC's 21.
        transform: applied to each `Sample` as it is read.

    Lists, names and the presence of every file are checked at once; file contents, when they are read.

    Raises:
        RecsegError: one line that names the file and what was expected.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.root = find_root(root)
        self.split = split
        self.transform = transform
        self.legend = _read_legend(self.root) if classes is None else Legend.plain(check_names(classes, "classes"))
        self.ids = read_split(self.root, split)
        images, masks = (_files_by_id(self.root / name) for name in ("JPEGImages", "SegmentationClass"))
        self.image_paths = [_only(images, name, self.root / "JPEGImages", SUFFIXES) for name in self.ids]
        self.mask_paths = [_only(masks, name, self.root / "SegmentationClass", MASK_SUFFIXES) for name in self.ids]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, background first (`NO_BACKGROUND` if there is none)."""
        return self.legend.names

    @property
    def num_classes(self) -> int:
        """Number of labels, background included."""
        return len(self.classes)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Colour of each label, `(num_classes, 3)` RGB."""
        return self.legend.palette[: self.num_classes]

    @property
    def files(self) -> list[Path]:
        """All files read for this split."""
        lists = [_list_file(self.root, self.split), self.root / FILE]
        return [*lists, *self.image_paths, *self.mask_paths]

    def __len__(self) -> int:
        return len(self.ids)

    if TYPE_CHECKING:  # loops work through `__getitem__`, which type checkers do not know

        def __iter__(self) -> Iterator[Sample]: ...

    def __getitem__(self, index: int) -> Sample:
        image = self.pixels(index)  # (H, W, 3)
        labels = self.labels(index)  # (H, W)
        if image.shape[:2] != labels.shape:
            raise self._sizes_differ(index, labels.shape, image.shape)
        # A view, not a copy: memory stays (H, W, 3), which is also the fastest layout for resizing.
        pixels = torch.from_numpy(image).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
        sample = Sample(pixels, torch.from_numpy(labels), self.ids[index])
        if self.transform is not None:  # before the labels grow to int64, since most pixels are cropped away
            sample = self.transform(sample)
        return sample._replace(labels=sample.labels.long())

    def _sizes_differ(self, index: int, mask: tuple[int, ...], image: tuple[int, ...]) -> RecsegError:
        turned = []
        for path in (self.image_paths[index], self.mask_paths[index]):
            with Image.open(path) as opened:
                turned.append(is_turned(opened))
        why = ""
        if turned[0] != turned[1]:  # the stored sizes may be equal
            who = "image" if turned[0] else "mask"
            why = f" (the EXIF orientation of the {who} turns it; expected both turned, or both without)"
        return RecsegError(
            f"{self.mask_paths[index]}: is {mask[1]}×{mask[0]} pixels, "
            f"its image {self.image_paths[index].name} is {image[1]}×{image[0]}{why}"
        )

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """The image `(H, W, 3)` alone, RGB, upright."""
        return np.array(read_image(self.image_paths[index]))

    def labels(self, index: int) -> NDArray[np.uint8]:
        """The label map `(H, W)` alone, without decoding the image."""
        return read_labels(self.mask_paths[index], self.legend)

    _survey: Survey | None = None

    @property
    def max_classes_per_image(self) -> int:
        """Maximum number of classes (without background) in one mask: the steps a recurrent model needs.

        Reads every mask once, then uses the cached result.
        """
        return self.survey().most_classes

    def survey(self, *, skip: bool = False) -> Survey:
        """Statistics of the masks, read once; with `skip`, unreadable masks are left out."""
        if self._survey is None:
            self._survey = survey(self, skip=skip)
        if self._survey.unreadable and not skip:
            raise next(iter(self._survey.unreadable.values()))
        return self._survey

    def keep_survey(self, found: Survey) -> None:
        """Use the survey that another process made of the same masks."""
        self._survey = found


def find_root(root: Path | str) -> Path:
    """The folder that contains `JPEGImages`: `root` or the VOC 2012 folder under it."""
    root = Path(root)
    if not root.is_dir():
        raise RecsegError(f"{root}: {'is a file, expected a folder' if root.exists() else 'no such folder'}")
    for folder in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise RecsegError(_hinted(root, f"{root}: holds no JPEGImages folder, nor VOCdevkit/VOC2012/JPEGImages"))


def _hinted(root: Path, message: str) -> str:
    """A message, and how to import the folder if an annotation tool has written it."""
    tool = export_hint(root)
    return f"{message}; {tool}" if tool else message


def splits(root: Path) -> dict[str, Path]:
    """The lists of a folder, by name."""
    return {file.stem: file for file in sorted(_lists(root).glob("*.txt"))}


def _lists(root: Path) -> Path:
    folder = root / "ImageSets" / "Segmentation"
    if not folder.is_dir():
        folder = root / "ImageSets"
    if not folder.is_dir():
        raise RecsegError(_hinted(root, f"{root}: holds no ImageSets/Segmentation folder with a list for each split"))
    return folder


def _list_file(root: Path, split: str) -> Path:
    lists = splits(root)
    if split not in lists:
        raise RecsegError(f"{_lists(root)}: has no split {split!r}; available: {', '.join(lists) or 'none'}")
    return lists[split]


def read_split(root: Path, split: str) -> list[str]:
    """The ids of a split in the order of its list: at least one, without duplicates or folders."""
    path = _list_file(root, split)
    ids = read_lines(path)
    if not ids:
        raise RecsegError(f"{path}: is an empty split, expected one image id a line")
    seen: set[str] = set()
    for name in ids:
        if "/" in name or "\\" in name or "\0" in name or name in {".", ".."}:
            raise RecsegError(f"{path}: has the id {name!r}, expected a plain name without folders")
        if one_spelling(name) in seen:
            raise RecsegError(f"{path}: lists {name!r} twice")
        seen.add(one_spelling(name))
    return ids


def _read_legend(root: Path) -> Legend:
    path = root / FILE
    if not path.exists():
        return undescribed(root)
    rows = read_lines(path)
    legend = read_table(path, rows)
    names = check_names(legend.names if legend else rows, str(path))
    return legend or Legend.plain(names)


def shared_ids(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The ids of the first list that are also in the second, however their accents are composed."""
    others = set(map(one_spelling, second))
    return [name for name in first if one_spelling(name) in others]


def _files_by_id(folder: Path) -> dict[str, list[Path]]:
    """Files by id, from one folder listing: testing each file and suffix is slow on a network disk."""
    if not folder.is_dir():
        raise RecsegError(_hinted(folder.parent, f"{folder}: no such folder"))
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        files.setdefault(one_spelling(path.stem), []).append(path)
    return files


def _only(files: dict[str, list[Path]], name: str, folder: Path, suffixes: tuple[str, ...]) -> Path:
    """The only file of an id with one of these suffixes."""
    there = files.get(one_spelling(name), [])
    found = [path for path in there if path.suffix.lower() in suffixes]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecsegError(f"{found[0]}: and {found[1].name} both have the id {name!r}")
    if there and suffixes == MASK_SUFFIXES:
        harm = ", and JPEG changes labels" if there[0].suffix.lower() in (".jpg", ".jpeg") else ""
        raise RecsegError(f"{there[0]}: masks must be PNG{harm}; expected {name}.png, made from the labels themselves")
    listed = Path(name)
    if listed.suffix.lower() in SUFFIXES and one_spelling(listed.stem) in files:
        raise RecsegError(f"{folder / name}: the split lists {name!r}, expected ids without a suffix: {listed.stem!r}")
    beside = f"; {there[0].name} is none of {', '.join(suffixes)}" if there else ""
    complaint = f"{folder / name}{suffixes[0]}: no such file, though the split lists {name!r}{beside}"
    raise RecsegError(_hinted(folder.parent, complaint))
