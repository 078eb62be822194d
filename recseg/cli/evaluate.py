"""`recseg evaluate`: score a network by three protocols."""

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from recseg.cli.arguments import positive, text_file
from recseg.cli.command import (
    DATA_HELP,
    WEIGHTS_HELP,
    Commands,
    add_device,
    command,
    files_of,
    message_stream,
    skipped_line,
)
from recseg.errors import RecsegError, counted
from recseg.files import check_writable
from recseg.training.config import ON_BAD_IMAGE

if TYPE_CHECKING:
    from recseg.data.folder import SegmentationFolder


def add(commands: Commands) -> None:
    """The arguments of `recseg evaluate`."""
    parser = command(commands, "evaluate", run)
    parser.add_argument("--weights", required=True, help=WEIGHTS_HELP + ", or an exported .onnx")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--split", default="val", help="(default val)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    parser.add_argument("--on-bad-image", choices=ON_BAD_IMAGE, default="stop", help="(default stop)")
    parser.add_argument(
        "--json", type=text_file, metavar="FILE", help="write the scores and how they were measured (- prints)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score a network by three protocols: VOC (mIoU), slots, label set.

    example: recseg evaluate --weights runs/first --data pictograms --split val --json scores.json
    """
    from recseg.data import open_dataset
    from recseg.distributed import process_group, rank
    from recseg.evaluation.evaluate import evaluate

    if arguments.json is not None:
        check_writable(arguments.json)
    with process_group(arguments.device) as device:
        dataset = open_dataset(arguments.data, arguments.split)
        if arguments.json is not None:
            check_writable(arguments.json, reads=[*files_of(arguments.weights), *dataset.files])
        model = load_network(arguments.weights, device)
        main = rank() == 0
        shown = main and sys.stderr.isatty()
        scores = evaluate(model, dataset, limit=arguments.limit, progress=shown, on_bad_image=arguments.on_bad_image)
    if not main:
        return
    messages = message_stream(arguments.json)
    print(score_table(scores, f"{arguments.weights} on {arguments.data} {arguments.split}"), file=messages)
    for note in _notes(dataset, scores, model.metadata):
        print(f"note: {note}", file=messages)
    if scores.get("skipped"):
        print(skipped_line(scores["skipped"]), file=messages)
    if arguments.json is not None:
        from recseg.evaluation.results import write_result

        origin = {"data": arguments.data, "split": arguments.split, "training": model.metadata}
        seed = model.metadata.get("seed")
        write_result(arguments.json, scores, command=["recseg", *arguments.argv], seed=seed, **origin)
        print(f"written: {arguments.json}", file=messages)


def _notes(dataset: "SegmentationFolder", scores: dict[str, Any], trained: dict[str, Any]) -> Iterator[str]:
    """Reasons why scores may look better than the network is."""
    from recseg.data.folder import read_split, shared_ids

    if not any(any(row) for row in scores["confusion"][1:]):
        yield "the ground truth has no class, only background"
    split = trained.get("split")
    if isinstance(split, str) and split != dataset.split:
        with suppress(RecsegError):  # no such list here: it was trained on other data
            shared = len(shared_ids(dataset.ids, read_split(dataset.root, split)))
            if shared:
                yield f"{shared} of these {len(dataset)} images are in the list that it was trained on ({split})"


def load_network(weights: str, device: str | None) -> Any:
    """Published weights, a file of weights, a run, or an exported network."""
    if weights.endswith(".onnx"):
        from recseg.export.network import OnnxNetwork

        return OnnxNetwork(weights)
    from recseg.devices import choose_device
    from recseg.weights.io import load

    return load(weights, choose_device(device))


def score_table(scores: dict[str, Any], title: str) -> str:
    """The three protocols, one below the other; their scores are not comparable with each other."""

    def percent(value: float | None) -> str:
        return "   –" if value is None or math.isnan(value) else f"{100 * value:4.1f}"

    lines = [
        f"{title}, {counted(scores['images'], 'image')}",
        f"VOC    mIoU {percent(scores['miou'])} %   pixel accuracy {percent(scores['pixel_accuracy'])} %",
    ]
    if "miou_with_absent" in scores:
        absent = "mIoU with the classes that occur only in predictions"
        lines.append(f"       {absent} {percent(scores['miou_with_absent'])} %")
    classes = [f"{name:<16}{percent(value)}" for name, value in scores["iou_per_class"].items()]
    rows = -(-len(classes) // 3)
    lines += ["       " + "    ".join(classes[row::rows]) for row in range(rows)]
    lines += [
        f"Slot   accuracy {percent(scores['slot_accuracy'])} %   IoU of the hits {percent(scores['slot_iou'])} %",
        f"Set    label-set F1 {percent(scores['label_set_f1'])} %   "
        f"count accuracy {percent(scores['count_accuracy'])} %   steps per image {scores['mean_steps']:.2f}",
    ]
    return "\n".join(lines)
