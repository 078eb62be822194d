"""What each choice of the method is worth: `python book/ablation.py`, into data/results/ablation.json.

Each row changes one thing of the default. All are trained for the same number of updates and scored on pictograms that
are neither trained on nor the validation set: choices are made here, so the validation set must not see them. What is
done is not run again, and an interrupted ablation goes on.

With `--start pictograms-dense` the pixels are known already: encoder, decoder and classifier begin as those of the
published twin, and the steps are learned on top. That is what the second part of a long training looks like.
"""

import argparse
import concurrent.futures
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from recseg.data import open_dataset
from recseg.data.pictograms import write_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import write_result
from recseg.files import atomic_write
from recseg.training.config import TrainConfig, resolve
from recseg.training.optim import averaged_model
from recseg.training.trainer import Trainer, training_data
from recseg.weights.io import load

ROOT = Path(__file__).resolve().parent.parent
PICTURES, SEED = 500, 777  # of the pictograms to score on
POINTS = 5  # of each learning curve
MOST_SEEDS = 10
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "dense twin": {"model": "dense"},
    "order class": {"order": "class"},
    "order area": {"order": "area"},
    "feedback none": {"feedback": "none"},
    "feedback claimed": {"feedback": "claimed"},
    "feedback remaining": {"feedback": "remaining"},
    "feedback coverage": {"feedback": "coverage"},
    "auxiliary none": {"auxiliary": "none"},
    "pixels first 0": {"pixels_first": 0.0},
    "head decoder": {"head": "decoder"},
    "head decoder, order class": {"head": "decoder", "order": "class"},
    "optimiser adamw": {"optimiser": "adamw"},
    "dense twin, optimiser adamw": {"model": "dense", "optimiser": "adamw"},
}
SCORES = ("miou", "count_accuracy", "label_set_f1", "slot_accuracy", "slot_iou", "mean_steps")


# With a start there is nothing to learn first, and half the usual rate does.
STARTED: dict[str, Any] = {"pixels_first": 0.0, "lr": 1.5e-3}


def begin_with(trainer: Trainer, start: str) -> None:
    """Give a recurrent network the encoder, decoder and classifier of a published dense one."""
    twin: Any = load(start)
    trainer.model.encoder.load_state_dict(twin.encoder.state_dict())
    trainer.model.decoder.load_state_dict(twin.decoder.state_dict())
    trainer.model.head.classifier.load_state_dict(twin.classifier.state_dict())
    trainer.average = averaged_model(trainer.model, trainer.config.ema)


def folder(work: Path, variant: str, seed: int, steps: int) -> Path:
    return work / f"{variant.replace(', ', '-').replace(' ', '-')}-{steps}-{seed}"


def read_curve(run: Path) -> list[dict[str, Any]]:
    """What was found of a run so far, a point of its learning curve each."""
    curve: list[dict[str, Any]] = []
    if (run / "curve.json").exists():
        curve = json.loads((run / "curve.json").read_text(encoding="utf-8"))
    return curve


def one_run(work: Path, variant: str, seed: int, steps: int, start: str | None = None) -> dict[str, Any]:
    """Train one variant with one seed, scored at a few points on the way; or read what was found before."""
    torch.set_num_threads(1)
    run = folder(work, variant, seed, steps)
    curve = read_curve(run)
    if len(curve) < POINTS:
        changes = VARIANTS[variant] | (STARTED if start else {})
        config = resolve(TrainConfig(data="pictograms", steps=steps, seed=seed, **changes))
        trainer = Trainer(config, training_data(config), run)
        if start:
            begin_with(trainer, start)
        if (run / "checkpoint.safetensors").exists():
            trainer.restore()
        pictures = open_dataset(str(work / "pictures"), "train")
        for point in range(len(curve) + 1, POINTS + 1):
            trainer.run(progress=False, until=steps * point // POINTS)
            scores = evaluate(trainer.averaged, pictures, image_size=config.image_size, progress=False)
            found = {name: scores[name] for name in SCORES}
            curve.append({"step": trainer.step, "seconds": round(trainer.seconds, 1)} | found)
            with atomic_write(run / "curve.json") as temporary:
                temporary.write_text(json.dumps(curve), encoding="utf-8")
    return curve[-1]


def row(work: Path, variant: str, steps: int) -> dict[str, Any] | None:
    """Mean and spread over all seeds that are done; None where there are none."""
    runs = []
    for seed in range(MOST_SEEDS):
        curve = read_curve(folder(work, variant, seed, steps))
        if len(curve) == POINTS:
            runs.append({"seed": seed, "curve": [[point["step"], point["miou"]] for point in curve]} | curve[-1])
    if not runs:
        return None
    mious = [run["miou"] for run in runs]
    spread = statistics.stdev(mious) if len(mious) > 1 else None
    return {"miou_mean": statistics.mean(mious), "miou_stdev": spread, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, MOST_SEEDS + 1), metavar="N")
    parser.add_argument("--start", metavar="NAME", help="published dense network whose pixels to begin with")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--processes", type=int, default=2, help="runs beside each other, one core each")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    work = arguments.work / arguments.start if arguments.start else arguments.work
    pictures = work / "pictures"
    if not (pictures / "ImageSets").exists():
        write_dataset(pictures, PICTURES, SEED, val_fraction=0)

    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        # A seed of every variant first: an interrupted ablation still is a whole table.
        jobs = {
            pool.submit(one_run, work, variant, seed, arguments.steps, arguments.start): (variant, seed)
            for seed in range(arguments.seeds)
            for variant in arguments.only
        }
        for done in concurrent.futures.as_completed(jobs):
            print(*jobs[done], done.result(), flush=True)
    # All that is there, asked for now or before: rows that matter get more seeds than others.
    table = {variant: found for variant in VARIANTS if (found := row(work, variant, arguments.steps))}
    scored = f"{PICTURES} pictograms of seed {SEED}"
    name = f"ablation-{arguments.start}.json" if arguments.start else "ablation.json"
    details = {"start": arguments.start} if arguments.start else {}
    # Not what this call asked for, which may have been a part: each row names its own seeds.
    command = (
        f"python book/ablation.py{f' --start {arguments.start}' if arguments.start else ''} --steps {arguments.steps}"
    )
    write_result(
        ROOT / "data" / "results" / name,
        {"variants": table},
        command=command,
        steps=arguments.steps,
        scored_on=scored,
        **details,
    )


if __name__ == "__main__":
    main()
