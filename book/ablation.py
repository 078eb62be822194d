"""What each choice of the method is worth: `python book/ablation.py --seeds 3`, into data/results/ablation.json.

Each row changes one thing of the default. All are trained for the same number of updates and scored on pictograms that
are neither trained on nor the validation set: choices are made here, so the validation set must not see them. Runs go
to a folder, two beside each other; what is there already is not run again, and an interrupted run goes on.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from recseg.data.pictograms import write_dataset
from recseg.results import write_result

ROOT = Path(__file__).resolve().parent.parent
PICTURES, SEED = 500, 777  # of the pictograms to score on
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "order class": {"order": "class"},
    "order area": {"order": "area"},
    "feedback coverage": {"feedback": "coverage"},
    "auxiliary none": {"auxiliary": "none"},
    "pixels first 0": {"pixels-first": "0"},
    "head decoder": {"head": "decoder"},
    "dense twin": {"model": "dense"},
}
SCORES = ("miou", "count_accuracy", "label_set_f1", "slot_accuracy", "slot_iou", "mean_steps")


def command(*words: object) -> None:
    """Run a command of recseg on one thread, its talk in no one's way."""
    subprocess.run(
        [sys.executable, "-m", "recseg.cli", *map(str, words)],
        cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def one_run(work: Path, variant: str, seed: int, steps: int) -> dict[str, Any]:
    """Train and score one variant with one seed, unless that is done."""
    run = work / f"{variant.replace(' ', '-')}-{steps}-{seed}"
    scores = run / "scores.json"
    if not scores.exists():
        if (run / "config.json").exists():
            command("train", "--resume", run)
        else:
            options = [word for name, value in VARIANTS[variant].items() for word in (f"--{name}", value)]
            command("train", "--data", "pictograms", "--steps", steps, "--seed", seed, "--out", run, *options)
        command("evaluate", "--weights", run, "--data", work / "pictures", "--split", "train", "--json", scores)
    result = json.loads(scores.read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {name: result[name] for name in SCORES} | {"seed": seed, "seconds": log[-1]["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    pictures = arguments.work / "pictures"
    if not (pictures / "ImageSets").exists():
        write_dataset(pictures, PICTURES, SEED, val_fraction=0)

    rows: dict[str, Any] = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        seeds = range(arguments.seeds)  # a seed of every variant first: an interrupted ablation still is a whole table
        jobs = {
            pool.submit(one_run, arguments.work, variant, seed, arguments.steps): variant
            for seed in seeds
            for variant in arguments.only
        }
        for done in concurrent.futures.as_completed(jobs):
            rows.setdefault(jobs[done], []).append(done.result())
            print(jobs[done], done.result(), flush=True)
    table = {}
    for variant in arguments.only:
        runs = sorted(rows[variant], key=lambda run: int(run["seed"]))
        mious = [run["miou"] for run in runs]
        spread = statistics.stdev(mious) if len(mious) > 1 else None
        table[variant] = {"miou_mean": statistics.mean(mious), "miou_stdev": spread, "runs": runs}
    scored = f"{PICTURES} pictograms of seed {SEED}"
    write_result(ROOT / "data/results/ablation.json", {"variants": table}, steps=arguments.steps, scored_on=scored)


if __name__ == "__main__":
    main()
