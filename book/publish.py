"""Publish a finished run: `make publish RUN=runs/x NAME=pictograms-recurrent DATA=pictograms`.

Converts the weights to half precision, scores that file (so that what is shipped is what was scored), adds it to the
registry and stores scores and log in data/results. Then `make readme` updates the README.

With `--again NAME`, weights that are already published are scored again, after a change to the code.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from recseg.data import open_dataset
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import write_result
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.training.config import TrainConfig, load_config, resolve
from recseg.weights.io import load, save_weights
from recseg.weights.registry import register

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "results"
# Without effect on what is learned; for the network see `sizes`.
NO_MATTER = {
    "workers", "device", "checkpoint_seconds", "image_size", "network",
    "val_split", "val_every", "val_limit", "tensorboard",
}  # fmt: skip
STEPS_ONLY = {"order", "pixels_first"}  # without effect on networks without steps


def train_command(config: TrainConfig) -> str:
    """The command that repeats a training run, with every option whose value is not the default."""
    given: dict[str, Any] = {"data": config.data}
    silent = NO_MATTER | (set() if config.model == "recurrent" else STEPS_ONLY)
    for name, value in ((field.name, getattr(config, field.name)) for field in fields(config)):
        if name in silent:
            continue
        without = getattr(resolve(TrainConfig(**given, network=config.network)), name)
        if name in ("minutes", "steps"):
            without = None  # always show the budget
        if value is not None and value != without:
            given[name] = value
    given["data"] = Path(config.data).name  # file names only, without folders
    if config.encoder_weights is not None:
        given["encoder_weights"] = Path(config.encoder_weights).name
    options = [(f"--{name.replace('_', '-')}", value) for name, value in (given | sizes(config)).items()]
    return f"recseg train {' '.join(f'{option} {_typed(value)}'.strip() for option, value in options)}"


def sizes(config: TrainConfig) -> dict[str, Any]:
    """The network's fields that differ from the default, except `num_classes` and `max_steps`, set by the data."""
    kind = RecurrentUNetConfig if config.model == "recurrent" else UNetConfig
    without: dict[str, Any] = asdict(RecurrentUNetConfig(encoder=config.network.encoder)) | {"encoder": "plain"}
    names = [field.name for field in fields(kind) if field.name not in ("num_classes", "max_steps")]
    found = {name: getattr(config.network, name) for name in names}
    return {name: value for name, value in found.items() if value != without[name]}


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def publish(run: Path, name: str, data: str, split: str, note: str | None, image_size: int | None) -> None:
    """Publish weights, scores and log of a run under one name."""
    model: Any = load(run)
    model.image_size = image_size or model.image_size
    config = replace(load_config(run / "config.json"), image_size=model.image_size)
    about = {**model.metadata, "command": train_command(config)} | ({"note": note} if note else {})
    halved = run / f"{name}.safetensors"
    save_weights(halved, model, classes=model.classes, image_size=model.image_size, metadata=about, half=True)
    score(halved, name, data, split, config.seed)
    shutil.copy(run / "log.jsonl", RESULTS / f"{name}-log.jsonl")


def score(file: Path, name: str, data: str, split: str, seed: int) -> None:
    """Score the file that is shipped, and register both."""
    shipped: Any = load(file)
    scores = evaluate(shipped, open_dataset(data, split))
    command = f"recseg evaluate --weights {name} --data {data} --split {split}"  # for readers to repeat
    origin = {"data": data, "split": split, "training": shipped.metadata}
    result = write_result(RESULTS / f"{name}.json", scores, command=command, seed=seed, **origin)
    register(name, file, result)


def score_again(name: str, image_size: int | None = None, note: str | None = None) -> None:
    """Score published weights again, on the same images, with the current code and optionally at another size."""
    before = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    file = ROOT / "data" / "weights" / f"{name}.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        if image_size is not None:
            model: Any = load(file)
            notes = " ".join(filter(None, (model.metadata.get("note"), note)))
            about = model.metadata | ({"note": notes} if notes else {})
            resized = Path(folder) / file.name
            save_weights(resized, model, classes=model.classes, image_size=image_size, metadata=about, half=True)
            file = resized
        score(file, name, before["data"], before["split"], before["seed"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--note", help="what a reader must know about this run")
    parser.add_argument("--image-size", type=int, help="short side to predict at, if it was chosen after training")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="score published weights again")
    arguments = parser.parse_args()
    if not arguments.again and not (arguments.run and arguments.name and arguments.data):
        parser.error("expected RUN NAME --data DATA, or --again NAME …")
    for published in arguments.again:
        score_again(published, arguments.image_size, arguments.note)
    if arguments.run:
        publish(arguments.run, arguments.name, arguments.data, arguments.split, arguments.note, arguments.image_size)
