"""`recseg predict`: segment images."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recseg.cli.arguments import folder, side, text_file
from recseg.cli.command import WEIGHTS_HELP, Commands, add_device, command, files_of, message_stream
from recseg.cli.inputs import Input, find_images, unique_names
from recseg.errors import RecsegError, counted, one_line
from recseg.files import STDOUT, atomic_write, check_folder, check_writable
from recseg.training.config import ON_BAD_IMAGE

if TYPE_CHECKING:
    from PIL.Image import Image

    from recseg.classes import Legend
    from recseg.inference.prediction import Prediction


class SkippedImages(RecsegError):
    """Some images could not be read; the others were processed."""

    exit_code = 1


def add(commands: Commands) -> None:
    """The arguments of `recseg predict`."""
    parser = command(commands, "predict", run)
    option = parser.add_argument
    option(
        "images", nargs="+", type=Path, metavar="IMAGE",
        help="files, folders (searched recursively), or quoted patterns ('photos/**/*.jpg')",
    )  # fmt: skip
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--weights", help=f"{WEIGHTS_HELP}, or an .onnx file")
    network.add_argument("--onnx", type=Path, metavar="FILE", help="from recseg export; runs without torch")
    option(
        "--out", type=folder, required=True, metavar="DIR",
        help="for STEM-overlay.png, the classes in colour with their names, and STEM-labels.png, the label map; "
        "subfolders of IMAGE are kept",
    )  # fmt: skip
    option("--gif", action="store_true", help="also write STEM.gif, the recurrence step by step")
    option("--json", type=text_file, metavar="FILE", help="write all steps as JSON (- prints)")
    option("--coco", type=text_file, metavar="FILE", help="write all masks in COCO's format, as RLE (- prints)")
    option(
        "--on-bad-image", choices=ON_BAD_IMAGE, default="stop",
        help="skip: leave out images that cannot be read, list them, and exit with status 1 (default stop)",
    )  # fmt: skip
    option("--tile", action="store_true", help="split large images into overlapping windows, to keep small objects")
    option(
        "--tile-size", type=side, metavar="N", help="side of the windows in pixels (default: the network's image size)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Segment images: an overlay, an indexed PNG and the steps of each.
    All images are decoded before anything is written.

    example: recseg predict *.jpg --weights pictograms-recurrent --out out --gif --json out/steps.json
    """
    images = find_images(arguments.images, arguments.out)  # before the slow imports
    from recseg.data.images import MOST_PIXELS, MOST_PIXELS_TILED
    from recseg.data.images import read_image as read
    from recseg.inference.coco import CocoFile

    tile = arguments.tile_size or arguments.tile
    read_image = partial(read, most_pixels=MOST_PIXELS_TILED if tile else MOST_PIXELS)
    short_sides, bad = _decode(images, read_image, skip=arguments.on_bad_image == "skip")
    reads = [*(image.path for image in images), *files_of(arguments.onnx or arguments.weights)]
    images = [image for image in images if image.path not in bad]
    names = unique_names(image.relative for image in images)
    kinds = {"overlay": "-overlay.png", "labels": "-labels.png"} | ({"gif": ".gif"} if arguments.gif else {})
    check_folder(arguments.out, "--out")
    outputs = [arguments.out / f"{name}{end}" for name in names for end in kinds.values()]
    reports = [file for file in (arguments.json, arguments.coco) if file is not None]
    if reports.count(STDOUT) > 1:
        raise RecsegError("--json - and --coco -: only one of them can be printed")
    check_writable(*outputs, *reports, reads=reads)
    network = _network(arguments, tile)
    if network.own_size is not None and not tile:
        _warn_of_shrinking(short_sides, network.own_size)
    steps, masks, times = [], CocoFile(network.legend), Counter(image.relative for image in images)
    messages = message_stream(next((file for file in reports if file == STDOUT), None))
    for image, name in zip(images, names, strict=True):
        rgb = read_image(image.path)
        found = network.segment(rgb)
        files = {kind: arguments.out / f"{name}{end}" for kind, end in kinds.items()}
        _write_images(found, rgb, files)
        steps.append({"file": str(image.path), **found.to_dict(), **{kind: str(file) for kind, file in files.items()}})
        if arguments.coco is not None:
            masks.add((image.relative if times[image.relative] == 1 else image.path).as_posix(), found)
        print(f"{image.path}  →  {', '.join(str(file) for file in files.values())}", file=messages)
        print("\n".join(_step_lines(found)), file=messages)
    for report, content in ((arguments.json, steps), (arguments.coco, masks.to_dict())):
        if report is not None:
            _write_json(report, content)
            print(f"written: {report}", file=messages)
    if bad:
        raise SkippedImages(
            f"skipped {counted(len(bad), 'image')} that cannot be read; the others are done: {', '.join(map(str, bad))}"
        )


def _write_images(found: "Prediction", rgb: "Image", files: dict[str, Path]) -> None:
    from recseg.viz.legend import draw_legend
    from recseg.viz.plotting import overlay, save_gif

    with atomic_write(files["overlay"]) as temporary:
        drawn = overlay(rgb, found.labels, found.palette)
        draw_legend(drawn, found)
        drawn.save(temporary, format="PNG")
    found.save_labels(files["labels"])
    if "gif" in files:
        save_gif(found, rgb, files["gif"])


def _decode(
    images: Sequence[Input], read: "Callable[[Path], Image]", skip: bool
) -> tuple[dict[Path, int], dict[Path, RecsegError]]:
    """The short side of each image, and with `skip` the errors of those that cannot be read.

    All images are decoded first, so that a bad one does not cost the work on those before it.
    """
    from tqdm import tqdm

    short_sides, bad = dict[Path, int](), dict[Path, RecsegError]()
    for image in tqdm(images, desc="read images", disable=None if len(images) > 100 else True, leave=False):
        try:
            short_sides[image.path] = min(read(image.path).size)
        except RecsegError as error:
            if not skip:
                raise
            bad[image.path] = error
    for why in bad.values():
        print(f"recseg: skipped: {one_line(str(why))}", file=sys.stderr)
    if not short_sides:
        raise RecsegError(f"none of {counted(len(images), 'image')} can be read; the first: {next(iter(bad.values()))}")
    return short_sides, bad


def _write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        # A file's name may not be valid text; backslashreplace gives escapes that are valid JSON.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


class _Network(NamedTuple):
    """A function that segments an image, the short side that it resizes to, and its classes."""

    segment: "Callable[[Image], Prediction]"
    own_size: int | None
    legend: "Legend"


def _network(arguments: argparse.Namespace, tile: bool | int) -> _Network:
    """An exported network, which runs without torch, or any other."""
    onnx = arguments.onnx
    if onnx is None and arguments.weights.endswith(".onnx"):
        onnx = Path(arguments.weights)
    if onnx is not None:
        from recseg.export.runtime import OnnxModel

        exported = OnnxModel(onnx)
        return _Network(partial(exported.predict, tile=tile), exported.image_size, exported.legend)
    from recseg.devices import choose_device
    from recseg.inference.predict import predict as segment
    from recseg.weights.io import load

    device = choose_device(arguments.device)
    model = load(arguments.weights, device)
    return _Network(partial(segment, model=model, tile=tile), model.input_size or model.image_size, model.legend)


def _warn_of_shrinking(short_sides: dict[Path, int], own_size: int) -> None:
    """Warn if images are shrunk so much that small objects are lost."""
    shrunk = [path for path, length in short_sides.items() if length > 3 * own_size]
    if shrunk:
        most = max(shrunk, key=lambda path: short_sides[path])
        print(
            f"recseg: warning: {len(shrunk)} of {len(short_sides)} images shrunk more than threefold for the network "
            f"({most}: {short_sides[most]} pixels to {own_size}); small objects are lost; --tile keeps them",
            file=sys.stderr,
        )


def _step_lines(found: "Prediction") -> Iterable[str]:
    for number, step in enumerate(found.steps, 1):
        yield f"  {number}  {step.name:<16} {step.probability:6.1%}   covers {step.area:6.1%}"
    if not found.steps:
        yield "  –  only background"
    if found.stop_probability is not None:
        yield f"     stop             {found.stop_probability:6.1%}"
