"""The command line: `recseg data | train | evaluate | results | predict | video | weights | …`.

What each command does stands in `recseg.cli.commands` and `recseg.cli.data`, imported when one runs: `--help` answers
at once. Whatever a user can cause ends as one line on stderr and exit code 2.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from recseg.cli.arguments import natural, positive, real, share, side
from recseg.errors import RecsegError, one_line

WEIGHTS_HELP = "published name (see `recseg weights`), a .safetensors file, or the folder of a run"
DATA_HELP = "pictograms (made on the spot), voc (found through RECSEG_VOC_ROOT), or a folder in VOC's layout"
TRAIN_DATA_HELP = DATA_HELP + ", or a .pack of one of them"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other error; argparse's own would put the usage in front."""
        self.exit(2, f"recseg: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # costs more than all the rest of --help

        print(f"recseg {version('recseg')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a score not found again, 2 after bad input, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    arguments.argv = sys.argv[1:] if argv is None else list(argv)  # a result says what was typed
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is shown all the same
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        getattr(import_module(arguments.module), arguments.run)(arguments)
        sys.stdout.flush()
    except RecsegError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        print(f"recseg: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `recseg weights | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _complain(f"{error.filename or 'output'}: the disk is full")
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (MemoryError, RuntimeError) as error:
        # torch's own is a RuntimeError: on a GPU its name tells (torch is not imported here), on a CPU its words.
        names = (type(error).__name__, str(error))
        if isinstance(error, MemoryError) or "OutOfMemoryError" in names or "can't allocate memory" in names[1]:
            return _complain("out of memory: try a smaller --batch-size or --size, or --device cpu")
        raise
    return 0


def _complain(message: str, code: int = 2) -> int:
    print(f"recseg: error: {one_line(message)}", file=sys.stderr)
    return code


# What each command takes


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="recseg",
        description="Recurrent semantic segmentation: one mask and one class a step,\n"
        "for the classes that are present.",
        epilog="example: recseg predict photo.jpg --weights pictograms-recurrent --out out --gif",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # or an example would be broken in two
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_data, _add_train, _add_evaluate, _add_results, _add_predict, _add_video, _add_weights, _add_export,
        _add_benchmark,
    ):  # fmt: skip
        add(commands)
    return parser


def _command(
    commands: Any, name: str, summary: str, example: str, run: str | None, module: str = "recseg.cli.commands"
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    if run is not None:
        parser.set_defaults(run=run, module=module)
    return parser


def _add_data(commands: Any) -> None:
    parser = _command(commands, "data", "make or fetch a data set", "recseg data voc --root ~/data/voc", None)
    kinds = parser.add_subparsers(title="data sets", metavar="SET", required=True)
    one = _command(
        kinds,
        "pictograms",
        "draw the embedded data set: VOC's layout and labels, as many pictures as you like",
        "recseg data pictograms --out data/mine --images 2000 --seed 1",
        "pictograms",
        "recseg.cli.data",
    )
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be new or empty")
    one.add_argument("--images", type=positive, required=True, metavar="N", help="number of pictures")
    one.add_argument("--seed", type=natural, default=0, metavar="S", help="same seed, same pictures (default 0)")
    two = _command(
        kinds,
        "voc",
        "download PASCAL VOC 2012, 2 GB: checksum checked, resumes where it stopped",
        "recseg data voc --root ~/data/voc && export RECSEG_VOC_ROOT=~/data/voc",
        "voc",
        "recseg.cli.data",
    )
    two.add_argument("--root", type=Path, metavar="DIR", help="folder that will hold VOCdevkit (default: a cache)")
    three = _command(
        kinds,
        "pack",
        "decode and resize a split once, into one file that trains faster",
        "recseg data pack --data voc --size 256 --out voc-256.pack && recseg train --data voc-256.pack",
        "pack",
        "recseg.cli.data",
    )
    three.add_argument("--data", required=True, help=DATA_HELP)
    three.add_argument("--split", help="split to pack (default train; voc: train_aug where it is there)")
    three.add_argument("--size", type=side, required=True, metavar="PIXELS", help="short side; smaller ones stay")
    three.add_argument("--out", type=Path, required=True, metavar="FILE", help="must end in .pack")


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        "train a network",
        "recseg train --data pictograms --minutes 20 --out runs/first",
        "train",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", help=TRAIN_DATA_HELP)
    where.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run, exactly as it was")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder for the run; must be new or empty")
    parser.add_argument("--model", choices=("recurrent", "dense", "published"), help="network (default recurrent)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=real, metavar="M", help="train for so long")
    budget.add_argument("--steps", type=positive, metavar="N", help="train for so many updates")
    parser.add_argument("--seed", type=natural, metavar="S", help="of weights, order and augmentation (default 0)")
    parser.add_argument("--split", help="split to train on (default train; voc: train_aug where it is there)")
    network = parser.add_argument_group("network")
    network.add_argument("--encoder", choices=("plain", "mobilenet_v2", "resnet18", "resnet34"), help="(default plain)")
    network.add_argument("--encoder-weights", metavar="FILE", help="ImageNet weights as safetensors")
    network.add_argument("--pretrained", action="store_const", const=True, help="download ImageNet weights")
    network.add_argument("--freeze", type=natural, metavar="N", help="finest encoder stages to keep as they are")
    network.add_argument("--head", choices=("embedding", "decoder"), help="how a step makes its mask")
    network.add_argument(
        "--feedback", choices=("none", "claimed", "remaining", "explained", "coverage"), help="what a step is told"
    )
    network.add_argument("--order", choices=("matched", "class", "area"), help="which step learns which target")
    network.add_argument("--auxiliary", choices=("pixels", "none"), help="train the classifier on single pixels too")
    network.add_argument("--pixels-first", type=share, metavar="SHARE", help="of the budget on single pixels alone")
    loop = parser.add_argument_group("loop")
    loop.add_argument("--size", type=positive, metavar="PIXELS", help="side of the training crops")
    loop.add_argument("--batch-size", type=positive, metavar="N", help="pictures an update")
    loop.add_argument("--optimiser", choices=("muon", "adamw"), help="rule of the updates (default muon)")
    loop.add_argument("--lr", type=real, metavar="RATE", help="peak learning rate")
    loop.add_argument("--workers", type=natural, metavar="N", help="processes that read pictures")
    loop.add_argument("--on-bad-image", choices=("stop", "skip"), help="where one cannot be read (default stop)")
    loop.add_argument("--amp", choices=("auto", "off", "bf16", "fp16"), help="16-bit arithmetic (default auto)")
    _add_device(loop)


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate",
        "score a network by three protocols: VOC (mIoU), slots, label set",
        "recseg evaluate --weights runs/first --data pictograms --split val --json scores.json",
        "evaluate",
    )
    parser.add_argument("--weights", required=True, help=WEIGHTS_HELP + ", or an exported .onnx")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--split", default="val", help="(default val)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N pictures")
    parser.add_argument("--on-bad-image", choices=("stop", "skip"), default="stop", help="(default stop)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores, with how they were measured")
    _add_device(parser)


def _add_results(commands: Any) -> None:
    parser = _command(
        commands,
        "results",
        "list the published scores, or measure one again",
        "recseg results --verify pictograms-recurrent",
        "results",
        "recseg.evaluation.verify",
    )
    parser.add_argument("--verify", metavar="NAME", help="repeat this evaluation; exit code 1 if it differs")
    parser.add_argument("--data", help="where its pictures are, if not where its command says")
    _add_device(parser)


def _add_predict(commands: Any) -> None:
    parser = _command(
        commands,
        "predict",
        "segment pictures: for each an overlay, an indexed PNG, and its steps",
        "recseg predict *.jpg --weights pictograms-recurrent --out out --gif --json out/steps.json",
        "predict",
    )
    parser.description = f"{parser.description}\nAll pictures are decoded before anything is written."
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--weights", help=WEIGHTS_HELP)
    network.add_argument("--onnx", type=Path, metavar="FILE", help="of recseg export; runs without torch")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets STEM-overlay.png, STEM-labels.png")
    parser.add_argument("--gif", action="store_true", help="and STEM.gif, the recurrence step by step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all steps as JSON")
    _add_device(parser)


def _add_video(commands: Any) -> None:
    parser = _command(
        commands,
        "video",
        "draw masks on a GIF, a video file or a camera",
        "recseg video street.mp4 --weights runs/voc --out street-masks.mp4 --every 2",
        "video",
    )
    parser.add_argument("source", metavar="FILE|CAMERA", help="a file, or the number of a camera (0 is the first)")
    parser.add_argument("--weights", required=True, help=WEIGHTS_HELP)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="a .mp4 (extra [video]), or a .gif: at most 300 frames and 640 pixels",
    )
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take each N-th frame (default 1)")
    parser.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames (camera: 150)")
    _add_device(parser)


def _add_weights(commands: Any) -> None:
    parser = _command(commands, "weights", "list what is published", "recseg weights --json", "weights")
    parser.add_argument("--json", action="store_true", help="print the registry as JSON")


def _add_export(commands: Any) -> None:
    parser = _command(
        commands,
        "export",
        "write a network as ONNX graphs, which run without torch",
        "recseg export --weights runs/first --onnx first.onnx && recseg predict *.jpg --onnx first.onnx --out out",
        "export",
    )
    parser.add_argument("--weights", required=True, help=WEIGHTS_HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="NAME.onnx")
    parser.add_argument("--int8", action="store_true", help="in 8 bits: smaller, faster, and a little less exact")
    parser.add_argument("--calibrate", metavar="DATA", help="with --int8: training pictures that show the ranges")
    parser.add_argument("--split", help="of --calibrate (default train)")


def _add_benchmark(commands: Any) -> None:
    parser = _command(
        commands,
        "benchmark",
        "measure time and memory beside a dense U-Net and the published network",
        "recseg benchmark --only inference --json inference.json",
        "benchmark",
    )
    parts = ("inference", "anatomy", "training", "classes", "scaling", "loader", "quality", "deployed", "kept")
    parser.add_argument("--only", nargs="+", choices=parts, metavar="PART", help=f"of {', '.join(parts)} (default all)")
    parser.add_argument("--size", type=positive, default=256, metavar="PIXELS", help="side of the pictures (256)")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="turns of each contestant (5)")
    parser.add_argument(
        "--encoder",
        choices=("plain", "mobilenet_v2", "resnet18", "resnet34"),
        default="mobilenet_v2",
        help="(default mobilenet_v2)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="of the CPU (default: one a core)")
    parser.add_argument(
        "--yardstick", type=Path, metavar="FILE", help="a TensorFlow Lite network to compare the exported one with"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, with how they were measured")
    _add_device(parser)


def _add_device(parser: Any) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (by default the best there is)")
