"""Effect of input size and precision on a network's scores: `python -m recseg.book.measure_sizes NAME …`.

Each network is scored at several short sides in 32 bits, and at its own size in bfloat16 and in 8 bits (`recseg export
--int8`, on ONNX Runtime). This table must not be used to choose a network's size, since its images are those that
scores are reported on.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from recseg.book.ablation import SCORES
from recseg.data import open_dataset, open_train
from recseg.data.folder import SegmentationFolder
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import write_result
from recseg.export.network import OnnxNetwork
from recseg.export.onnx import export
from recseg.export.quantise import quantise
from recseg.models.model import SegmentationModel
from recseg.weights.io import load

SIZES = (160, 192, 224, 256, 288, 320, 384)


def measure(
    model: SegmentationModel,
    dataset: SegmentationFolder,
    calibration: SegmentationFolder,
    sizes: Sequence[int] = SIZES,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """`image_size`, `precision` and `SCORES` of each row.

    Args:
        model: from `recseg.load`.
        dataset: the images to report on.
        calibration: training images to calibrate the 8-bit ranges on.
        sizes: short sides of the network's input.
        limit: maximum number of images.
    """

    def row(network: SegmentationModel, precision: str, size: int | None = None) -> dict[str, Any]:
        scores = evaluate(network, dataset, image_size=size, limit=limit, progress=False)
        values = {name: scores[name] for name in SCORES}
        return {"image_size": size or network.image_size, "precision": precision, **values}

    for size in sizes:
        yield row(model, "float32", size)
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        yield row(model, "bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export(model, path)
        quantise(path, calibration)
        yield row(OnnxNetwork(path), "int8")


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="published weights, a file, or the folder of a run")
    parser.add_argument("--data", default="voc", help="as of `recseg evaluate` (voc)")
    parser.add_argument("--split", default="val", help="(val)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--json", type=Path, default=Path("data/results/voc-sizes.json"), help="the result")
    arguments = parser.parse_args()
    dataset, calibration = open_dataset(arguments.data, arguments.split), open_train(arguments.data)
    rows = []
    for name in arguments.names:
        for row in measure(load(name), dataset, calibration, limit=arguments.limit):
            rows.append({"weights": Path(name).stem, **row})
            print(rows[-1], flush=True)
    command = ["python", "-m", "recseg.book.measure_sizes", *arguments.names]
    write_result(
        arguments.json, {"images": min(len(dataset), arguments.limit or len(dataset)), "rows": rows}, command=command,
        data=arguments.data, split=arguments.split,
    )  # fmt: skip


if __name__ == "__main__":
    main()
