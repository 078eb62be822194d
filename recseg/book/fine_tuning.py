"""Compare initial weights for fine-tuning on few images: `python -m recseg.book.fine_tuning`.

The data are the objects on a table of chapter 11, classes that no published network has learned: 20 or 100 images to
train on, 200 others to score. Rows differ in the initial weights; all have the same number of updates, and the defaults
of their encoder (`recseg.training.config.resolve`). Writes data/results/fine-tuning.json. Finished runs are not
repeated.
"""

import argparse
from pathlib import Path
from typing import Any

from recseg.book.ablation import finish, stored, summary
from recseg.book.tabletop import UNCLEAR, write_export
from recseg.data import open_dataset
from recseg.data.annotations import read_export
from recseg.data.annotations.write import write_folder
from recseg.evaluation.results import write_result
from recseg.models.config import RecurrentUNetConfig
from recseg.training.config import TrainConfig, resolve
from recseg.training.initial import network_of
from recseg.training.train import training_data
from recseg.training.trainer import Trainer

IMAGES = (20, 100)
SCORED = 200


def starts(photographs: str, drawings: str, imagenet: str) -> dict[str, dict[str, Any]]:
    """Fields of `TrainConfig` for each row.

    Args:
        photographs: weights of a network trained on photographs.
        drawings: weights of a network trained on drawings.
        imagenet: ImageNet weights for the encoder of the former.
    """
    encoder = network_of(photographs).encoder
    return {
        "from scratch": {},
        "all weights, from drawings": {"init": drawings, "network": network_of(drawings)},
        "encoder, from ImageNet": {"encoder_weights": imagenet, "network": RecurrentUNetConfig(encoder=encoder)},
        "all weights, from photographs": {"init": photographs, "network": network_of(photographs)},
    }


def write_data(folder: Path) -> None:
    """Write the images and the lists `train20`, `train100` and `val`; `train20` is the start of `train100`."""
    export = folder.with_name("export")
    write_export(export, max(IMAGES) + SCORED, twice=max(IMAGES) + SCORED)
    write_folder(read_export(export, "coco"), folder, val_fraction=0)
    classes = (folder / "classes.txt").read_text(encoding="utf-8").split()
    rows = [f"{value},{'void' if name == UNCLEAR else name}" for value, name in enumerate(classes)]
    (folder / "classes.txt").write_text("\n".join(["value,name", *rows, ""]), encoding="utf-8")
    lists = folder / "ImageSets/Segmentation"
    ids = sorted((lists / "train.txt").read_text(encoding="utf-8").split())
    for count in IMAGES:
        (lists / f"train{count}.txt").write_text("\n".join(ids[:count]), encoding="utf-8")
    (lists / "val.txt").write_text("\n".join(ids[-SCORED:]), encoding="utf-8")


def one_run(run: Path, data: Path, images: int, seed: int, **start: Any) -> dict[str, Any]:
    """Train from one start on `images` images and score it, or read the stored result."""
    if (run / "scores.json").exists():
        return stored(run)
    config = resolve(TrainConfig(
        str(data), split=f"train{images}", seed=seed, size=96, image_size=96, batch_size=8, warmup=20, ema=0.98,
        workers=0, **start,
    ))  # fmt: skip
    return finish(Trainer(config, training_data(config), run), run, open_dataset(str(data), "val"))


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", default="voc-recurrent", metavar="WEIGHTS", help="(voc-recurrent)")
    parser.add_argument("--drawings", default="pictograms-recurrent", metavar="WEIGHTS", help="(pictograms-recurrent)")
    parser.add_argument("--imagenet", required=True, metavar="FILE", help="for the encoder, as of --encoder-weights")
    parser.add_argument("--steps", type=int, default=400, help="updates of each run (400)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (3)")
    parser.add_argument("--work", type=Path, default=Path("runs/fine-tuning"), help="folder of the runs")
    parser.add_argument("--json", type=Path, default=Path("data/results/fine-tuning.json"), help="the table")
    arguments = parser.parse_args()
    data = arguments.work / "data"
    if not data.exists():
        write_data(data)
    table: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for seed in range(arguments.seeds):
        for name, start in starts(arguments.photographs, arguments.drawings, arguments.imagenet).items():
            for images in IMAGES:
                run = arguments.work / f"{'-'.join(name.split())}-{images}-{seed}"
                found = one_run(run, data, images, seed, steps=arguments.steps, **start)
                table.setdefault(name, {}).setdefault(images, []).append(found)
                print(f"{name}, {images} images, seed {seed}: mIoU {found['miou']:.1%}", flush=True)
    rows = {name: {images: summary(runs) for images, runs in row.items()} for name, row in table.items()}
    command = f"python -m recseg.book.fine_tuning --imagenet {Path(arguments.imagenet).name}"
    write_result(arguments.json, {"rows": rows}, command=command, steps=arguments.steps, scored_on=SCORED)


if __name__ == "__main__":
    main()
