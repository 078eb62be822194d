"""Ablation study of the recurrent network: `python -m recseg.book.ablation` writes data/results/ablation.json.

Each row removes one part of the published network, or adds one that it does not have. All rows are trained for the same
number of updates and scored on images that are in no training or validation set, since design choices are based on
them. Finished runs are not repeated, and an interrupted ablation continues where it stopped.

By default encoder, decoder and classifier start from a trained dense network, and the steps are learned on top. This is
like the second phase of a long training run, in minutes instead of hours. With `--start none` all weights are random,
and pixels and steps are learned as in any other run.
"""

import argparse
import json
import shlex
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recseg.data import open_dataset
from recseg.data.folder import SegmentationFolder
from recseg.data.pictograms import write_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import write_result
from recseg.files import atomic_write
from recseg.models.config import RecurrentUNetConfig
from recseg.models.recurrent_unet import Features, RecurrentUNet, State, StepOutput
from recseg.resources import small_mode
from recseg.training.config import TrainConfig, resolve
from recseg.training.train import training_data
from recseg.training.trainer import Trainer
from recseg.weights.io import load

IMAGES, SEED = 500, 777  # of the pictograms to score on
SCORES = ("miou", "count_accuracy", "label_set_f1", "label_set_recall", "mean_steps")


class NoCoverage(RecurrentUNet):
    """The ConvLSTM does not get the coverage."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__(config)
        nn.init.zeros_(self.coverage.weight)
        self.coverage.requires_grad_(False)


class CoveredShare(RecurrentUNet):
    """The ConvLSTM gets the covered share, one number for the whole image, instead of the coverage map."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__(config)
        self.coverage.register_forward_pre_hook(
            lambda _, inputs: inputs[0].mean((2, 3), keepdim=True).expand_as(inputs[0])
        )


class NoUncovered(RecurrentUNet):
    """Coverage is not used at all, in the attention either: only the recurrent state carries over earlier steps."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__(config)
        self.coverage.requires_grad_(False)

    def step(self, features: Features, state: State) -> tuple[State, StepOutput]:
        return super().step(features, state._replace(uncovered=torch.ones_like(state.uncovered)))


class NoContext(RecurrentUNet):
    """The class is computed from the pixel embedding alone, without V."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__(config)
        self.context.requires_grad_(False)  # it starts at zero


class NoSuppression(RecurrentUNet):
    """A class may be named again."""

    def step(self, features: Features, state: State) -> tuple[State, StepOutput]:
        return super().step(features, state._replace(named=torch.zeros_like(state.named)))


class MaskFromAttention(RecurrentUNet):
    """The mask is the classifier's row plus γ times the logit of the attention map."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__(config)
        self.gamma = nn.Parameter(torch.tensor(0.3))

    def step(self, features: Features, state: State) -> tuple[State, StepOutput]:
        after, output = super().step(features, state)
        mask = output.mask + self.gamma * output.attention.logit(eps=1e-6).to(output.mask.dtype)
        uncovered = state.uncovered * (-mask.to(state.uncovered.dtype)).sigmoid()
        return after._replace(uncovered=uncovered), output._replace(mask=mask)


class ReadsEmbedding(RecurrentUNet):
    """The ConvLSTM also gets the pixel embedding E, averaged over the cells of its grid."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__(config)
        self.reduce_embedding = nn.Conv2d(self.decoder.channels, config.reduced, 1, bias=False)

    def encode(self, images: Tensor) -> Features:
        features = super().encode(images)
        x = features.x + self.reduce_embedding(self.pool(features.embedding))  # (B, reduced, gh, gw)
        return Features(features.embedding, x, self.cell.input_gates(x))


@dataclass(frozen=True)
class Row:
    """A row of the table: the network, its sizes and training options."""

    network: Callable[[RecurrentUNetConfig], RecurrentUNet] = RecurrentUNet
    sizes: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


ROWS = {
    "as it ships": Row(),
    "no coverage in the ConvLSTM": Row(NoCoverage),
    "covered share instead of coverage": Row(CoveredShare),
    "nothing is covered": Row(NoUncovered),
    "no context V": Row(NoContext),
    "no suppression of named classes": Row(NoSuppression),
    "mask + γ · attention": Row(MaskFromAttention),
    "ConvLSTM reads E as well": Row(ReadsEmbedding),
    "32 channels of state": Row(sizes={"hidden": 32}),
    "128 channels of state": Row(sizes={"hidden": 128}),
    "order: by class": Row(training={"order": "class"}),
    "order: by area": Row(training={"order": "area"}),
}


def one_run(
    work: Path, name: str, seed: int, steps: int, start: str, images: Path, limit: int | None
) -> dict[str, Any]:
    """Train one row with one seed and score it, or read the stored result."""
    run = work / Path(start).stem / f"{'-'.join(name.split())}-{steps}-{seed}"
    if (run / "scores.json").exists():
        return stored(run)
    row = ROWS[name]
    config = TrainConfig("pictograms", steps=steps, seed=seed, workers=0, **row.training)
    if start != "none":
        config = replace(config, pixels_first=0.0, lr=1.5e-3)
    config = resolve(replace(config, network=replace(config.network, **row.sizes)))
    trainer = Trainer(config, training_data(config), run, build=lambda chosen: row.network(chosen.network))
    if start != "none":
        dense = load(start).state_dict()
        for model in (trainer.model, trainer.averaged):
            model.load_state_dict(dense, strict=False)  # encoder, decoder and classifier have the same names
    return finish(trainer, run, open_dataset(str(images), "train"), limit)


def stored(run: Path) -> dict[str, Any]:
    """The scores that `finish` has stored."""
    found: dict[str, Any] = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return found


def finish(trainer: Trainer, run: Path, dataset: SegmentationFolder, limit: int | None = None) -> dict[str, Any]:
    """Train to the end (resuming if interrupted), score, and store seed, seconds and `SCORES`."""
    if (run / "checkpoint.safetensors").exists():
        trainer.restore()
    trainer.run(progress=False)
    size = trainer.config.image_size
    scores = evaluate(trainer.averaged, dataset, image_size=size, limit=limit, progress=False)
    found = {"seed": trainer.config.seed, "seconds": round(trainer.seconds, 1)}
    found |= {score: scores[score] for score in SCORES}
    with atomic_write(run / "scores.json") as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and range over a row's seeds."""
    values = {score: [run[score] for run in runs] for score in SCORES}
    means = {score: statistics.mean(found) for score, found in values.items()}
    return {"runs": runs, "mean": means, "range": {score: [min(v), max(v)] for score, v in values.items()}}


def main() -> None:
    """Run what is missing, and write the table of all finished runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="updates of each run (800)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (3)")
    parser.add_argument("--start", default="pictograms-dense", help="dense network to start from, or none")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--limit", type=int, help="score on the first N images only")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"), help="folder of the runs")
    parser.add_argument("--json", type=Path, default=Path("data/results/ablation.json"), help="the table")
    arguments = parser.parse_args()
    if small_mode():
        raise SystemExit("RECSEG_SMALL is set: an ablation needs the whole training set; unset it")
    images = arguments.work / "images"
    if not (images / "ImageSets").exists():
        write_dataset(images, IMAGES, SEED, val_fraction=0)
    table: dict[str, list[dict[str, Any]]] = {}
    for seed in range(arguments.seeds):  # one seed of every row first: the table is complete even if interrupted
        for name in arguments.only:
            found = one_run(arguments.work, name, seed, arguments.steps, arguments.start, images, arguments.limit)
            table.setdefault(name, []).append(found)
            print(f"{name}, seed {seed}: mIoU {found['miou']:.1%}, count {found['count_accuracy']:.1%}", flush=True)
            rows = {row: summary(runs) for row, runs in table.items()}
            command = f"python -m recseg.book.ablation --steps {arguments.steps} --seeds {arguments.seeds}"
            if arguments.start != parser.get_default("start"):
                command += f" --start {arguments.start}"
            if len(arguments.only) < len(ROWS):
                command += " --only " + " ".join(map(shlex.quote, arguments.only))
            scored = f"{arguments.limit or IMAGES} pictograms of seed {SEED}"
            write_result(arguments.json, {"rows": rows}, command=command, steps=arguments.steps, start=arguments.start,
                         scored_on=scored)  # fmt: skip


if __name__ == "__main__":
    main()
