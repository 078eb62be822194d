"""What each command of the command line does; `recseg.cli` reads the arguments and turns errors into one line.

Each function imports what it needs: `recseg weights` does not wait for torchvision.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recseg.allocator import keep_freed_memory
from recseg.errors import RecsegError
from recseg.files import check_folder, check_new_folder, check_writable

if TYPE_CHECKING:
    from PIL.Image import Image

    from recseg.inference.prediction import Prediction


def train(arguments: argparse.Namespace) -> None:
    """`recseg train`."""
    keep_freed_memory()
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for name in ("run", "module", "argv"):
        del given[name]
    if arguments.resume is not None:
        extra = sorted(given.keys() - {"resume", "on_bad_image"})
        if extra:
            raise RecsegError(
                f"--resume: goes on exactly as the run began, so --{extra[0].replace('_', '-')} has no place"
            )
        if not arguments.resume.is_dir():
            raise RecsegError(f"{arguments.resume}: no such run folder")
        from recseg.training.config import load_config
        from recseg.training.trainer import resume

        file = resume(arguments.resume, on_bad_image=arguments.on_bad_image)
        data = load_config(arguments.resume / "config.json").data
    else:
        if arguments.out is None:
            raise RecsegError("--out: expected a folder for the run")
        check_new_folder(arguments.out, "--out")
        from recseg.training.trainer import TrainConfig
        from recseg.training.trainer import train as run

        del given["out"]
        file = run(TrainConfig(**given), arguments.out)
        data = arguments.data
    folder, data = file.parent, shlex.quote(data)
    print(f"weights: {file}")
    if (skipped := folder / "skipped.json").exists():
        print(_skipped(json.loads(skipped.read_text(encoding="utf-8"))) + f" ({skipped} says why)")
    print(f"next: recseg evaluate --weights {shlex.quote(str(folder))} --data {data} --split val")


def _skipped(why: dict[str, str]) -> str:
    return f"skipped: {len(why)} picture{'s' * (len(why) != 1)} that cannot be read: {', '.join(sorted(why))}"


def evaluate(arguments: argparse.Namespace) -> None:
    """`recseg evaluate`."""
    keep_freed_memory()
    from recseg.data import open_dataset
    from recseg.distributed import process_group, rank
    from recseg.evaluation.evaluate import evaluate as score

    if arguments.json is not None:
        check_writable(arguments.json)
    with process_group(arguments.device) as device:
        dataset = open_dataset(arguments.data, arguments.split)
        model = _network(arguments.weights, device)
        main = rank() == 0
        shown = main and sys.stderr.isatty()
        scores = score(model, dataset, limit=arguments.limit, progress=shown, on_bad_image=arguments.on_bad_image)
    if not main:
        return
    print(score_table(scores, f"{arguments.weights} on {arguments.data} {arguments.split}"))
    if scores.get("skipped"):
        print(_skipped(scores["skipped"]))
    if arguments.json is not None:
        from recseg.evaluation.results import write_result

        origin = {"data": arguments.data, "split": arguments.split, "training": model.metadata}
        seed = model.metadata.get("seed")
        write_result(arguments.json, scores, command=["recseg", *arguments.argv], seed=seed, **origin)
        print(f"written: {arguments.json}")


def _network(weights: str, device: str | None) -> Any:
    """Published weights, a file of weights, a run, or an exported network."""
    if weights.endswith(".onnx"):
        from recseg.export.network import OnnxNetwork

        return OnnxNetwork(weights)
    from recseg.training.trainer import choose_device
    from recseg.weights.io import load

    return load(weights, choose_device(device))


def score_table(scores: dict[str, Any], title: str) -> str:
    """The three protocols, one under the other: their figures are never to be compared with each other."""

    def percent(value: float | None) -> str:
        return "   –" if value is None or math.isnan(value) else f"{100 * value:4.1f}"

    lines = [
        f"{title}, {scores['images']} pictures",
        f"VOC    mIoU {percent(scores['miou'])} %   pixel accuracy {percent(scores['pixel_accuracy'])} %",
    ]
    classes = [f"{name:<16}{percent(value)}" for name, value in scores["iou_per_class"].items()]
    rows = -(-len(classes) // 3)
    lines += ["       " + "    ".join(classes[row::rows]) for row in range(rows)]
    lines += [
        f"Slot   accuracy {percent(scores['slot_accuracy'])} %   IoU of the hits {percent(scores['slot_iou'])} %",
        f"Set    label-set F1 {percent(scores['label_set_f1'])} %   "
        f"count accuracy {percent(scores['count_accuracy'])} %   steps a picture {scores['mean_steps']:.2f}",
    ]
    return "\n".join(lines)


def predict(arguments: argparse.Namespace) -> None:
    """`recseg predict`."""
    keep_freed_memory()
    for path in arguments.images:  # before seconds of imports
        if not path.exists():
            raise RecsegError(f"{path}: no such file")
        if arguments.json is not None and arguments.json.resolve() == path.resolve():
            raise RecsegError(f"--json {arguments.json}: is one of the pictures, and would be overwritten")
    from recseg.data.images import read_image
    from recseg.files import atomic_write
    from recseg.viz.plotting import overlay, save_gif

    for path in arguments.images:
        read_image(path)  # decoded here for nothing but the error: the tenth being bad should not cost nine
    stems = unique_stems(arguments.images)
    kinds = {"overlay": "-overlay.png", "labels": "-labels.png"} | ({"gif": ".gif"} if arguments.gif else {})
    inputs = {path.resolve() for path in arguments.images}
    for stem in stems:
        for end in kinds.values():
            if (arguments.out / (stem + end)).resolve() in inputs:
                raise RecsegError(f"{arguments.out / (stem + end)}: is one of the pictures, and would be overwritten")
    check_folder(arguments.out, "--out")
    if arguments.json is not None:
        check_writable(arguments.json)
    segment = _segmenter(arguments)
    report = []
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
        print(f"{path}  →  {', '.join(str(file) for file in files.values())}")
        print("\n".join(_step_lines(found)))
    if arguments.json is not None:
        with atomic_write(arguments.json) as temporary:
            text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
            # A file's name may be no text; JSON writes such a byte as the escape that this makes of it.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        print(f"written: {arguments.json}")


def _segmenter(arguments: argparse.Namespace) -> "Callable[[Image], Prediction]":
    """What segments a picture: an exported network without torch, or any other with it."""
    if arguments.onnx is not None:
        from recseg.export.runtime import OnnxModel

        return OnnxModel(arguments.onnx).predict
    from recseg.inference.predict import predict as segment
    from recseg.training.trainer import choose_device
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
    """A name for the outputs of each picture: its stem, with -2, -3 … where two would write the same files."""
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


def video(arguments: argparse.Namespace) -> None:
    """`recseg video`."""
    keep_freed_memory()
    from recseg.inference.video import open_clip, segment_video
    from recseg.training.trainer import choose_device
    from recseg.weights.io import load

    open_clip(arguments.source)  # a misspelt name is found before the weights are read
    check_writable(arguments.out)
    device = choose_device(arguments.device)
    model = load(arguments.weights, device)

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} frames", end="", file=sys.stderr, flush=True)

    count = segment_video(
        arguments.source,
        model,
        arguments.out,
        every=arguments.every,
        max_frames=arguments.max_frames,
        progress=progress,
    )
    print(f"{arguments.out}: {count} frames")


def export(arguments: argparse.Namespace) -> None:
    """`recseg export`."""
    if arguments.int8 != (arguments.calibrate is not None):
        raise RecsegError("--int8 and --calibrate: expected both or neither")
    check_writable(arguments.onnx)
    from recseg.data import open_train
    from recseg.export.onnx import export as write
    from recseg.weights.io import load

    pictures = open_train(arguments.calibrate, arguments.split) if arguments.int8 else None
    model = load(arguments.weights)
    files = write(model, arguments.onnx)
    if pictures is not None:
        from recseg.export.quantise import quantise

        quantise(arguments.onnx, pictures)
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    name = shlex.quote(str(arguments.onnx))
    print(f"score it with: recseg evaluate --weights {name} --data DATA")


def benchmark(arguments: argparse.Namespace) -> None:
    """`recseg benchmark`."""
    if arguments.json is not None:
        check_writable(arguments.json)
    if arguments.yardstick is not None and not arguments.yardstick.is_file():
        raise RecsegError(f"--yardstick {arguments.yardstick}: no such file")
    import torch

    from recseg.benchmark import PARTS, bar_table
    from recseg.benchmark import benchmark as measure

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    found = measure(
        arguments.only or tuple(PARTS), device=arguments.device, side=arguments.size, rounds=arguments.rounds,
        encoder=arguments.encoder, yardstick=arguments.yardstick, progress=sys.stderr.isatty(),
    )  # fmt: skip
    print(bar_table(found["bars"]))
    if arguments.json is not None:
        from recseg.evaluation.results import write_result

        write_result(arguments.json, found, command=["recseg", *arguments.argv])
        print(f"written: {arguments.json}")


def weights(arguments: argparse.Namespace) -> None:
    """`recseg weights`."""
    from recseg.weights.registry import published_weights

    entries = published_weights()
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return
    if not entries:
        print("nothing is published with this installation: train, and give the run's folder to --weights")
        return
    rows = [("name", "data", "mIoU", "size", "sha256")]
    for entry in entries:
        score = entry.get("miou")
        where = " ".join(str(entry[key]) for key in ("data", "split") if key in entry)
        share = "–" if score is None else f"{100 * score:.1f} %"
        size = f"{entry.get('bytes', 0) / 1e6:.1f} MB"
        rows.append((entry["name"], where, share, size, entry["sha256"][:12]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
