"""A description of the data, stored in each checkpoint: a run resumes only with the data it was started on."""

import hashlib
import unicodedata
from typing import Any

from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError, counted


def describe(training: SegmentationFolder, held_out: SegmentationFolder | None, max_steps: int) -> dict[str, Any]:
    """The properties of the data that the weights depend on.

    Args:
        training: the training split.
        held_out: the validation images, which the best weights depend on; None: no validation.
        max_steps: of the network: the maximum number of classes in an image.
    """
    lists = {"training": training} | ({} if held_out is None else {"validation": held_out})
    return {
        "classes": list(training.classes),
        "values": list(training.legend.values),  # of each class in the masks
        "void": list(training.legend.void),
        "max_steps": max_steps,
        "lists": {use: _list(dataset) for use, dataset in lists.items()},
    }


def _list(dataset: SegmentationFolder) -> dict[str, Any]:
    names = "\n".join(unicodedata.normalize("NFC", name) for name in dataset.ids)  # file systems differ in accents
    return {
        "split": dataset.split,
        "images": len(dataset),
        "ids": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
        "pack": getattr(dataset, "size", None),  # short side of packed images
    }


def check_same_data(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Compare the data that a run was started with to the current data.

    Args:
        before: the result of `describe` when the checkpoint was written.
        now: the current one.
        where: the data, for the error message.

    Raises:
        RecsegError: the data differ; the message says in what.
    """
    if before == now:
        return
    end = "expected the data that this run was started on (for other data, start a new run)"
    names, others = before["classes"], now["classes"]
    if len(names) != len(others):
        raise RecsegError(f"{where}: has {len(others)} classes, but had {len(names)} when this run began; {end}")
    for label, (name, other) in enumerate(zip(names, others, strict=True)):
        if name != other:
            raise RecsegError(f"{where}: class {label} is {other!r}, but was {name!r} when this run began; {end}")
    if (before["values"], before["void"]) != (now["values"], now["void"]):
        raise RecsegError(f"{where}: values of its masks stand for other classes than when this run began; {end}")
    for use in ("training", "validation"):
        old, new = before["lists"].get(use), now["lists"].get(use)
        if old == new:
            continue
        if old is None or new is None:
            raise RecsegError(
                f"{where}: {'no ' if new is None else 'a '}list for {use}, unlike when this run began; {end}"
            )
        split = f"{where}: its {use} list {new['split']!r}"
        if old["images"] != new["images"]:
            raise RecsegError(
                f"{split} has {counted(new['images'], 'id')}, but had {old['images']} when this run began; {end}"
            )
        if old["ids"] != new["ids"]:
            raise RecsegError(f"{split} has other ids, or another order, than when this run began; {end}")
        raise RecsegError(f"{split} is not of the split or the pack size that this run began with; {end}")
    most, limit = now["max_steps"], before["max_steps"]
    raise RecsegError(f"{where}: images have up to {most} classes, but had {limit} when this run began; {end}")
