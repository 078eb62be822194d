"""Run several networks, several seeds of each, and record the counts of each image under each rule.

The rules are those of `recseg.evaluation.answers.answers_by_rule`: a recurrent network is scored together with its own
pixel logits, and the same naming rules apply to all pixel logits. `recseg.evaluation.compare` needs only these counts,
so a comparison can be repeated without images or weights.
"""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recseg.data import open_dataset
from recseg.data.folder import SegmentationFolder, shared_ids
from recseg.errors import RecsegError
from recseg.evaluation.answers import PIXELS, answers_by_rule, large, pixel_answers
from recseg.evaluation.bootstrap import measure
from recseg.evaluation.evaluate import score
from recseg.evaluation.results import without_paths
from recseg.evaluation.scores import ImageCounts
from recseg.files import atomic_write
from recseg.models.model import SegmentationModel

# A class is named if it covers this share of the image; the share is chosen on other images, for each of two scores.
THRESHOLDS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
CHOSEN = {
    "own pixels, large classes only (best F1)": "label_set_f1",
    "own pixels, large classes only (best count)": "count_accuracy",
}


def count(
    groups: Sequence[Sequence[str]],
    data: str,
    split: str,
    choose_split: str | None,
    load: Callable[[str], SegmentationModel],
    *,
    image_size: int | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run all networks, and record the counts of each image under each rule.

    Args:
        groups: for each group its name, then its runs, which differ only in their seed.
        data: as for `recseg.data.open_dataset`.
        split: the images to report on.
        choose_split: other images, to choose area thresholds on; None: no thresholds.
        load: loads the network of a run.
        image_size: short side of the networks' input; by default each network's own.
        limit: use only the first `limit` images of each list.
        progress: show progress bars on stderr.

    Returns:
        `classes`, `ids` of the images, `thresholds_chosen_on` (a number of images), and `groups`: for each run
        `about` (its origin), `thresholds`, and `images`: the `ImageCounts` of each rule, in the order of `ids`.

    Raises:
        RecsegError: as for `evaluate`; the lists share an image; a group has no runs, or runs that differ in more than
            their seed; a name is given twice.
    """
    named: dict[str, dict[str, SegmentationModel]] = {}
    for name, *runs in groups:
        if not runs:
            raise RecsegError(f"group {name}: has no runs; expected a name, then a run for each seed")
        if name in named or len(set(runs)) < len(runs):
            raise RecsegError(f"group {name}: {'its name' if name in named else 'one of its runs'} is given twice")
        named[name] = {run: load(run) for run in runs}
        _check_alike(name, [_about(run, model) for run, model in named[name].items()])
    dataset, choice = open_dataset(data, split), None if choose_split is None else open_dataset(data, choose_split)
    if choice is not None and (shared := shared_ids(dataset.ids, choice.ids)):
        raise RecsegError(
            f"{min(shared)}: in both lists ({len(shared)} such images); expected thresholds to be chosen on "
            "other images than those reported on"
        )
    options: dict[str, Any] = {"image_size": image_size, "limit": limit, "progress": progress}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in named}
    for name, models in named.items():
        for run, model in models.items():
            thresholds = {} if choice is None else _choose(model, choice, options)
            scores, _ = score(model, dataset, partial(answers_by_rule, thresholds=thresholds), **options)
            images = {rule: [each for _, each in sorted(of.images.items())] for rule, of in scores.items()}
            found[name].append({"about": _about(run, model), "thresholds": thresholds, "images": images})
    chosen_on = min(len(choice), limit or len(choice)) if choice else None
    return {"classes": list(dataset.classes), "ids": dataset.ids[:limit], "thresholds_chosen_on": chosen_on,
            "groups": found}  # fmt: skip


def _choose(model: SegmentationModel, choice: SegmentationFolder, options: dict[str, Any]) -> dict[str, float]:
    """The best threshold of each rule of `CHOSEN`, the smallest in a tie; none for a network without pixel logits."""
    scores, _ = score(model, choice, pixel_answers, **options)
    if not scores:
        return {}
    curve = naming_curve(list(scores[PIXELS].images.values()))
    return {rule: THRESHOLDS[int(np.argmax(curve[name]))] for rule, name in CHOSEN.items()}


def naming_curve(images: Sequence[ImageCounts]) -> dict[str, list[float]]:
    """Label-set F1 and count accuracy at each of `THRESHOLDS`, from counts with areas."""
    curve: dict[str, list[float]] = {name: [] for name in CHOSEN.values()}
    once = np.ones((1, len(images)))
    for least in THRESHOLDS:
        named = [image._replace(confusion=[], slots=[], named=large(image.areas, least)) for image in images]
        values = measure(named, len(images[0].areas), once)
        for name, points in curve.items():
            points.append(float(values[name][0]))
    return curve


def _about(run: str, model: SegmentationModel) -> dict[str, Any]:
    return {
        "weights": run,
        "kind": model.kind,
        "network": asdict(model.config) if model.config else None,
        "image_size": model.image_size,
        "seed": model.metadata.get("seed"),
        "updates": model.metadata.get("step"),
        "seconds": model.metadata.get("seconds"),
    }


def _check_alike(group: str, runs: Sequence[Mapping[str, Any]]) -> None:
    for key in ("kind", "network", "image_size"):
        for run in runs[1:]:
            if run[key] != runs[0][key]:
                raise RecsegError(
                    f"group {group}: {run['weights']} and {runs[0]['weights']} differ in {key} "
                    f"({run[key]} and {runs[0][key]}); expected runs that differ only in their seed"
                )


def counts_file(result: Path) -> Path:
    """Path of the counts of a result, next to it."""
    return result.with_suffix(".counts.json.gz")


def write_counts(path: Path, counts: dict[str, Any]) -> None:
    """Write counts as gzipped JSON, without paths of this machine."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(without_paths(counts), separators=(",", ":")).encode(), mtime=0))


def read_counts(path: Path) -> dict[str, Any]:
    """Read a file written by `write_counts`.

    Raises:
        RecsegError: the file is missing, or not a file of counts.
    """
    try:
        counts: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        for runs in counts["groups"].values():
            for run in runs:
                run["images"] = {rule: [ImageCounts(*each) for each in of] for rule, of in run["images"].items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecsegError(f"{path}: not a readable file of counts ({error})") from error
    return counts
