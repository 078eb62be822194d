"""`recseg benchmark`: compare time and memory with a dense U-Net and the published network."""

import argparse
import sys
from pathlib import Path

from recseg.benchmark import PARTS
from recseg.cli.arguments import encoder, positive, text_file
from recseg.cli.command import Commands, add_device, command, message_stream
from recseg.errors import RecsegError
from recseg.files import check_writable


def add(commands: Commands) -> None:
    """The arguments of `recseg benchmark`."""
    parser = command(commands, "benchmark", run)
    option = parser.add_argument
    option("--only", nargs="+", choices=PARTS, metavar="PART", help=f"any of {', '.join(PARTS)} (default all)")
    option("--size", type=positive, default=256, metavar="PIXELS", help="side of the images (default 256)")
    option("--rounds", type=positive, default=5, metavar="N", help="rounds per network (default 5)")
    option("--encoder", type=encoder, metavar="NAME", default="mobilenet_v2", help="(default mobilenet_v2)")
    option("--threads", type=positive, metavar="N", help="CPU threads (default: one per core)")
    option("--reference", type=Path, metavar="FILE", help="TensorFlow Lite network to compare the exported one with")
    option("--json", type=text_file, metavar="FILE", help="write all figures and how they were measured (- prints)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Compare time and memory with a dense U-Net and the published network.

    example: recseg benchmark --only inference --json inference.json
    """
    reference: Path | None = arguments.reference
    if reference is not None and not reference.is_file():
        raise RecsegError(f"--reference {reference}: no such file")
    if arguments.json is not None:
        check_writable(arguments.json, reads=[] if reference is None else [reference])
    import torch

    from recseg.benchmark.run import bar_table, benchmark

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    found = benchmark(
        arguments.only or PARTS, device=arguments.device, side=arguments.size, rounds=arguments.rounds,
        encoder=arguments.encoder, reference=reference, progress=sys.stderr.isatty(),
    )  # fmt: skip
    messages = message_stream(arguments.json)
    print(bar_table(found["bars"]), file=messages)
    if arguments.json is not None:
        from recseg.evaluation.results import write_result

        write_result(arguments.json, found, command=["recseg", *arguments.argv])
        print(f"written: {arguments.json}", file=messages)
