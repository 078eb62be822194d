"""`recseg predict`: segment images."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from recseg.cli.arguments import folder, text_file
from recseg.cli.command import WEIGHTS_HELP, Commands, add_device, command, files_of, words_beside
from recseg.errors import RecsegError
from recseg.files import check_folder, check_writable

if TYPE_CHECKING:
    from PIL.Image import Image

    from recseg.inference.prediction import Prediction


def add(commands: Commands) -> None:
    """The arguments of `recseg predict`."""
    parser = command(
        commands,
        "predict",
        "segment images: for each an overlay, an indexed PNG, and its steps",
        "recseg predict *.jpg --weights pictograms-recurrent --out out --gif --json out/steps.json",
        run,
    )
    parser.description = f"{parser.description}\nAll images are decoded before anything is written."
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--weights", help=WEIGHTS_HELP)
    network.add_argument("--onnx", type=Path, metavar="FILE", help="of recseg export; runs without torch")
    parser.add_argument(
        "--out", type=folder, required=True, metavar="DIR", help="for STEM-overlay.png, STEM-labels.png"
    )
    parser.add_argument("--gif", action="store_true", help="and STEM.gif, the recurrence step by step")
    parser.add_argument("--json", type=text_file, metavar="FILE", help="write all steps as JSON (- prints)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """`recseg predict`."""
    for path in arguments.images:  # before seconds of imports
        if not path.exists():
            raise RecsegError(f"{path}: no such file")
    from recseg.data.images import read_image
    from recseg.files import atomic_write
    from recseg.viz.plotting import overlay, save_gif

    for path in arguments.images:
        read_image(path)  # decoded here for nothing but the error: the tenth being bad should not cost nine
    stems = unique_stems(arguments.images)
    kinds = {"overlay": "-overlay.png", "labels": "-labels.png"} | ({"gif": ".gif"} if arguments.gif else {})
    check_folder(arguments.out, "--out")
    outputs = [arguments.out / (stem + end) for stem in stems for end in kinds.values()]
    outputs += [] if arguments.json is None else [arguments.json]
    check_writable(*outputs, reads=[*arguments.images, *files_of(arguments.onnx or arguments.weights)])
    segment = _segmenter(arguments)
    report, words = [], words_beside(arguments.json)
    for path, stem in zip(arguments.images, stems, strict=True):
        picture = read_image(path)
        found = segment(picture)
        files = {kind: arguments.out / (stem + end) for kind, end in kinds.items()}
        with atomic_write(files["overlay"]) as temporary:
            overlay(picture, found.labels, found.palette).save(temporary, format="PNG")
        found.save_labels(files["labels"])
        if arguments.gif:
            save_gif(found, picture, files["gif"])
        report.append({"file": str(path), **found.to_dict(), **{kind: str(file) for kind, file in files.items()}})
        print(f"{path}  →  {', '.join(str(file) for file in files.values())}", file=words)
        print("\n".join(_step_lines(found)), file=words)
    if arguments.json is not None:
        with atomic_write(arguments.json) as temporary:
            text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
            # A file's name may be no text; JSON writes such a byte as the escape that this makes of it.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        print(f"written: {arguments.json}", file=words)


def _segmenter(arguments: argparse.Namespace) -> "Callable[[Image], Prediction]":
    """What segments an image: an exported network without torch, or any other with it."""
    if arguments.onnx is not None:
        from recseg.export.runtime import OnnxModel

        return OnnxModel(arguments.onnx).predict
    from recseg.devices import choose_device
    from recseg.inference.predict import predict as segment
    from recseg.weights.io import load

    device = choose_device(arguments.device)
    model = load(arguments.weights, device)
    return lambda picture: segment(picture, model)


def _step_lines(found: "Prediction") -> Iterable[str]:
    for number, step in enumerate(found.steps, 1):
        yield f"  {number}  {step.name:<16} {step.probability:6.1%}   covers {step.area:6.1%}"
    if not found.steps:
        yield "  –  nothing but background"
    if found.stop_probability is not None:
        yield f"     stop             {found.stop_probability:6.1%}"


def unique_stems(paths: Iterable[Path]) -> list[str]:
    """A name for the outputs of each image: its stem, with -2, -3 … where two would write the same files."""
    taken: set[str] = set()
    stems: list[str] = []
    for path in paths:
        stem, number = path.stem, 1
        while stem.casefold() in taken:  # some file systems do not tell A from a
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
