"""Train one dense U-Net on VOC several times, each time with one thing broken, and score it: chapter 12 reads the result.

`python book/five_percent.py --encoder-weights FILE --json data/results/five-percent.json` takes about ten minutes on
one core. The trainings are short, so that the *difference* that one fault makes can be seen; none of them is a good
network.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from recseg.classes import BACKGROUND, VOID, palette
from recseg.data import open_dataset
from recseg.data.folder import Sample
from recseg.data.images import resized_shape
from recseg.data.stream import batches
from recseg.errors import RecsegError
from recseg.evaluation import evaluate
from recseg.results import write_result
from recseg.training import Trainer, TrainConfig, training_data
from recseg.training_config import resolve

SIZE = 64  # short: in ten minutes there must be room for seven trainings
COLOURS = palette()[[*range(21), VOID]].astype(np.int64)  # (22, 3)


def void_as_background(sample: Sample) -> Sample:
    """Forget that 255 means "do not ask"."""
    return sample._replace(labels=sample.labels.where(sample.labels != VOID, torch.tensor(BACKGROUND)))


def smooth_masks(sample: Sample) -> Sample:
    """Resize the label map as one resizes a photograph: in colours, mixing them, and read the nearest colour."""
    height, width = sample.labels.shape
    rows, columns = resized_shape(height, width, SIZE)
    in_colour = Image.fromarray(palette()[sample.labels.numpy().astype(np.uint8)])
    mixed = np.asarray(in_colour.resize((columns, rows), Image.Resampling.BILINEAR)).astype(np.int64)  # (h, w, 3)
    found = np.abs(mixed[:, :, None] - COLOURS).sum(axis=3).argmin(axis=2)  # (h, w), 21 is void
    small = Image.fromarray(np.where(found == 21, VOID, found).astype(np.uint8))
    labels = np.asarray(small.resize((width, height), Image.Resampling.NEAREST))  # the crop is cut out of this
    return sample._replace(labels=type(sample.labels)(torch.from_numpy(labels.copy()).long()))


def variants(steps: int) -> dict[str, tuple[dict[str, Any], Callable[[Sample], Sample] | None]]:
    """Name → what differs in the configuration, and what is done to each label map."""
    return {
        "nothing": ({}, None),
        "masks resized smoothly": ({}, smooth_masks),
        "void trained as background": ({}, void_as_background),
        "a tenth of the updates": ({"steps": steps // 10, "warmup": 2}, None),
        "learning rate / 100": ({"lr": 2e-5}, None),
        "learning rate × 100": ({"lr": 2e-1}, None),
        "no pretraining": ({"encoder_weights": None}, None),
    }


def one(config: TrainConfig, spoil: Callable[[Sample], Sample] | None, limit: int | None) -> dict[str, Any]:
    """Train and score one variant."""
    config = resolve(config)
    dataset = training_data(config)
    if spoil is not None:
        inner = dataset.transform
        assert inner is not None
        dataset.transform = lambda sample: inner(spoil(sample))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, dataset, Path(folder) / "run")
        trainer.model.train()
        assert config.batch_size is not None and config.steps is not None
        stream = batches(dataset, config.batch_size, seed=config.seed)
        losses: list[float] = []
        try:
            for _ in range(config.steps):
                losses.append(float(trainer.update(next(stream))["loss"]))
                trainer.step += 1
        except RecsegError as error:
            print(error, file=sys.stderr)
        trainer.average.model.image_size = config.image_size
        scores = evaluate(trainer.average.model, open_dataset("voc", "val"), limit=limit, progress=False)
    last = losses[-10:]
    return {
        "updates": len(losses),
        "lr": config.lr,
        "loss_first": losses[0],
        "loss_last": sum(last) / len(last),
        **{key: scores[key] for key in ("miou", "pixel_accuracy", "iou_per_class", "images")},
        "classes_seen": sum((value or 0) > 0.01 for value in list(scores["iou_per_class"].values())[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder-weights", type=Path, required=True, help="MobileNetV2 of torchvision, safetensors")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--limit", type=int, help="score on that many images only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain = TrainConfig(
        "voc", model="dense", split="train", encoder="mobilenet_v2", encoder_weights=str(given.encoder_weights),
        steps=given.steps, size=SIZE, batch_size=16, warmup=20, workers=0, device="cpu",
    )  # fmt: skip
    runs: dict[str, Any] = {}
    for name, (changes, spoil) in variants(given.steps).items():
        runs[name] = one(replace(plain, **changes), spoil, given.limit)
        print(f"{name:28} mIoU {runs[name]['miou']:.1%}", flush=True)
    write_result(
        given.json, {"runs": runs}, command=["python", "book/five_percent.py", *sys.argv[1:]], seed=plain.seed,
        data="voc", split="val", train_split="train", size=SIZE, batch_size=plain.batch_size,
    )  # fmt: skip


if __name__ == "__main__":
    main()
