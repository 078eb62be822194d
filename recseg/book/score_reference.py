"""Score a widely deployed network on the same images: `python -m recseg.book.score_reference FILE`.

FILE is a TensorFlow Lite DeepLabv3 for VOC's 21 labels, run by the package ai-edge-litert: 513×513 uint8 pixels in (the
longer side scaled to 513, the rest black), labels out. It has no steps; which classes it names is decided as
`recseg.evaluate` does for dense networks. Its score shows what is possible and does not compare methods: it was trained
on COCO and on a VOC list that is not published with it and may contain these images.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from recseg.benchmark.deployed import SIDE, reference
from recseg.classes import BACKGROUND, SMALLEST_AREA, VOID
from recseg.data import open_dataset
from recseg.evaluation.metrics import SetMetric, VOCMetric
from recseg.evaluation.results import write_result
from recseg.inference.prediction import as_image


def main() -> None:
    """Score FILE on a split, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="the TensorFlow Lite network")
    parser.add_argument("--data", default="voc", help="as of `recseg evaluate` (voc)")
    parser.add_argument("--split", default="val", help="(val)")
    parser.add_argument("--json", type=Path, default=Path("data/results/voc-deeplabv3.json"), help="the result")
    arguments = parser.parse_args()
    network = reference(arguments.file, threads=torch.get_num_threads())
    dataset = open_dataset(arguments.data, arguments.split)
    pixels, names = VOCMetric(dataset.num_classes), SetMetric()
    for index in tqdm(range(len(dataset)), unit="image"):
        image, truth = as_image(dataset.pixels(index)), dataset[index].labels
        scale = SIDE / max(image.size)
        width, height = (round(scale * side) for side in image.size)
        square = Image.new("RGB", (SIDE, SIDE))
        square.paste(image.resize((width, height), Image.Resampling.BILINEAR))
        found = Image.fromarray(network(square).reshape(SIDE, SIDE)[:height, :width].astype(np.uint8))
        labels = torch.from_numpy(np.array(found.resize(image.size, Image.Resampling.NEAREST))).long()  # (H, W)
        pixels.update(labels, truth)
        each, count = labels.unique(return_counts=True)
        named = set(each[count >= SMALLEST_AREA * labels.numel()].tolist()) - {BACKGROUND}
        names.update(named, set(truth.unique().tolist()) - {BACKGROUND, VOID}, len(named))
    scores = {"images": len(dataset), **pixels.compute(), **names.compute()}
    command = f"python -m recseg.book.score_reference {arguments.file.name}"
    write_result(
        arguments.json, {"scores": scores}, command=command, seed=0, data=arguments.data, split=arguments.split
    )
    print(f"mIoU {scores['miou']:.1%}, label-set F1 {scores['label_set_f1']:.1%}, count {scores['count_accuracy']:.1%}")


if __name__ == "__main__":
    main()
