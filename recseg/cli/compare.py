"""`recseg compare`: compare networks, several seeds of each, with controls and intervals."""

import argparse
import sys
from functools import partial

from recseg.cli.arguments import positive, side, text_file
from recseg.cli.command import DATA_HELP, WEIGHTS_HELP, Commands, add_device, command, files_of
from recseg.cli.evaluate import load_network
from recseg.errors import RecsegError
from recseg.files import STDOUT, check_writable


def add(commands: Commands) -> None:
    """The arguments of `recseg compare`."""
    parser = command(commands, "compare", run)
    parser.add_argument(
        "--group", action="append", nargs="+", required=True, metavar=("NAME", "RUN"),
        help=f"a name, then a run per seed ({WEIGHTS_HELP}, or an exported .onnx); each is compared with later ones",
    )  # fmt: skip
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--split", default="val", help="images to report on (default val)")
    parser.add_argument("--choose-split", metavar="SPLIT", help="other images, to choose area thresholds on")
    parser.add_argument("--image-size", type=side, metavar="PIXELS", help="short side (default: each network's own)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images of each list")
    parser.add_argument("--per-class", action="store_true", help="also print the IoU of each class")
    parser.add_argument("--json", type=text_file, metavar="FILE", help="write the result, and the counts next to it")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Compare networks, several seeds of each: differences with intervals, and controls.

    example: recseg compare --group recurrent runs/r0 runs/r1 --group dense runs/d0 runs/d1 --data voc
    """
    from recseg.evaluation.compare import summarise
    from recseg.evaluation.counts import count, counts_file, write_counts
    from recseg.evaluation.report import markdown
    from recseg.evaluation.results import write_result

    if arguments.json is not None:
        if arguments.json == STDOUT:
            raise RecsegError("--json -: writes two files, expected the name of the first")
        runs = [file for _, *runs in arguments.group for run in runs for file in files_of(run)]
        check_writable(arguments.json, counts_file(arguments.json), reads=runs)
    counts = count(
        arguments.group, arguments.data, arguments.split, arguments.choose_split,
        partial(load_network, device=arguments.device), image_size=arguments.image_size, limit=arguments.limit,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    result = summarise(counts)
    print(markdown(result, per_class=arguments.per_class), end="")
    if arguments.json is not None:
        write_counts(counts_file(arguments.json), counts)
        origin = {"data": arguments.data, "split": arguments.split}
        write_result(arguments.json, result, command=["recseg", *arguments.argv], seed=0, **origin)
        print(f"written: {arguments.json} and {counts_file(arguments.json).name}")
