"""Score trainings beside each other, into one file: `python book/compare.py voc-seeds runs/a runs/b … --data voc`.

For comparisons whose weights are not published: several seeds, another head, from scratch. Each run keeps what it was
asked for, so that a reader can repeat it. With `--keep` the rows that stand there already stay, each with the commit
that scored it, but for those of the same command.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from publish import ROOT, train_command

from recseg.data import open_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import write_result
from recseg.training.config import load_config
from recseg.training.trainer import choose_precision, precision_name
from recseg.viz.figures import read_log
from recseg.weights.io import load

SCORES = (
    "miou", "slot_accuracy", "slot_iou", "best_slot_accuracy", "best_slot_iou", "count_accuracy", "label_set_f1",
    "mean_steps", "stop_calibration_error", "class_calibration_error", "iou_per_class",
)  # fmt: skip


def one(run: Path, data: str, split: str) -> dict[str, Any]:
    """What a run was asked for, how long it learned, how it scores."""
    config, last = load_config(run / "config.json"), read_log(run / "log.jsonl")[-1]
    # In 16 bits where the hardware is fast at them, for all alike: the published network takes seconds a picture.
    precision = choose_precision("auto", torch.device("cpu"))
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        scores = evaluate(load(run), open_dataset(data, split))
    about = {
        "model": config.model, "head": config.head, "encoder": config.encoder, "seed": config.seed,
        "feedback": config.feedback if config.model == "recurrent" and config.head == "embedding" else None,
        "pretrained": bool(config.encoder_weights or config.pretrained), "updates": last["step"],
        "minutes": round(last["seconds"] / 60, 1), "command": train_command(config), "images": scores["images"],
        "scored_in": precision_name(precision),
    }  # fmt: skip
    return about | {name: scores[name] for name in SCORES}


def kept(result: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a file whose command none of the new rows has, with the commit that scored them."""
    before = json.loads(result.read_text(encoding="utf-8"))
    new = {run["command"] for run in runs}
    return [{"commit": before["commit"]} | row for row in before["runs"] if row["command"] not in new]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of data/results/NAME.json")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--keep", action="store_true", help="keep the rows that are there already")
    parser.add_argument("--note", help="what a reader must know about these trainings")
    arguments = parser.parse_args()
    result = ROOT / "data" / "results" / f"{arguments.name}.json"
    runs = [one(run, arguments.data, arguments.split) for run in arguments.runs]
    if arguments.keep:
        runs += kept(result, runs)
    data = Path(arguments.data).name  # by its own name, not by where it lies
    details = {"data": data, "split": arguments.split} | ({"note": arguments.note} if arguments.note else {})
    command = f"python book/compare.py {arguments.name} RUN … --data {data} --split {arguments.split}"
    write_result(result, {"runs": runs}, command=command, **details)


if __name__ == "__main__":
    main()
