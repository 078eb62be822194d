"""Run a network over a split of a data set and score it by all three protocols of `recseg.evaluation.metrics`.

The network gets each image at the size it was trained for. Its logits, not its labels, are resized back, and the answer
is scored at the image's own resolution (VOC, set) and at 256×256 (slots, as for the baseline).
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from recseg.classes import BACKGROUND, VOID, by_name
from recseg.data.folder import SegmentationFolder
from recseg.data.pack import PackedFolder
from recseg.data.readers import begin, hand_on, leave_signals_to_parent
from recseg.data.transforms import eval_transform, resize
from recseg.distributed import all_gather, rank, shard
from recseg.errors import RecsegError, counted
from recseg.evaluation.answers import OWN, Answer, own_answers
from recseg.evaluation.scores import Scores
from recseg.inference.mode import inference_mode
from recseg.models.model import SegmentationModel

_BATCH_PIXELS = 1 << 25  # full-size label pixels in one batch: 12-megapixel photographs go in pairs


def evaluate(
    model: SegmentationModel,
    dataset: SegmentationFolder,
    *,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    workers: int = 0,
    image_size: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    on_bad_image: str = "stop",
    per_image: bool = False,
) -> dict[str, Any]:
    """Score a network on a data set, by the protocols VOC, slot and set.

    The network runs in `eval()` mode: dropout off, batch statistics frozen. Each module's mode is restored at the end.

    A dense network has no steps. The classes that cover at least 0.4 % of its label map count as named, in ascending
    id. 0.4 % is the 5 % quantile of class areas in VOC; with a lower threshold, scattered specks would count.

    Args:
        model: recurrent, published or dense, from `recseg.load` or from training.
        dataset: without a transform: labels are needed at their own size.
        batch_size: maximum images per batch; only images of one shape share a batch.
        device: where to run; by default where the model is.
        workers: number of data loading processes; 0: read in this process.
        image_size: short side of the network's input; by default the model's own `image_size`.
        limit: use only the first `limit` images; by default all.
        progress: show a progress bar on stderr.
        on_bad_image: "stop": an image that cannot be read is an error; "skip": it is left out and listed.
        per_image: also return the counts of each image.

    Returns:
        JSON-able: `miou`, `iou_per_class` (name → value, None where a class occurs nowhere), `pixel_accuracy`,
        `confusion`; `slot_accuracy`, `slot_iou`, `slot_accuracy_own_order`, `slot_accuracy_per_class`,
        `slot_iou_per_class`, `slot_classes_without_hits`, `best_slot_accuracy` and `best_slot_iou` (class and value);
        `label_set_precision`, `label_set_recall`, `label_set_f1`, `count_accuracy`, `mean_steps`;
        `stop_calibration_error`, `stop_calibration`, `class_calibration_error`, `class_calibration`; `images`,
        `seconds`; with "skip", `skipped` (id → reason); with `per_image`, the fields of `ImageCounts` by image id;
        if the network predicts a class that is not in the ground truth, `miou_with_absent` (see `VOCMetric`).

    Raises:
        RecsegError: an empty data set, masks with nothing but void, an image that cannot be read, or classes other than
            those of the model.
    """
    start = time.perf_counter()
    scores, skipped = score(
        model, dataset, batch_size=batch_size, device=device, workers=workers, image_size=image_size, limit=limit,
        progress=progress, on_bad_image=on_bad_image,
    )  # fmt: skip
    if not scores:
        raise RecsegError(
            f"none of {counted(len(skipped), 'image')} can be read; the first: {next(iter(skipped.values()))}"
        )
    if not scores[OWN].voc.confusion.any():
        raise RecsegError(
            f"{dataset.root}: no mask of the split {dataset.split!r} holds a class or background, only void: nothing "
            "to score"
        )
    result = {**scores[OWN].compute(), "seconds": round(time.perf_counter() - start, 3)}
    if on_bad_image == "skip":
        where = f"{dataset.root}{os.sep}"  # a result names images, not folders of a machine
        result["skipped"] = {name: why.replace(where, "") for name, why in skipped.items()}
    if per_image:
        found = sorted(scores[OWN].images.items())
        result["per_image"] = {dataset.ids[index]: counts._asdict() for index, counts in found}
    return _by_name(result, dataset.classes)


def score(
    model: SegmentationModel,
    dataset: SegmentationFolder,
    answer: Callable[..., Iterator[dict[str, Answer]]] = own_answers,
    *,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    workers: int = 0,
    image_size: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    on_bad_image: str = "stop",
) -> tuple[dict[str, Scores], dict[str, str]]:
    """Score several rules at once: `evaluate`, before any ratio is computed.

    Args:
        answer: yields, for each image of a batch, its answers by name of the rule, as `own_answers` does.

    Other arguments and errors are those of `evaluate`.

    Returns:
        The scores of each rule, and the images that could not be read (id → reason).
    """
    _check(model, dataset)
    if limit is not None and limit < 1:
        raise RecsegError(f"limit {limit}: expected at least one image")
    if on_bad_image not in ("stop", "skip"):
        raise RecsegError(f"on_bad_image {on_bad_image!r}: expected stop or skip")
    if device is not None:
        model.to(device)
    target = next(model.parameters()).device
    scores: dict[str, Scores] = {}
    skipped: dict[str, str] = {}
    source = _Prepared(dataset, image_size or model.image_size, model.input_size, limit)
    with inference_mode(model) as network, tqdm(total=len(source), disable=not progress, unit="image") as bar:
        loader = DataLoader(source, batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_parent)
        good = _good(begin(loader), bar, skipped if on_bad_image == "skip" else None)
        for images, labels, indices in batches_of_one_shape(good, batch_size):
            present = [sorted(set(torch.unique(each).tolist()) - {BACKGROUND, VOID}) for each in labels]
            pixels = images.to(target).float() / 255  # (B, 3, h, w) in [0, 1]
            found = answer(network, pixels, (labels.shape[-2], labels.shape[-1]), present)
            for index, by_rule, truth, classes in zip(indices, found, labels, present, strict=True):
                for rule, said in by_rule.items():
                    scores.setdefault(rule, Scores(len(dataset.classes))).update(index, said, truth, classes)
            bar.update(len(images))
    for process, others in enumerate(all_gather(scores)):
        if process != rank():
            for rule, other in others.items():
                scores.setdefault(rule, Scores(len(dataset.classes))).merge(other)
    for more in all_gather(skipped):
        skipped |= more
    return scores, skipped


def _check(model: SegmentationModel, dataset: SegmentationFolder) -> None:
    if not len(dataset):
        raise RecsegError("the data set to evaluate on has no images")
    if dataset.transform is not None:
        raise RecsegError("evaluation needs labels at their own size: open the data set without a transform")
    if isinstance(dataset, PackedFolder):
        raise RecsegError(f"{dataset.root}: is a pack, resized for training; score on the data it was made from")
    known = model.num_classes
    if known != dataset.num_classes:
        raise RecsegError(f"the model has {known} classes but the data set has {dataset.num_classes}")
    for index, (mine, theirs) in enumerate(zip(model.classes, dataset.classes, strict=False)):
        if mine != theirs:
            raise RecsegError(f"class {index} is {mine!r} in the model but {theirs!r} in the data set")


class _Bad(NamedTuple):
    """An image that cannot be read (None if no single image is at fault), and the error.

    Returned rather than raised: raised in a worker process, it would arrive as a page of traceback.
    """

    id: str | None
    error: RecsegError


class Ready(NamedTuple):
    """An image at the network's size, its labels at their own size, both uint8, and its index in the list."""

    image: Tensor  # (3, h, w)
    labels: Tensor  # (H, W)
    number: int


class _Prepared(Dataset[Ready | _Bad]):
    """The images of this process."""

    def __init__(self, dataset: SegmentationFolder, size: int | None, square: int | None, limit: int | None) -> None:
        self.dataset = dataset
        self.part = shard(min(len(dataset), limit or len(dataset)))  # of this process; all if there is only one
        self.transform = eval_transform(size)
        self.square = square

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Ready | _Bad:
        try:
            sample = self.dataset[self.part[index]]
        except RecsegError as error:
            return _Bad(self.dataset.ids[self.part[index]], error)
        if self.square:  # a network with fully connected layers takes one size
            image = resize(sample.image, self.square, self.square)
        else:
            image = self.transform(sample).image
        ready = Ready(image, sample.labels.to(torch.uint8), self.part[index])
        if fault := hand_on(ready.image, ready.labels):
            return _Bad(None, fault)
        return ready


def _good(samples: Iterable[Ready | _Bad], bar: "tqdm[Any]", skipped: dict[str, str] | None) -> Iterator[Ready]:
    """The samples that could be read; the others go into `skipped`, or raise if that is None."""
    for sample in samples:
        if not isinstance(sample, _Bad):
            yield sample
        elif skipped is None or sample.id is None:
            raise sample.error
        else:
            skipped[sample.id] = str(sample.error)
            bar.update()


def batches_of_one_shape(samples: Iterable[Ready], batch_size: int) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Group images of one shape: (B, 3, h, w), (B, H, W) and their B indices, in the order that batches fill up."""
    waiting: dict[tuple[torch.Size, torch.Size], list[Ready]] = {}
    for sample in samples:
        shape = (sample.image.shape, sample.labels.shape)
        waiting.setdefault(shape, []).append(sample)
        full = len(waiting[shape]) >= min(batch_size, max(1, _BATCH_PIXELS // sample.labels.numel()))
        if not full and sum(map(len, waiting.values())) > 4 * batch_size:  # bounds the memory for many shapes
            shape, full = max(waiting, key=lambda key: len(waiting[key])), True
        if full:
            yield _stack(waiting.pop(shape))
    for rest in waiting.values():
        yield _stack(rest)


def _stack(samples: list[Ready]) -> tuple[Tensor, Tensor, list[int]]:
    images, labels, indices = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels), list(indices)


def _by_name(result: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Turn lists by class id into dictionaries by class name, and add the best class of each slot score."""
    result["iou_per_class"] = by_name(names, result["iou_per_class"])
    result["slot_classes_without_hits"] = [names[k] for k in result["slot_classes_without_hits"]]
    for key in ("slot_accuracy", "slot_iou"):
        values = dict(zip(names[1:], result[f"{key}_per_class"], strict=True))
        result[f"{key}_per_class"] = values
        value, best = max(((value, name) for name, value in values.items() if value is not None), default=(None, None))
        result[f"best_{key}"] = {"class": best, "value": value}
    return result
