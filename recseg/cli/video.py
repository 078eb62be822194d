"""`recseg video`: draw masks on a GIF, a video file or a camera."""

import argparse
import sys
from pathlib import Path

from recseg.cli.arguments import positive
from recseg.cli.command import WEIGHTS_HELP, Commands, add_device, command, files_of
from recseg.errors import counted
from recseg.files import check_writable


def add(commands: Commands) -> None:
    """The arguments of `recseg video`."""
    parser = command(commands, "video", run)
    parser.add_argument("source", metavar="FILE|CAMERA", help="a file, or the number of a camera (0 is the first)")
    parser.add_argument("--weights", required=True, help=WEIGHTS_HELP)
    kinds = "a .mp4 (extra [video]), or a .gif: at most 300 frames and 640 pixels; without sound"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=kinds)
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="use every N-th frame (default 1)")
    parser.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames (camera: 150)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw masks on a GIF, a video file or a camera.

    example: recseg video street.mp4 --weights runs/voc --out street-masks.mp4 --every 2
    """
    from recseg.devices import choose_device
    from recseg.inference.video import open_clip, segment_video
    from recseg.weights.io import load

    open_clip(arguments.source)  # check the source before loading the weights
    check_writable(arguments.out, reads=[Path(arguments.source), *files_of(arguments.weights)])
    model = load(arguments.weights, choose_device(arguments.device))

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{counted(done, 'frame')}", end="", file=sys.stderr, flush=True)

    count = segment_video(
        arguments.source, model, arguments.out, every=arguments.every, max_frames=arguments.max_frames,
        progress=progress,
    )  # fmt: skip
    print(f"{arguments.out}: {counted(count, 'frame')}")
