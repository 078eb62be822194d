"""Train one dense U-Net on VOC several times, each time with one thing broken, and score it.

Chapter 12 of the book reads the result.

`python book/five_percent.py --encoder-weights FILE --json data/results/five-percent.json` takes about ten minutes on
one core. The trainings are short, so that the *difference* that one fault makes can be seen; none of them is a good
network.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recseg.data import open_dataset
from recseg.data.stream import batches
from recseg.errors import RecsegError
from recseg.evaluation import evaluate
from recseg.results import write_result
from recseg.training import TrainConfig, Trainer, training_data
from recseg.training_config import resolve

SIZE = 64  # short: in ten minutes there must be room for four trainings


def variants(steps: int) -> dict[str, dict[str, Any]]:
    """Name → what differs in the configuration: one thing at a time."""
    return {
        "nothing": {},
        "no pretraining": {"encoder_weights": None},
        "learning rate / 100": {"lr": 2e-5},
        "a tenth of the updates": {"steps": steps // 10, "warmup": 2},
    }


def one(config: TrainConfig, limit: int | None) -> dict[str, Any]:
    """Train and score one variant."""
    config = resolve(config)
    dataset = training_data(config)
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
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=int, help="score on that many images only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain = TrainConfig(
        "voc", model="dense", split="train", encoder="mobilenet_v2", encoder_weights=str(given.encoder_weights),
        steps=given.steps, size=SIZE, batch_size=16, warmup=20, workers=0, device="cpu",
    )  # fmt: skip
    runs: dict[str, Any] = {}
    for name, changes in variants(given.steps).items():
        runs[name] = one(replace(plain, **changes), given.limit)
        print(f"{name:28} mIoU {runs[name]['miou']:.1%}", flush=True)
    write_result(
        given.json, {"runs": runs}, command=["python", "book/five_percent.py", *sys.argv[1:]], seed=plain.seed,
        data="voc", split="val", train_split="train", size=SIZE, batch_size=plain.batch_size,
    )  # fmt: skip


if __name__ == "__main__":
    main()
