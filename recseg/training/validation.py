"""Validation: scores on held-out images during training.

Chapter 7 of the book explains this file. The averaged network is scored, since that is what gets published: mIoU, count
accuracy and label-set F1 as in `recseg evaluate`, and the training loss on crops without random resizing, mirroring or
colour jitter. The random state is left as it was, so that training does not depend on whether, or how often, the
network is scored.
"""

import copy
import itertools
from pathlib import Path
from typing import Any

import torch

from recseg.data import check_no_leak, open_dataset
from recseg.data.description import FILE
from recseg.data.folder import SegmentationFolder, find_root, read_split
from recseg.data.pack import PackedFolder
from recseg.data.readers import default_workers
from recseg.data.stream import batches
from recseg.data.transforms import train_transform
from recseg.distributed import broadcast_parameters, mean, shard
from recseg.errors import RecsegError
from recseg.evaluation.evaluate import evaluate
from recseg.inference.mode import eval_view
from recseg.models.model import SegmentationModel
from recseg.training.config import FEWEST, TrainConfig
from recseg.training.objective import compute_loss

NONE = "none"  # the `val_split` of a run without validation
SCORES = ("miou", "count_accuracy", "label_set_f1")


def validation_data(config: TrainConfig, training: SegmentationFolder) -> SegmentationFolder | None:
    """The images to validate on, or None.

    Args:
        config: of the run, resolved.
        training: the training images; for a pack, those to validate on are in the folder that it was made from.

    Raises:
        RecsegError: a list that was asked for does not exist, or the list shares an image with the training list. With
            `trainval`, which contains `val`, there is no validation unless it is asked for.
    """
    if config.val_split == NONE:
        return None
    split = config.val_split or "val"
    root = Path(training.header["source"]) if isinstance(training, PackedFolder) else training.root
    if config.val_split is None and config.data != "pictograms":
        try:
            held_out = read_split(find_root(root), split)
        except RecsegError:  # no list was asked for
            return None
        if training.split == "trainval":  # which contains val by definition
            return None
        try:
            check_no_leak(training, held_out)
        except RecsegError as error:
            raise RecsegError(
                f"{root}: {error}; take it out of one of them, or train without validation: --val-split none"
            ) from error
    if isinstance(training, PackedFolder):
        dataset = SegmentationFolder(root, split, classes=None if (root / FILE).exists() else training.classes)
    else:
        dataset = open_dataset(config.data, split)
    check_no_leak(training, dataset)
    assert config.val_limit is not None  # resolved
    return spread(dataset, config.val_limit)


def spread(dataset: SegmentationFolder, most: int) -> SegmentationFolder:
    """At most `most` images, spread evenly over the list: the first ones may all be of one year, or class."""
    count = min(most, len(dataset))
    indices = [number * len(dataset) // count for number in range(count)]
    fewer = copy.copy(dataset)
    fewer.ids = [dataset.ids[index] for index in indices]
    fewer.image_paths = [dataset.image_paths[index] for index in indices]
    fewer.mask_paths = [dataset.mask_paths[index] for index in indices]
    return fewer


class Validation:
    """The validations of a run: when the next one is due, and the best score so far.

    Args:
        config: of the run, resolved.
        dataset: held-out images, without a transform; None: no validation.
    """

    def __init__(self, config: TrainConfig, dataset: SegmentationFolder | None) -> None:
        self.config, self.dataset = config, dataset
        self.step, self.done = 0, 0.0  # at the last one; share of the budget
        self.best = -1.0  # mIoU

    def due(self, step: int, done: float) -> bool:
        """Every `val_every` updates, or every tenth of the minutes; and at the end, except in very short runs."""
        every = self.config.val_every
        if self.dataset is None or step == self.step or step < (every or FEWEST):
            return False
        if done >= 1:
            return True
        return step % every == 0 if every else step - self.step >= FEWEST and int(10 * done) > int(10 * self.done)

    def run(self, model: SegmentationModel, step: int, done: float) -> tuple[dict[str, Any], bool]:
        """Score the averaged network; also returns whether it is the best so far."""
        assert self.dataset is not None
        found = validate(model, self.dataset, self.config, done)
        self.step, self.done = step, done
        better = found["val_miou"] is not None and found["val_miou"] > self.best
        if better:
            self.best = found["val_miou"]
        return found, better

    def state(self) -> dict[str, Any]:
        """State to store in a checkpoint."""
        return {"step": self.step, "done": self.done, "best": self.best}

    def restore(self, state: dict[str, Any], done: float) -> None:
        """Restore the state from a checkpoint.

        Args:
            done: share of the budget that is used up; less than at the last validation if the budget was extended.
        """
        self.step, self.done, self.best = state["step"], min(state["done"], done), state["best"]


def validate(model: SegmentationModel, dataset: SegmentationFolder, config: TrainConfig, done: float) -> dict[str, Any]:
    """Scores and loss terms during training; several processes share the work, and all get the same result.

    Args:
        model: the averaged network, on its device.
        dataset: held-out images.
        config: of the run, resolved.
        done: share of the budget that is used up, which determines the loss.

    Returns:
        `val_loss` and its terms, `val_miou`, `val_count_accuracy`, `val_label_set_f1`, and `val_images`, the number of
        images that were scored.
    """
    assert config.batch_size is not None  # resolved
    # On CPUs each process has batch-norm statistics of its own; the first one's network gets saved, so it is scored.
    broadcast_parameters(model)
    workers = config.workers if config.workers is not None else default_workers()
    with torch.random.fork_rng(devices=[]):  # starting worker processes draws a random number
        scores = evaluate(
            model, dataset, batch_size=config.batch_size, image_size=config.image_size, workers=workers, progress=False,
            on_bad_image=config.on_bad_image,
        )  # fmt: skip
        losses = loss_terms(model, dataset, config, done, workers)
    found = losses | {name: scores[name] for name in SCORES}
    rounded = {name: None if value is None else round(value, 5) for name, value in found.items()}
    return {f"val_{name}": value for name, value in (rounded | {"images": scores["images"]}).items()}


def loss_terms(
    model: SegmentationModel, dataset: SegmentationFolder, config: TrainConfig, done: float, workers: int
) -> dict[str, float]:
    """Mean of each loss term over full batches of crops, across all processes."""
    assert config.batch_size is not None and config.size is not None  # resolved
    crops = copy.copy(dataset)
    crops.transform = train_transform(config.size, scale=(1.0, 1.0), jitter=0.0, flip=False)
    stream = batches(
        crops, config.batch_size, seed=0, workers=workers, part=shard(config.batch_size),
        skip=config.on_bad_image == "skip",
    )  # fmt: skip
    device = next(model.parameters()).device
    count, sums = max(1, len(dataset) // config.batch_size), dict[str, float]()
    network = eval_view(model)
    network.training = True  # the network only, not its norms: the loss needs the output of training mode
    with torch.inference_mode():
        for batch in itertools.islice(stream, count):
            images = batch.images.to(device).float() / 255  # (B, 3, S, S) in [0, 1]
            terms = compute_loss(network, images, batch.labels.to(device), batch.lengths, config, done)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.item() / count
    return dict(zip(sums, mean(*sums.values()), strict=True))
