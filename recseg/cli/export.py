"""`recseg export`: write a network as ONNX graphs."""

import argparse
import shlex
from pathlib import Path

from recseg.cli.command import WEIGHTS_HELP, Commands, command, files_of
from recseg.errors import RecsegError
from recseg.files import check_writable


def add(commands: Commands) -> None:
    """The arguments of `recseg export`."""
    parser = command(commands, "export", run)
    parser.add_argument("--weights", required=True, help=WEIGHTS_HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="NAME.onnx")
    parser.add_argument("--int8", action="store_true", help="in 8 bits: smaller, faster, slightly less accurate")
    parser.add_argument("--calibrate", metavar="DATA", help="with --int8: training images to calibrate the ranges on")
    parser.add_argument("--split", help="split of --calibrate (default train)")


def run(arguments: argparse.Namespace) -> None:
    """Write a network as ONNX graphs, which run without torch.
    The graphs take one image at a time; its sides must be multiples of the encoder's stride, 16 or 32 pixels.
    recseg.export.runtime pads images accordingly, and runs the loop over time steps.

    example: recseg export --weights runs/first --onnx first.onnx && recseg predict *.jpg --onnx first.onnx --out out
    """
    if arguments.int8 != (arguments.calibrate is not None):
        raise RecsegError("--int8 and --calibrate: expected both or neither")
    from recseg.data import open_train
    from recseg.export.onnx import export
    from recseg.export.runtime import PARTS, part_path
    from recseg.weights.io import load

    images = open_train(arguments.calibrate, arguments.split) if arguments.int8 else None
    outputs = [part_path(arguments.onnx, part) for part in PARTS]
    check_writable(*outputs, reads=[*files_of(arguments.weights), *(images.files if images else ())])
    if images is not None and any(path.exists() and not path.is_file() for path in outputs):
        raise RecsegError(f"--int8 {arguments.onnx}: expected a regular file, since quantisation reads it again")
    model = load(arguments.weights)
    files = export(model, arguments.onnx)
    if images is not None:
        from recseg.export.quantise import quantise

        quantise(arguments.onnx, images)
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    name = shlex.quote(str(arguments.onnx))
    print(f"score it with: recseg evaluate --weights {name} --data DATA")
