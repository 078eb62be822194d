"""Speed of data loading on one core, from JPEG files and from a pack, and where the time goes."""

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recseg.benchmark.parts import Bar, Found, Setting
from recseg.data import open_train
from recseg.data.folder import SegmentationFolder
from recseg.data.pack import PackedFolder, write_pack
from recseg.data.transforms import train_transform
from recseg.errors import RecsegError
from recseg.training.validation import spread

IMAGES = 400
SIZE = 256  # of the crops, and short side of the pack


def loader(setting: Setting) -> Found:
    """Training crops per second and core, from VOC's photographs; not measured if VOC is not available."""
    floor, packed_floor = (f"crops a second a core, {SIZE}×{SIZE}, from {source}" for source in ("JPEG", "a pack"))
    tells = "how many cores feed a GPU: the crops that it trains a second, divided by this"
    packs = "whether packing the data saves enough of these cores"
    try:
        source = spread(open_train("voc"), IMAGES)
    except RecsegError as error:
        return {"not_measured": str(error)}, [
            Bar(floor, None, 250, tells, False),
            Bar(packed_floor, None, 1000, packs, False),
        ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            pack = PackedFolder(write_pack(source, Path(folder) / "voc.pack", SIZE, progress=False))
            setting.progress()
            found: dict[str, Any] = {}
            for name, dataset in (("jpeg", source), ("pack", pack)):
                dataset.transform = train_transform(SIZE, scale=(0.75, 2.0))
                every(dataset, dataset.__getitem__)  # warm up: the first pass measures the disk
                found[f"{name}_crops_a_second"] = round(
                    1 / min(every(dataset, dataset.__getitem__) for _ in range(3)), 1
                )
                found[f"{name}_milliseconds"] = where(dataset)
                setting.progress()
    finally:
        torch.set_num_threads(threads)
    bars = [
        Bar(floor, found["jpeg_crops_a_second"], 250, tells, False),
        Bar(packed_floor, found["pack_crops_a_second"], 1000, packs, False),
    ]
    return found, bars


def every(dataset: SegmentationFolder, act: Callable[[int], object]) -> float:
    """Mean seconds of `act` per image."""
    torch.manual_seed(0)
    start = time.perf_counter()
    for index in range(len(dataset)):
        act(index)
    return (time.perf_counter() - start) / len(dataset)


def where(dataset: SegmentationFolder) -> dict[str, float]:
    """Milliseconds of the parts of one sample."""
    plain = copy.copy(dataset)
    plain.transform = None
    still = copy.copy(dataset)
    still.transform = train_transform(SIZE, scale=(0.75, 2.0), jitter=0)
    seconds = {
        "image": every(dataset, dataset.pixels),
        "labels": every(dataset, dataset.labels),
        "both, as tensors": every(plain, plain.__getitem__),
        "and crop, resize, flip": every(still, still.__getitem__),
        "and colours": every(dataset, dataset.__getitem__),
    }
    return {name: round(1000 * value, 3) for name, value in seconds.items()}
