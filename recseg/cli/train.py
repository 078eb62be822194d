"""`recseg train`: train a network, or continue an interrupted run."""

import argparse
import json
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from recseg.cli.arguments import encoder, folder, natural, positive, real, share, side, zero_or_more
from recseg.cli.command import DATA_HELP, WEIGHTS_HELP, Commands, add_device, command, skipped_line
from recseg.errors import RecsegError
from recseg.files import check_new_folder
from recseg.models.config import ENCODERS, RecurrentUNetConfig
from recseg.training.config import AMP, MODELS, ON_BAD_IMAGE, OPTIMISERS, ORDERS, TrainConfig, load_config, resolve
from recseg.training.run_folder import BEST

RESUMABLE = ("data", "device", "workers", "on_bad_image")  # about the machine, not about what is learned
LONGER = ("steps", "minutes", "lr")  # these change the training itself


def add(commands: Commands) -> None:
    """The arguments of `recseg train`."""
    parser = command(commands, "train", run)
    parser.add_argument("--data", help=DATA_HELP + ", or a .pack of one of them")
    others, longer = (", ".join(f"--{name.replace('_', '-')}" for name in names) for names in (RESUMABLE, LONGER))
    parser.add_argument(
        "--resume", type=Path, metavar="RUN",
        help=f"continue an interrupted run; {others} may differ, {longer} to train for longer",
    )  # fmt: skip
    parser.add_argument("--out", type=folder, metavar="RUN", help="folder for the run; must be new or empty")
    parser.add_argument("--model", choices=MODELS, help="network (default recurrent)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=real, metavar="M", help="training time in minutes (default 20)")
    budget.add_argument("--steps", type=positive, metavar="N", help="number of updates, instead of --minutes")
    parser.add_argument("--seed", type=natural, metavar="S", help="of weights, order and augmentation (default 0)")
    parser.add_argument("--split", help="split to train on (default train; voc: train_aug if present)")
    option = parser.add_argument_group("network").add_argument
    widths: dict[str, Any] = {"type": positive, "nargs": "+", "metavar": "N"}
    option("--encoder", type=encoder, metavar="NAME", help=f"{', '.join(ENCODERS)} or timm:NAME (default plain)")
    option("--encoder-widths", **widths, help="channels of each stage of the plain encoder" + default("encoder_widths"))
    blocks = "channels after each decoder block, coarse to fine (default 96 64 40; 160 96 64 with another encoder)"
    option("--decoder-widths", **widths, help=blocks)
    option("--hidden", type=positive, metavar="N", help="channels of the ConvLSTM's state" + default("hidden"))
    option("--reduced", type=positive, metavar="N", help="input channels of the ConvLSTM" + default("reduced"))
    option("--max-steps", type=positive, metavar="N", help="maximum classes per image (default: by data)")
    option("--init", metavar="WEIGHTS", help=f"fine-tune these weights, network sizes included: {WEIGHTS_HELP}")
    option("--encoder-weights", metavar="FILE", help="ImageNet weights as safetensors")
    option("--pretrained", action="store_const", const=True, help="download ImageNet weights")
    option("--freeze", type=natural, metavar="N", help="finest encoder stages to freeze (default 2 if pretrained)")
    option("--order", choices=ORDERS, help="which target each step gets (default matched)")
    option("--pixels-first", type=share, metavar="SHARE", help="of the budget, on the pixel loss alone (default 0.5)")
    loop = parser.add_argument_group("loop")
    option = loop.add_argument
    option("--size", type=side, metavar="PIXELS", help="side of the crops" + defaults("size"))
    option("--scale", type=real, nargs=2, metavar=("MIN", "MAX"), help="range of the random resize" + defaults("scale"))
    flip = "no mirroring, for classes that depend on left and right"
    option("--no-flip", action="store_const", const=False, dest="flip", help=flip)
    jitter = "strength, for brightness, contrast, saturation" + default("colour_jitter")
    option("--colour-jitter", type=share, metavar="SHARE", help=jitter)
    option("--balance", action="store_const", const=True, help="draw images with rare classes more often")
    image_size = "short side of images at inference (default 7/6 of --size)"
    option("--image-size", type=side, metavar="PIXELS", help=image_size)
    option("--batch-size", type=positive, metavar="N", help="images per update" + defaults("batch_size"))
    option("--optimiser", choices=OPTIMISERS, help="optimiser (default muon)")
    option("--lr", type=real, metavar="RATE", help="peak learning rate" + defaults("lr"))
    option("--warmup", type=natural, metavar="N", help="updates of learning-rate warmup" + default("warmup"))
    option("--weight-decay", type=zero_or_more, metavar="RATE", help="of matrices" + default("weight_decay"))
    option("--clip", type=real, metavar="NORM", help="maximum gradient norm" + default("clip"))
    option("--ema", type=share, metavar="DECAY", help="decay of the averaged weights" + default("ema"))
    option("--workers", type=natural, metavar="N", help="number of data loading processes")
    option("--on-bad-image", choices=ON_BAD_IMAGE, help="for an image that cannot be read (default stop)")
    option("--amp", choices=AMP, help="mixed precision (default auto)")
    compiled = "compile encoder and decoder, for GPUs; adds minutes of start-up"
    option("--compile", action="store_const", const=True, help=compiled)
    seconds = "seconds between checkpoints" + default("checkpoint_seconds")
    option("--checkpoint-seconds", type=real, metavar="S", help=seconds)
    add_device(loop)
    validation = "of the averaged weights; does not count towards the budget"
    option = parser.add_argument_group("validation", validation).add_argument
    option("--val-split", metavar="SPLIT", help="split to score, or none (default val, if there is one)")
    every = "updates between validations (default a tenth of the budget, at least 100)"
    option("--val-every", type=positive, metavar="N", help=every)
    option("--val-limit", type=positive, metavar="N", help="maximum images per validation (default 500)")
    option("--tensorboard", action="store_const", const=True, help="write TensorBoard logs to RUN/tensorboard")


def default(name: str) -> str:
    """Help text for the default of an option, from the configuration of the training or the network."""
    config = TrainConfig if hasattr(TrainConfig, name) else RecurrentUNetConfig
    return f" (default {words(getattr(config, name))})"


def words(value: Any) -> str:
    """Format one number, or several."""
    return " ".join(f"{number:g}" for number in (value if isinstance(value, tuple) else (value,)))


def defaults(name: str) -> str:
    """Help text for a default that depends on the network, from `resolve`."""
    plain, other = RecurrentUNetConfig(), RecurrentUNetConfig(encoder=ENCODERS[1])
    one, two = (words(getattr(resolve(TrainConfig(data="", network=each)), name)) for each in (plain, other))
    return f" (default {one}{'' if one == two else f'; {two} with another encoder'})"


def run(arguments: argparse.Namespace) -> None:
    """Train a network.

    example: recseg train --data pictograms --minutes 20 --out runs/first
    """
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if value is not None and name not in ("run", "argv")
    }
    if arguments.resume is not None:
        extra = sorted(given.keys() - {"resume", *RESUMABLE, *LONGER})
        if extra:
            option = "--no-flip" if extra[0] == "flip" else f"--{extra[0].replace('_', '-')}"
            raise RecsegError(f"--resume: continues the run with its own settings, so {option} does not apply")
        if not arguments.resume.is_dir():
            raise RecsegError(f"{arguments.resume}: no such run folder")
        from recseg.training.train import resume

        file = resume(arguments.resume, **{name: getattr(arguments, name) for name in (*RESUMABLE, *LONGER)})
        data = load_config(arguments.resume / "config.json").data
    else:
        if arguments.data is None:
            raise RecsegError("--data or --resume: expected one of them (see recseg train --help)")
        if arguments.out is None:
            raise RecsegError("--out: expected a folder for the run")
        check_new_folder(arguments.out, "--out")
        from recseg.training.train import train

        del given["out"]
        names = {field.name for field in fields(RecurrentUNetConfig)} - {"max_steps"}
        sizes = {name: given.pop(name) for name in names & given.keys()}
        if sizes and arguments.init:
            from recseg.training.initial import network_of

            given["network"] = replace(network_of(arguments.init), **sizes)
        elif sizes:
            given["network"] = RecurrentUNetConfig(**sizes)
        file = train(TrainConfig(**given), arguments.out)
        data = arguments.data
    folder, data = file.parent, shlex.quote(data)
    print(f"weights: {file}")
    if (folder / BEST).exists():
        print(f"best on the validation images: {folder / BEST}")
    if (skipped := folder / "skipped.json").exists():
        print(skipped_line(json.loads(skipped.read_text(encoding="utf-8"))) + f" ({skipped} says why)")
    print(f"next: recseg evaluate --weights {shlex.quote(str(folder))} --data {data} --split val")
