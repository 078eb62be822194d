"""`recseg report`: how good a network is and what to try next, on one HTML page."""

import argparse
import sys
from pathlib import Path

from recseg.cli.arguments import positive
from recseg.cli.command import DATA_HELP, WEIGHTS_HELP, Commands, add_device, command, files_of
from recseg.cli.evaluate import load_network
from recseg.files import atomic_write, check_writable


def add(commands: Commands) -> None:
    """The arguments of `recseg report`."""
    parser = command(commands, "report", run)
    parser.add_argument("weights", metavar="RUN", help=f"{WEIGHTS_HELP}, or an exported .onnx")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--split", default="val", help="(default val)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only N images, evenly spaced over the list")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="(default report.html in the run's folder, or NAME-report.html here)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Show on one HTML page how good a network is, and what to try next.
    Training curves, scores of each class, confusions between classes, the worst and the best
    images with their steps, and what stands out. The page is self-contained and includes
    images of the data.

    example: recseg report runs/mine --data my_images --out report.html
    """
    from recseg.data import open_dataset
    from recseg.evaluation.results import without_paths
    from recseg.report.make import find_log, make_report, open_training
    from recseg.training.validation import spread

    out = arguments.out or default_name(arguments.weights)
    check_writable(out)
    log = find_log(arguments.weights)
    dataset = open_dataset(arguments.data, arguments.split)
    reads = [*files_of(arguments.weights), *dataset.files, *([log] if log else [])]
    check_writable(out, reads=reads)
    model = load_network(arguments.weights, arguments.device)
    training = open_training(model, arguments.data, dataset)
    if arguments.limit is not None:
        dataset = spread(dataset, arguments.limit)
    weights, data = without_paths([arguments.weights, arguments.data])
    words = " ".join(["recseg", *without_paths(arguments.argv)])
    html = make_report(
        model, dataset, title=f"{weights} on {data} {arguments.split}", log=log, training=training, command=words,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    with atomic_write(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"written: {out}")


def default_name(weights: str) -> Path:
    """In the run's folder; for a published name or a file, in the current folder."""
    path = Path(weights)
    return path / "report.html" if path.is_dir() else Path(f"{path.stem}-report.html")
