"""Compare networks, several seeds of each, from counts on the same images: differences with intervals.

`recseg.evaluation.counts` makes the counts; `recseg.evaluation.report` formats the comparison.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from recseg.classes import by_name
from recseg.errors import RecsegError
from recseg.evaluation.answers import OWN, PIXELS, TRUE
from recseg.evaluation.bootstrap import MEASURES, RESAMPLES, Array, interval, measure, resamples
from recseg.evaluation.counts import CHOSEN, THRESHOLDS, naming_curve


def summarise(counts: dict[str, Any], number: int = RESAMPLES) -> dict[str, Any]:
    """Means and ranges over seeds, and differences with their 95 % interval over images.

    A row is a group (its own answers), or a group and a rule. On each resampled list of images, the scores of a group's
    seeds are averaged. An interval shows the variation over images, a range the variation over seeds.

    Returns:
        JSON-able: `images`, `classes` (part of every mean), `classes_not_in_ground_truth` (part of none), `resamples`,
        `thresholds_chosen_on`, `runs`, `rows`, `differences` and `naming`: the curves over area thresholds, and the
        thresholds chosen.

    Raises:
        RecsegError: rows differ in their images or ground truth, so their means would be over different classes.
    """
    names = counts["classes"]
    groups: dict[str, list[dict[str, Any]]] = counts["groups"]
    _check_same_truth(counts)
    weights = resamples(len(counts["ids"]), number)
    values: dict[str, dict[str, Array]] = {}
    rows: dict[str, Any] = {}
    for group, runs in groups.items():
        for rule in runs[0]["images"]:
            seeds = [measure(run["images"][rule], len(names), weights) for run in runs]
            # (R,) or (R, K): the mean over seeds within each resampled list
            mean = {key: np.mean([each[key] for each in seeds], axis=0) for key in seeds[0]}
            values[row_name(group, rule)] = mean
            rows[row_name(group, rule)] = {
                "mean": {key: _number(mean[key][0]) for key in MEASURES},
                "runs": [{key: _number(each[key][0]) for key in MEASURES} for each in seeds],
                "iou_per_class": by_name(names, map(_number, mean["iou_per_class"][0])),
            }
    present = {name: iou is not None for name, iou in rows[next(iter(rows))]["iou_per_class"].items()}
    return {
        "images": len(counts["ids"]),
        "classes": [name for name, there in present.items() if there],
        "classes_not_in_ground_truth": [name for name, there in present.items() if not there],
        "resamples": number,
        "thresholds_chosen_on": counts["thresholds_chosen_on"],
        "runs": {group: [run["about"] for run in runs] for group, runs in groups.items()},
        "rows": rows,
        "differences": [
            {"of": of, "minus": minus, **_difference(values[of], values[minus], names)} for of, minus in _pairs(groups)
        ],
        "naming": dict(_naming(groups)),
    }


def row_name(group: str, rule: str) -> str:
    """Name of a row; for the group's own answers, the name of the group."""
    return group if rule == OWN else f"{group}: {rule}"


def _check_same_truth(counts: dict[str, Any]) -> None:
    """Check that all rows have the same images and the same ground-truth pixels of each class."""
    expected: Array | None = None
    for group, runs in counts["groups"].items():
        for run in runs:
            for rule, images in run["images"].items():
                pixels = np.zeros((len(images), len(counts["classes"])))
                for row, image in zip(pixels, images, strict=True):
                    for true, _, number in image.confusion:
                        row[true] += number
                expected = pixels if expected is None else expected
                if len(images) != len(counts["ids"]) or not np.array_equal(pixels, expected):
                    raise RecsegError(
                        f"{row_name(group, rule)}, {run['about']['weights']}: counted on other images or with other "
                        "ground truth than the first row; expected the same for all rows"
                    )


def _pairs(groups: Mapping[str, Sequence[dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    """A group minus its own controls, and minus each later group and its controls; `TRUE` is left out."""
    for index, (first, runs) in enumerate(groups.items()):
        if PIXELS in runs[0]["images"]:  # thresholds are no control for their own dense group
            yield from ((first, row_name(first, rule)) for rule in runs[0]["images"] if rule not in (OWN, TRUE))
        for second, others in list(groups.items())[index + 1 :]:
            yield from ((first, row_name(second, rule)) for rule in others[0]["images"] if rule != TRUE)


def _difference(of: Mapping[str, Array], minus: Mapping[str, Array], names: Sequence[str]) -> dict[str, Any]:
    gaps = {key: of[key] - minus[key] for key in of}
    classes = gaps.pop("iou_per_class").T  # (K, R)
    found: dict[str, Any] = {key: _interval(gap) for key, gap in gaps.items()}
    return found | {"iou_per_class": by_name(names, map(_interval, classes))}


def _interval(values: Array) -> dict[str, float | None]:
    return {key: _number(value) for key, value in interval(values)._asdict().items()}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _naming(groups: Mapping[str, Sequence[dict[str, Any]]]) -> Iterator[tuple[str, Any]]:
    """For each group with pixel logits: curves on the reported images, averaged over seeds, and chosen thresholds."""
    for group, runs in groups.items():
        if TRUE not in runs[0]["images"]:
            continue
        rule = PIXELS if PIXELS in runs[0]["images"] else OWN
        curves = [naming_curve(run["images"][rule]) for run in runs]
        means = {key: np.mean([curve[key] for curve in curves], axis=0).tolist() for key in CHOSEN.values()}
        yield group, {"thresholds": list(THRESHOLDS), **means, "chosen": [run["thresholds"] for run in runs]}
