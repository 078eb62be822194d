"""Statistics of a data set's label maps: classes per image, their areas, void. Only masks are read, no images.

`python book/count_classes.py voc train val --json data/results/voc-statistics.json` makes the table of chapter 1.
The streets of chapter 14: `python tests/streets.py streets`, then the same with `streets train val`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recseg.classes import BACKGROUND, VOC_CLASSES, VOID
from recseg.data import voc_root
from recseg.data.folder import find_root, read_split
from recseg.data.images import read_labels
from recseg.evaluation.results import write_result
from recseg.resources import resource

QUANTILES = (5, 25, 50, 75, 95)


def count(root: Path, split: str) -> dict[str, Any]:
    """Statistics of the label maps of one list."""
    ids = read_split(root, split)
    named = root / "classes.txt"
    classes = named.read_text(encoding="utf-8").split("\n")[:-1] if named.exists() else VOC_CLASSES
    labels = range(BACKGROUND + 1, len(classes))
    pixels = np.array(
        [
            np.bincount(read_labels(root / "SegmentationClass" / f"{name}.png", len(classes)).ravel(), minlength=256)
            for name in ids
        ]
    )  # (images, 256)
    share = pixels / pixels.sum(axis=1, keepdims=True)  # of the image
    present = pixels[:, labels] > 0  # (images, C)
    counts = present.sum(axis=1)
    known = np.delete(pixels.sum(axis=0), VOID)
    quantiles = np.percentile(share[:, labels][present], QUANTILES)
    return {
        "images": len(ids),
        "images_by_number_of_classes": {str(n): int((counts == n).sum()) for n in range(1, int(counts.max()) + 1)},
        "mean_classes": float(counts.mean()),
        "void": float(pixels[:, VOID].sum() / pixels.sum()),
        "class_area_percentiles": {str(q): float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        "images_with_class": {classes[label]: int(present[:, label - 1].sum()) for label in labels},
        # mIoU of predicting background everywhere: the other classes have an IoU of 0.
        "all_background_miou": float(known[BACKGROUND] / known.sum() / len(classes)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="voc, pictograms or a folder in VOC's layout")
    parser.add_argument("splits", nargs="+", help="lists to analyse")
    parser.add_argument("--json", type=Path, required=True, help="where to write the result")
    arguments = parser.parse_args()
    known: dict[str, Callable[[], Path]] = {"voc": voc_root, "pictograms": lambda: resource("pictograms")}
    root = known[arguments.data]() if arguments.data in known else find_root(arguments.data)
    splits = {split: count(root, split) for split in arguments.splits}
    command = ["python", "book/count_classes.py", *sys.argv[1:]]
    write_result(arguments.json, {"splits": splits}, command=command, data=arguments.data)


if __name__ == "__main__":
    main()
