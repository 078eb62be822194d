"""Run a network over a split of a data set and score it by all three protocols of `recseg.evaluation.metrics`.

The network sees each image at the size it was trained for; its logits, never its labels, are then stretched back, and
what is compared is the answer at the image's own resolution (VOC, set) and at 256×256 (slots, as the baseline does).
"""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF
from tqdm import tqdm

from recseg.classes import BACKGROUND, NO_BACKGROUND, VOID, has_background
from recseg.data.folder import SegmentationFolder
from recseg.data.pack import PackedFolder
from recseg.data.readers import leave_signals_to_parent
from recseg.data.transforms import eval_transform
from recseg.distributed import all_gather, rank, shard
from recseg.errors import RecsegError
from recseg.evaluation.metrics import SMALLEST_AREA, CalibrationMetric, SetMetric, SlotMetric, VOCMetric
from recseg.inference.fusion import fuse
from recseg.inference.mode import inference_mode
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput

SLOT_SIZE = 256  # the baseline's images and masks
_BATCH_PIXELS = 1 << 25  # of full-size labels in one batch: photographs of 12 megapixels go two by two


class Answer(NamedTuple):
    """What a network says of one image.

    Attributes:
        labels: (H, W) label map at the image's own size.
        classes: class id of each step, in the network's own order.
        masks: (N, 256, 256) bool, the mask of each step.
        stops: probability that the sequence had ended, for each decision that was taken; empty without a learned stop.
        probabilities: of the class of each step; empty for a dense network, which is sure of pixels, not of classes.
    """

    labels: Tensor
    classes: list[int]
    masks: Tensor
    stops: list[float]
    probabilities: list[float]


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
) -> dict[str, Any]:
    """Score a network on a data set, by the protocols VOC, slot and set.

    The network runs in `eval()` mode: dropout off, batch statistics frozen. Each module's mode is put back at the end.

    A dense network has no steps. It is taken to name the classes that cover at least 0.4 % of its label map, in
    ascending id: that is the 5 % quantile of class areas in VOC, below which its scattered specks would count as names.

    Args:
        model: recurrent, published or dense, from `recseg.load` or from training.
        dataset: without a transform: labels are needed as they are.
        batch_size: most images in one batch; only images of one shape share a batch.
        device: where to run; by default where the model is.
        workers: processes that read images beside this one.
        image_size: short side of the network's input; by default the model's own `image_size`.
        limit: only that many images, the first ones; by default all.
        progress: show a bar on stderr.
        on_bad_image: "stop": an image that cannot be read is an error; "skip": it is left out, and listed.

    Returns:
        JSON-able: `miou`, `iou_per_class` (name → value, None where a class occurs nowhere), `pixel_accuracy`,
        `confusion`; `slot_accuracy`, `slot_iou`, `slot_accuracy_own_order`, `slot_accuracy_per_class`,
        `slot_iou_per_class`, `slot_classes_without_hits`, `best_slot_accuracy` and `best_slot_iou` (class and value);
        `label_set_precision`, `label_set_recall`, `label_set_f1`, `count_accuracy`, `mean_steps`;
        `stop_calibration_error`, `stop_calibration`, `class_calibration_error`, `class_calibration`; `images`,
        `seconds`; with "skip", `skipped` (id → why); where the network names a class that the ground truth lacks,
        `miou_with_absent` (see `VOCMetric`).

    Raises:
        RecsegError: an empty data set, an image that cannot be read, or classes that are not those of the model.
    """
    _check(model, dataset)
    if limit is not None and limit < 1:
        raise RecsegError(f"limit {limit}: expected at least one image")
    names = dataset.classes
    background = has_background(names)
    voc, slot = VOCMetric(len(names)), SlotMetric(len(names))
    label_set = SetMetric()
    stop, named = CalibrationMetric("stop", "ended"), CalibrationMetric("class", "present")
    if device is not None:
        model.to(device)
    target = next(model.parameters()).device
    size = image_size or model.image_size
    if on_bad_image not in ("stop", "skip"):
        raise RecsegError(f"on_bad_image {on_bad_image!r}: expected stop or skip")
    skipped: dict[str, str] = {}
    source = _Prepared(dataset, size, model.input_size, limit)
    start = time.perf_counter()
    with inference_mode(model), tqdm(total=len(source), disable=not progress, unit="image") as bar:
        loader = DataLoader(source, batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_parent)
        for images, labels in _batches(_good(loader, bar, skipped if on_bad_image == "skip" else None), batch_size):
            output = model(images.to(target).float() / 255)  # (B, 3, h, w) floats in [0, 1]
            for answer, truth in zip(_answers(output, labels.shape[-2:], background), labels, strict=True):
                present = sorted(set(torch.unique(truth).tolist()) - {BACKGROUND, VOID})
                voc.update(answer.labels, truth.to(target))
                slot.update(answer.classes, answer.masks, _to_slot_size(truth))
                label_set.update(answer.classes, present, len(answer.classes))
                stop.update(answer.stops, [step >= len(present) for step in range(len(answer.stops))])
                if answer.probabilities:
                    named.update(answer.probabilities, [label in present for label in answer.classes])
            bar.update(len(images))
    metrics: list[Any] = [voc, slot, label_set, stop, named]
    for metric in metrics:  # sums of whole numbers: no order of adding changes them
        for process, other in enumerate(all_gather(metric)):
            if process != rank():
                metric.merge(other)
    for others in all_gather(skipped):
        skipped |= others
    if not label_set.images:
        raise RecsegError(f"none of {len(skipped)} images can be read; the first: {next(iter(skipped.values()))}")
    if not voc.confusion.any():
        raise RecsegError(f"{dataset.root}: the masks of {dataset.split} hold nothing but void: nothing to score")
    result = {**voc.compute(), **slot.compute(), **label_set.compute(), **stop.compute(), **named.compute()}
    result["seconds"] = round(time.perf_counter() - start, 3)
    if on_bad_image == "skip":
        where = f"{dataset.root}{os.sep}"  # a result tells of images, not of the place of a folder on some machine
        result["skipped"] = {name: why.replace(where, "") for name, why in skipped.items()}
    return _by_name(result, names)


def _check(model: SegmentationModel, dataset: SegmentationFolder) -> None:
    if not len(dataset):
        raise RecsegError("the data set to evaluate on has no images")
    if dataset.transform is not None:
        raise RecsegError("evaluation needs labels at their own size: open the data set without a transform")
    if isinstance(dataset, PackedFolder):
        raise RecsegError(f"{dataset.root}: is a pack, made smaller for training; score on what it was made of")
    known = model.num_classes
    if known != dataset.num_classes:
        raise RecsegError(f"the model knows {known} classes and the data set has {dataset.num_classes}")
    for index, (mine, theirs) in enumerate(zip(model.classes, dataset.classes, strict=False)):
        if mine != theirs:
            raise RecsegError(f"class {index} is {mine!r} to the model and {theirs!r} in the data set")


class _Bad(NamedTuple):
    """An image that cannot be read, and why. Handed on: an error would cross processes as a page of traceback."""

    id: str
    error: RecsegError


class _Prepared(Dataset[tuple[Tensor, Tensor] | _Bad]):
    """Images at the network's size and labels at their own, both uint8."""

    def __init__(self, dataset: SegmentationFolder, size: int | None, square: int | None, limit: int | None) -> None:
        self.dataset = dataset
        self.part = shard(min(len(dataset), limit or len(dataset)))  # of this process; without others, all
        self.transform = eval_transform(size)
        self.square = square

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | _Bad:
        try:
            sample = self.dataset[self.part[index]]
        except RecsegError as error:
            return _Bad(self.dataset.ids[self.part[index]], error)
        if self.square:  # a network with fully connected layers takes one size
            image = TF.resize(sample.image, [self.square, self.square], antialias=True)
        else:
            image = self.transform(sample).image
        return image.as_subclass(Tensor), sample.labels.as_subclass(Tensor).to(torch.uint8)


def _good(
    samples: Iterable[tuple[Tensor, Tensor] | _Bad], bar: "tqdm[Any]", skipped: dict[str, str] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples that could be read; the others go into `skipped`, or, where that is None, are an error."""
    for sample in samples:
        if not isinstance(sample, _Bad):
            yield sample
        elif skipped is None:
            raise sample.error
        else:
            skipped[sample.id] = str(sample.error)
            bar.update()


def _batches(samples: Iterable[tuple[Tensor, Tensor]], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Group images of one shape: (3, h, w) and (H, W) → (B, 3, h, w) and (B, H, W), in whatever order they fill."""
    waiting: dict[tuple[torch.Size, torch.Size], list[tuple[Tensor, Tensor]]] = {}
    for image, labels in samples:
        shape = (image.shape, labels.shape)
        waiting.setdefault(shape, []).append((image, labels))
        full = len(waiting[shape]) >= min(batch_size, max(1, _BATCH_PIXELS // labels.numel()))
        if not full and sum(map(len, waiting.values())) > 4 * batch_size:  # many odd shapes must not fill the memory
            shape, full = max(waiting, key=lambda key: len(waiting[key])), True
        if full:
            yield _stack(waiting.pop(shape))
    for rest in waiting.values():
        yield _stack(rest)


def _stack(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in samples]), torch.stack([labels for _, labels in samples])


def _answers(output: RecurrentOutput | Tensor, size: torch.Size, background: bool) -> Iterator[Answer]:
    """Answer for each image of a batch; its label map at `size`, (H, W) of the labels."""
    if isinstance(output, RecurrentOutput):
        yield from _from_sequence(output, (size[0], size[1]), background)
    else:
        yield from _from_pixels(output, (size[0], size[1]), background)


def _from_sequence(output: RecurrentOutput, size: tuple[int, int], background: bool) -> Iterator[Answer]:
    labels = fuse(output, size, background=background)  # (B, H, W)
    best = output.classes.float().softmax(dim=1).max(dim=1)  # (P,)
    steps, probabilities = (best.indices + 1).tolist(), best.values.tolist()  # column k is class k + 1
    stops = output.stop.float().sigmoid().tolist()  # B × T
    first = 0
    for image, count in enumerate(output.lengths.tolist()):
        pairs = slice(first, first + count)
        first += count
        masks = _resize(output.masks[pairs], (SLOT_SIZE, SLOT_SIZE)) > 0  # logit 0 is probability one half
        # Decisions taken: one before each live step, and the one that ended the sequence.
        yield Answer(labels[image], steps[pairs], masks.cpu(), stops[image][: count + 1], probabilities[pairs])


def _from_pixels(logits: Tensor, size: tuple[int, int], background: bool) -> Iterator[Answer]:
    labels, small = (_argmax(logits, to, 0 if background else 1) for to in (size, (SLOT_SIZE, SLOT_SIZE)))
    small = small.cpu()
    for image in range(len(logits)):
        area = torch.bincount(labels[image].flatten(), minlength=logits.shape[1])
        classes = [k for k in range(1, logits.shape[1]) if area[k] >= SMALLEST_AREA * labels[image].numel()]
        masks = small[image] == torch.tensor(classes, dtype=torch.int64).view(-1, 1, 1)  # (N, 256, 256)
        yield Answer(labels[image], classes, masks, [], [])


def _argmax(logits: Tensor, size: tuple[int, int], first: int = 0) -> Tensor:
    """Resize (B, C, h, w) and take the largest from label `first` on: (B, H, W). One class at a time saves memory."""
    best = _resize(logits[:, first], size)  # (B, H, W)
    labels = torch.full_like(best, first, dtype=torch.int64)
    for label in range(first + 1, logits.shape[1]):
        plane = _resize(logits[:, label], size)
        labels[plane > best] = label
        best = torch.maximum(best, plane)
    return labels


def _resize(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretch logits (N, h, w) → (N, H, W)."""
    if not len(planes):
        return planes.new_zeros(0, *size)
    return F.interpolate(planes[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def _to_slot_size(labels: Tensor) -> Tensor:
    """Labels (H, W) → (256, 256), each the label at the centre of its square: labels are names and do not blend."""
    planes = labels[None, None].float()  # whole numbers up to 255 are exact
    return F.interpolate(planes, size=(SLOT_SIZE, SLOT_SIZE), mode="nearest-exact")[0, 0].long()


def _by_name(result: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Lists by class id → dictionaries by class name, and the best class of each slot figure."""
    ious = dict(zip(names, result["iou_per_class"], strict=True))
    result["iou_per_class"] = {name: iou for name, iou in ious.items() if name != NO_BACKGROUND}
    result["slot_classes_without_hits"] = [names[k] for k in result["slot_classes_without_hits"]]
    for key in ("slot_accuracy", "slot_iou"):
        values = dict(zip(names[1:], result[f"{key}_per_class"], strict=True))
        result[f"{key}_per_class"] = values
        value, best = max(((value, name) for name, value in values.items() if value is not None), default=(None, None))
        result[f"best_{key}"] = {"class": best, "value": value}
    return result
