"""Publish a finished training: `make publish RUN=runs/x NAME=pictograms-recurrent DATA=pictograms`.

Halves the weights, scores the halved file (what is scored is what is shipped), enters it in the registry and keeps
scores and log under data/results. Then `make readme` brings the README up to date.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recseg.checkpoints import load, register, save_weights
from recseg.data import open_dataset
from recseg.evaluation import evaluate
from recseg.results import write_result
from recseg.training_config import TrainConfig, load_config, resolve

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "results"


def train_command(config: TrainConfig) -> str:
    """What a reader types to repeat a training: each option whose value is not what it would be without it."""
    given: dict[str, Any] = {"data": config.data}
    for name, value in asdict(config).items():
        without = getattr(resolve(TrainConfig(**given)), name)
        if name in ("minutes", "steps"):
            without = None  # a budget is always said
        if value is not None and value != without:
            given[name] = value
    if config.encoder_weights is not None:
        given["encoder_weights"] = Path(config.encoder_weights).name
    options = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    words = [
        word if value is True else f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}"
        for word, value in options
    ]
    return f"recseg train {' '.join(words)}"


def publish(run: Path, name: str, data: str, split: str, note: str | None) -> None:
    """Weights, scores and log of a run, under one name."""
    config = load_config(run / "config.json")
    model: Any = load(run)
    about = {**model.metadata, "command": train_command(config)} | ({"note": note} if note else {})
    halved = run / f"{name}.safetensors"
    save_weights(halved, model, classes=model.classes, image_size=model.image_size, metadata=about, half=True)
    shipped: Any = load(halved)
    scores = evaluate(shipped, open_dataset(data, split))
    command = f"recseg evaluate --weights {name} --data {data} --split {split}"  # what a reader can repeat
    origin = {"data": data, "split": split, "training": shipped.metadata}
    result = write_result(RESULTS / f"{name}.json", scores, command=command, seed=config.seed, **origin)
    register(name, halved, result)
    shutil.copy(run / "log.jsonl", RESULTS / f"{name}-log.jsonl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--note", help="what a reader must know about this training")
    arguments = parser.parse_args()
    publish(arguments.run, arguments.name, arguments.data, arguments.split, arguments.note)
