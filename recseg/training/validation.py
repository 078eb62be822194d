"""How good is the network while it learns? A training scores itself on images that it does not learn from.

Chapter 7 of the book explains this file. The averaged network is scored, since that is what gets published: mIoU, count
accuracy and label-set F1 as `recseg evaluate` gives them, and the loss that is minimised, on crops without chance:
neither enlarged, mirrored nor recoloured. The random state is left as it was, so that nothing that is learned depends
on whether, or how often, it is scored.
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

NONE = "none"  # the `val_split` of a training that is not to be validated
SCORES = ("miou", "count_accuracy", "label_set_f1")


def validation_data(config: TrainConfig, training: SegmentationFolder) -> SegmentationFolder | None:
    """The images to validate on, or None.

    Args:
        config: of the training, resolved.
        training: what it learns from. The images that a pack was made of lie beside those to validate on.

    Raises:
        RecsegError: a list that was asked for is not there, or shares an image with the training list; but `trainval`
            may hold `val`, if none was asked for.
    """
    if config.val_split == NONE:
        return None
    split = config.val_split or "val"
    root = Path(training.header["source"]) if isinstance(training, PackedFolder) else training.root
    if config.val_split is None and config.data != "pictograms":
        try:
            held_out = read_split(find_root(root), split)
        except RecsegError:  # nobody asked for a validation
            return None
        if training.split == "trainval":  # which holds val by its meaning
            return None
        try:
            check_no_leak(training, held_out)
        except RecsegError as error:
            raise RecsegError(
                f"{root}: {error}; take it out of one of them, or train without a validation: --val-split none"
            ) from error
    if isinstance(training, PackedFolder):
        dataset = SegmentationFolder(root, split, classes=None if (root / FILE).exists() else training.classes)
    else:
        dataset = open_dataset(config.data, split)
    check_no_leak(training, dataset)
    assert config.val_limit is not None  # resolved
    return spread(dataset, config.val_limit)


def spread(dataset: SegmentationFolder, most: int) -> SegmentationFolder:
    """At most so many of the images, evenly spread over the list: its first ones may all be of one year, or class."""
    count = min(most, len(dataset))
    indices = [number * len(dataset) // count for number in range(count)]
    fewer = copy.copy(dataset)
    fewer.ids = [dataset.ids[index] for index in indices]
    fewer.image_paths = [dataset.image_paths[index] for index in indices]
    fewer.mask_paths = [dataset.mask_paths[index] for index in indices]
    return fewer


class Validation:
    """The validations of a training: when the next is due, and which was the best.

    Args:
        config: of the training, resolved.
        dataset: images that it does not learn from, without a transform; None: there are no validations.
    """

    def __init__(self, config: TrainConfig, dataset: SegmentationFolder | None) -> None:
        self.config, self.dataset = config, dataset
        self.step, self.done = 0, 0.0  # of the last one; share of the budget
        self.best = -1.0  # mIoU

    def due(self, step: int, done: float) -> bool:
        """Every `val_every` updates, or every tenth of the minutes; and at the end, but of the shortest trainings."""
        every = self.config.val_every
        if self.dataset is None or step == self.step or step < (every or FEWEST):
            return False
        if done >= 1:
            return True
        return step % every == 0 if every else step - self.step >= FEWEST and int(10 * done) > int(10 * self.done)

    def run(self, model: SegmentationModel, step: int, done: float) -> tuple[dict[str, Any], bool]:
        """Score the averaged network; also says whether it is the best so far."""
        assert self.dataset is not None
        found = validate(model, self.dataset, self.config, done)
        self.step, self.done = step, done
        better = found["val_miou"] is not None and found["val_miou"] > self.best
        if better:
            self.best = found["val_miou"]
        return found, better

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"step": self.step, "done": self.done, "best": self.best}

    def restore(self, state: dict[str, Any], done: float) -> None:
        """Go on from what a checkpoint kept.

        Args:
            done: share of the budget that is used up; less than the last validation knew where the budget has grown.
        """
        self.step, self.done, self.best = state["step"], min(state["done"], done), state["best"]


def validate(model: SegmentationModel, dataset: SegmentationFolder, config: TrainConfig, done: float) -> dict[str, Any]:
    """Scores and loss terms of a network in training; several processes share the work, and all get the same.

    Args:
        model: the averaged network, on its device.
        dataset: images that it does not learn from.
        config: of the training, resolved.
        done: share of the budget that is used up, which decides what the loss is.

    Returns:
        `val_loss` and its terms, `val_miou`, `val_count_accuracy`, `val_label_set_f1`, and `val_images`, the number of
        images that were scored.
    """
    assert config.batch_size is not None  # resolved
    # On CPUs each process has norm statistics of its own; what is scored is the first one's network, which gets saved.
    broadcast_parameters(model)
    workers = config.workers if config.workers is not None else default_workers()
    with torch.random.fork_rng(devices=[]):  # readers that are started draw a number
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
    """Mean of each loss term over whole batches of crops, all processes together."""
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
    network.training = True  # of the network alone, not of its norms: its output is that which a loss is made for
    with torch.inference_mode():
        for batch in itertools.islice(stream, count):
            images = batch.images.to(device).float() / 255  # (B, 3, S, S) in [0, 1]
            terms = compute_loss(network, images, batch.labels.to(device), batch.lengths, config, done)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.item() / count
    return dict(zip(sums, mean(*sums.values()), strict=True))
