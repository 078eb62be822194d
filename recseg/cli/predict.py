"""`recseg predict`: segment images."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from recseg.cli.arguments import folder, side, text_file
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
    network.add_argument("--weights", help=f"{WEIGHTS_HELP}, or an .onnx file")
    network.add_argument("--onnx", type=Path, metavar="FILE", help="of recseg export; runs without torch")
    parser.add_argument(
        "--out", type=folder, required=True, metavar="DIR", help="for STEM-overlay.png, STEM-labels.png"
    )
    parser.add_argument("--gif", action="store_true", help="and STEM.gif, the recurrence step by step")
    parser.add_argument("--json", type=text_file, metavar="FILE", help="write all steps as JSON (- prints)")
    parser.add_argument(
        "--tile", action="store_true", help="large images in overlapping windows: small things are seen"
    )
    parser.add_argument(
        "--tile-size", type=side, metavar="N", help="side of the windows in pixels (default: the network's image size)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """`recseg predict`."""
    for path in arguments.images:  # before seconds of imports
        if not path.exists():
            raise RecsegError(f"{path}: no such file")
    from recseg.data.images import MOST_PIXELS, MOST_PIXELS_TILED
    from recseg.data.images import read_image as read
    from recseg.files import atomic_write
    from recseg.viz.plotting import overlay, save_gif

    tile = arguments.tile_size or arguments.tile
    read_image = partial(read, most_pixels=MOST_PIXELS_TILED if tile else MOST_PIXELS)
    # Decoded here for their sizes and their errors: the tenth being bad should not cost nine.
    short_sides = {path: min(read_image(path).size) for path in arguments.images}
    stems = unique_stems(arguments.images)
    kinds = {"overlay": "-overlay.png", "labels": "-labels.png"} | ({"gif": ".gif"} if arguments.gif else {})
    check_folder(arguments.out, "--out")
    outputs = [arguments.out / (stem + end) for stem in stems for end in kinds.values()]
    outputs += [] if arguments.json is None else [arguments.json]
    check_writable(*outputs, reads=[*arguments.images, *files_of(arguments.onnx or arguments.weights)])
    segment, own_size = _segmenter(arguments, tile)
    if own_size is not None and not tile:
        _warn_of_shrinking(short_sides, own_size)
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


def _segmenter(arguments: argparse.Namespace, tile: bool | int) -> "tuple[Callable[[Image], Prediction], int | None]":
    """What segments an image, an exported network without torch or any other with it, and the side it works at."""
    onnx = arguments.onnx
    if onnx is None and arguments.weights.endswith(".onnx"):
        onnx = Path(arguments.weights)
    if onnx is not None:
        from recseg.export.runtime import OnnxModel

        exported = OnnxModel(onnx)
        return partial(exported.predict, tile=tile), exported.image_size
    from recseg.devices import choose_device
    from recseg.inference.predict import predict as segment
    from recseg.weights.io import load

    device = choose_device(arguments.device)
    model = load(arguments.weights, device)
    return partial(segment, model=model, tile=tile), model.input_size or model.image_size


def _warn_of_shrinking(short_sides: dict[Path, int], own_size: int) -> None:
    """Say so where what is small in an image cannot be seen by the network."""
    shrunk = [path for path, length in short_sides.items() if length > 3 * own_size]
    if shrunk:
        most = max(shrunk, key=lambda path: short_sides[path])
        print(
            f"recseg: warning: {len(shrunk)} of {len(short_sides)} images shrunk more than threefold for the network "
            f"({most}: {short_sides[most]} pixels to {own_size}); small things are lost, --tile keeps them",
            file=sys.stderr,
        )


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
