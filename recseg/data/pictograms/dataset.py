"""Folders of pictograms in VOC's layout: any number from a seed, the committed set, and the book's training set.

`generate` (in `scene`) draws one image; this module writes them, resumes, and refuses to mix sets. In a clone the
committed set is read in place; a wheel does not include it and draws it on first use.
"""

import io
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from PIL import Image, features
from PIL import __version__ as PIL_VERSION
from tqdm import tqdm

from recseg.classes import VOC_CLASSES, palette
from recseg.data.lock import locked
from recseg.data.pictograms.drawing import Raster
from recseg.data.pictograms.scene import VERSION, generate
from recseg.errors import RecsegError
from recseg.files import atomic_write
from recseg.resources import cache_dir, resource

__all__ = [
    "TRAIN_SEED", "VAL_SEED", "VERSION", "embedded_root", "ensure_train", "generate", "write_dataset", "write_embedded",
]  # fmt: skip

TRAIN_SEED, VAL_SEED = 1, 2  # streams that share no image: no training image is scored
EMBEDDED_TRAIN, EMBEDDED_VAL = 200, 500  # images of the committed set
JPEG_QUALITY = 90

ImageKey = tuple[int, int]  # seed, index


def image_id(key: ImageKey) -> str:
    """File name without suffix; its seed and index are enough to draw the image again."""
    seed, index = key
    return f"pictogram_{seed}_{index:06d}"


def encode(image: Raster, labels: Raster) -> tuple[bytes, bytes]:
    """An image as JPEG and its label map as palette PNG, as VOC stores them."""
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    mask = Image.fromarray(labels)
    mask.putpalette(palette().ravel().tolist())
    mask.save(png, "PNG")
    return jpeg.getvalue(), png.getvalue()


def _paths(out: Path, key: ImageKey) -> tuple[Path, Path]:
    name = image_id(key)
    return out / "JPEGImages" / f"{name}.jpg", out / "SegmentationClass" / f"{name}.png"


def _write_image(out: Path, key: ImageKey, size: int) -> None:
    """Write the two files of one image, unless an interrupted run has written them."""
    seed, index = key
    paths = _paths(out, key)
    if all(path.exists() for path in paths):
        return
    for path, content in zip(paths, encode(*generate(index, seed, size)), strict=True):
        # Not synced one by one, which takes longer than drawing: the lists, written last, mark the set as complete.
        with atomic_write(path, sync=False) as temporary:
            temporary.write_bytes(content)


def _write_images(out: Path, keys: Sequence[ImageKey], size: int) -> int:
    """Write a chunk of the images; runs in a worker process."""
    for key in keys:
        _write_image(out, key, size)
    return len(keys)


def _in_processes(out: Path, keys: Sequence[ImageKey], size: int, workers: int) -> Iterator[int]:
    """Write images in `workers` processes; yield the number written since the last yield."""
    shares = [keys[start : start + 32] for start in range(0, len(keys), 32)]
    done = 0
    if workers > 1 and len(shares) > 1:
        # Spawned processes: forking a process that runs PyTorch's threads may hang.
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(min(workers, len(shares)), mp_context=context) as pool:
                for written in pool.map(_write_images, [out] * len(shares), shares, [size] * len(shares)):
                    done += 1
                    yield written
        except BrokenProcessPool:
            pass  # a script without `if __name__ == "__main__"`, or no memory for another process: continue in this one
    for share in shares[done:]:
        yield _write_images(out, share, size)


def _write_text(path: Path, lines: Iterable[str], *, new: bool = False) -> None:
    with atomic_write(path, new=new) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _claim(out: Path, info: dict[str, object]) -> None:
    """Claim `out`: it must be absent, empty, or left by an identical run."""
    path = out / "info.json"
    try:
        present = out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir())
    except OSError as error:
        raise RecsegError(f"{out}: cannot be used as a folder ({error.strerror or error})") from error
    if not present:
        # The exact bytes depend on the version of the drawing library.
        drawn_with = {"pillow": PIL_VERSION, "libjpeg_turbo": features.version("libjpeg_turbo")}
        with suppress(FileExistsError):  # another process was faster, which is fine if it draws the same
            _write_text(path, [json.dumps(info | {"drawn_with": drawn_with}, indent=2)], new=True)
            return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key, value in info.items() if theirs.get(key) != value]
    except (OSError, ValueError, AttributeError):
        raise RecsegError(f"{out}: not empty, and not a set of pictograms; name an empty folder") from None
    if different:
        found = ", ".join(f"{key} {theirs.get(key)} instead of {info[key]}" for key in different)
        raise RecsegError(f"{out}: holds other pictograms ({found}); name an empty folder")


def _write(
    out: Path,
    train: Sequence[ImageKey],
    val: Sequence[ImageKey],
    info: dict[str, object],
    workers: int,
    progress: bool,
) -> None:
    _claim(out, info)
    keys = [*train, *val]
    with tqdm(total=len(keys), desc=f"pictograms in {out.name}", unit="img", disable=not progress) as bar:
        for written in _in_processes(out, keys, int(str(info["size"])), workers):
            bar.update(written)
    _write_text(out / "classes.txt", VOC_CLASSES)
    lists = {"val": val, "trainval": keys, "train": train}
    for name, members in lists.items():  # train.txt last: if it exists, the set is complete
        _write_text(out / "ImageSets" / "Segmentation" / f"{name}.txt", map(image_id, members))


def write_dataset(
    out: Path | str,
    images: int,
    seed: int,
    *,
    size: int = 128,
    val_fraction: float = 0.2,
    workers: int = 1,
    progress: bool = True,
) -> None:
    """Write images 0 … `images` − 1 of a stream as a folder in VOC's layout; the last of them are `val`.

    An interrupted run leaves no image lists, so it cannot be mistaken for a complete set; the same call resumes it.

    Args:
        out: folder, new or empty.
        images: how many, at least 1.
        seed: the stream, 0 or more. `TRAIN_SEED` and `VAL_SEED` are the book's own.
        size: height and width in pixels.
        val_fraction: share of the images listed in `val.txt`, from 0 to below 1.
        workers: processes that draw; the result does not depend on it.
        progress: show a bar.

    Raises:
        RecsegError: a bad number, a folder that holds something else, or a disk that cannot be written.
    """
    if images < 1:
        raise RecsegError(f"images {images}: must be 1 or more")
    if seed < 0:
        raise RecsegError(f"seed {seed}: must be 0 or more")
    if size < 32:
        raise RecsegError(f"size {size}: must be 32 pixels or more")
    if not 0 <= val_fraction < 1:
        raise RecsegError(f"val_fraction {val_fraction}: must be 0 or more and below 1")
    held_out = round(images * val_fraction)
    if val_fraction > 0 and images > 1:
        held_out = min(max(held_out, 1), images - 1)
    keys = [(seed, index) for index in range(images)]
    info: dict[str, object] = {
        "name": "pictograms", "version": VERSION, "seed": seed, "images": images, "size": size,
        "val_fraction": val_fraction,
    }  # fmt: skip
    _write(Path(out), keys[: images - held_out], keys[images - held_out :], info, workers, progress)


def write_embedded(out: Path | str, *, progress: bool = True) -> None:
    """Write the set committed as `data/pictograms`: a sample of `TRAIN_SEED`, and images of `VAL_SEED` to score on."""
    train = [(TRAIN_SEED, index) for index in range(EMBEDDED_TRAIN)]
    val = [(VAL_SEED, index) for index in range(EMBEDDED_VAL)]
    info: dict[str, object] = {
        "name": "pictograms", "version": VERSION, "seed": {"train": TRAIN_SEED, "val": VAL_SEED},
        "images": {"train": EMBEDDED_TRAIN, "val": EMBEDDED_VAL}, "size": 128,
    }  # fmt: skip
    _write(Path(out), train, val, info, 1, progress)


def ensure_train(images: int = 8000, *, workers: int = 2, progress: bool = True) -> Path:
    """Folder of the book's training set, drawn on first use and cached; all its ids are in `train.txt`.

    Its first images are those of the committed set's `train.txt`; none is in the committed `val.txt`.

    Raises:
        RecsegError: fewer than 1 image, or a cache folder that cannot be written.
    """
    return _drawn_once(
        cache_dir() / f"pictograms-v{VERSION}-{TRAIN_SEED}-{images}",
        lambda root: write_dataset(root, images, TRAIN_SEED, val_fraction=0, workers=workers, progress=progress),
    )


def embedded_root() -> Path:
    """Folder of the committed set: `data/pictograms` in a clone, else in the cache, where it is drawn on first use.

    Raises:
        RecsegError: a cache folder that cannot be written.
    """
    try:
        return resource("pictograms")
    except RecsegError:
        return _drawn_once(cache_dir() / f"pictograms-v{VERSION}", write_embedded)


def _drawn_once(root: Path, draw: Callable[[Path], None]) -> Path:
    """`root`, drawn if it is incomplete; one process draws while others wait."""
    complete = root / "ImageSets" / "Segmentation" / "train.txt"
    if not complete.is_file():
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with locked(root.with_name(root.name + ".lock")):
                if not complete.is_file():
                    draw(root)
        except OSError as error:
            raise RecsegError(f"{root}: cannot be written ({error.strerror or error})") from error
    return root
