"""Is a published score true? Measure it again, on the machine at hand, and compare it figure by figure.

The same weights, images and code give the same figures; another processor or another version of a library rounds
another way, and then a few pixels at the edge of a mask, now and then a whole step, come out otherwise. How much of
that is let pass stands below, once, for every result.
"""

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from recseg.errors import RecsegError
from recseg.evaluation.results import without_paths
from recseg.resources import resource
from recseg.weights.registry import published_weights

OVERALL = 0.002  # a figure of the whole list, most of them shares of one
PER_CLASS = 0.02  # a figure of one class: a list may hold it twenty times only
MOVED = 0.002  # of all pixels, or of all decisions: how many may be counted elsewhere
_NAMED = ("data", "split", "seed", "commit", "command")  # what a published score has to say
_NOT_MEASURED = {*_NAMED, "training", "uncommitted_changes", "versions", "hardware", "date", "seconds"}


class ScoreDiffers(RecsegError):
    """A published score that the machine at hand does not find again."""

    exit_code = 1


class Compared(NamedTuple):
    """One published number beside the one measured now: their distance, and the largest that is let pass."""

    name: str
    published: Any
    measured: Any
    distance: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.distance <= self.tolerance


def published_results() -> dict[str, Path]:
    """The evaluations and comparisons that come with recseg: name → file."""
    try:
        folder = resource("results")
    except RecsegError:
        return {}  # an installation without results
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if read_result(file).keys() & {"miou", "differences"}}


def verify(
    name: str, *, data: str | None = None, device: str | None = None, progress: bool = False
) -> tuple[dict[str, Any], list[Compared]]:
    """Repeat the evaluation or the comparison that a published result names.

    Of a comparison the trainings are not all published: where one is not here, its figures are computed again from the
    counts of each image that lie beside the result.

    Args:
        name: of a file in `data/results`, such as "pictograms-recurrent".
        data: where the images are, if not where the result's own command says.
        device: where to run; by default the best there is.
        progress: show a bar on stderr.

    Returns:
        The published result, and each of its figures beside the one measured now.

    Raises:
        RecsegError: no such result, one that does not say where it comes from, or images that are not here.
    """
    known = published_results()
    if name not in known:
        raise RecsegError(f"{name!r}: no such result (there is {', '.join(known) or 'none'})")
    published = read_result(known[name])
    words = repeated(known[name], published)
    from recseg.data import open_dataset
    from recseg.devices import choose_device
    from recseg.evaluation.compare import summarise
    from recseg.evaluation.counts import count_named, counts_file, read_counts
    from recseg.evaluation.evaluate import evaluate
    from recseg.weights.io import load

    where = choose_device(device)
    if "differences" not in published:
        dataset = open_dataset(data or words.data, words.split)
        measured = evaluate(load(words.weights, where), dataset, limit=words.limit, progress=progress)
    elif from_counts(published):
        measured = summarise(read_counts(counts_file(known[name])), published["resamples"])
    else:
        counts = count_named(
            words.group, data or words.data, words.split, words.choose_split, lambda run: load(run, where),
            image_size=words.image_size, limit=words.limit, progress=progress,
        )  # fmt: skip
        measured = summarise(counts, published["resamples"])
    return published, compare(published, without_paths(measured))


def from_counts(published: dict[str, Any]) -> bool:
    """Whether the networks of a comparison are not all here, so that the counts of each image have to do."""
    names = {entry["name"] for entry in published_weights()}
    runs = [run["weights"] for group in published.get("runs", {}).values() for run in group]
    return not all(Path(run).exists() or run in names for run in runs)


def compare(published: dict[str, Any], measured: dict[str, Any]) -> list[Compared]:
    """Each figure of two evaluations, the worst first.

    Numbers of the whole list may differ by `OVERALL`, those of a class by `PER_CLASS`; of the pixels in the confusion
    matrix and of the decisions in the tables of calibration a share of `MOVED` may be counted elsewhere. All else, the
    number of images among it, is the same or not. A figure that only one of the two has does not agree. What a
    comparison has by row, run or class is compared figure by figure.
    """
    figures: list[Compared] = []
    for key in dict.fromkeys([*published, *measured]):
        if key not in _NOT_MEASURED:
            figures += _figures(key, published.get(key), measured.get(key), key in published and key in measured)
    return sorted(
        figures, key=lambda figure: -(figure.distance / figure.tolerance if figure.tolerance else figure.distance)
    )


def _figures(key: str, old: Any, new: Any, both: bool) -> Iterator[Compared]:
    if not both:
        yield Compared(key, old, new, float("inf"), 0.0)
    elif key == "confusion":
        yield Compared(key, None, None, _moved(_flat(old), _flat(new)), MOVED)
    elif key.endswith("_calibration"):
        yield Compared(key, None, None, _moved(_bins(old), _bins(new)), MOVED)
    elif key.startswith("best_"):
        yield Compared(key, old["value"], new["value"], _distance(old["value"], new["value"]), PER_CLASS)
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _figures(f"{key} of {name}", old.get(name), new.get(name), (name in old) == (name in new))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _figures(f"{key} {index}", *pair, True)
    elif isinstance(old, float) or isinstance(new, float):
        yield Compared(key, old, new, _distance(old, new), PER_CLASS if "_per_class of " in key else OVERALL)
    else:
        yield Compared(key, old, new, 0.0 if old == new else float("inf"), 0.0)


def _distance(old: Any, new: Any) -> float:
    """Between two numbers; None, where nothing was defined, is near to itself alone."""
    if old is None or new is None:
        return 0.0 if old is new else float("inf")
    return abs(float(old) - float(new))


def _moved(old: dict[Any, float], new: dict[Any, float]) -> float:
    """Share of what was counted that two tables of counts hold in different cells; infinite for different totals."""
    total = sum(old.values())
    if total != sum(new.values()):
        return float("inf")
    return sum(abs(old.get(key, 0) - new.get(key, 0)) for key in {*old, *new}) / 2 / max(total, 1)


def _flat(table: list[list[int]]) -> dict[Any, float]:
    return {(row, column): count for row, counts in enumerate(table) for column, count in enumerate(counts)}


def _bins(rows: list[dict[str, Any]]) -> dict[Any, float]:
    """Decisions of each tenth of probability that happened, and that did not; empty tenths have no row."""
    counts = {}
    for row in rows:
        (outcome,) = row.keys() - {"probability", "decisions"}
        happened = round(row[outcome] * row["decisions"])
        tenth = min(int(10 * row["probability"]), 9)
        counts[tenth, True], counts[tenth, False] = happened, row["decisions"] - happened
    return counts


def repeated(file: Path, published: dict[str, Any]) -> argparse.Namespace:
    """Options of the command that a result names, checked to name all that is needed."""
    for key in _NAMED:
        if published.get(key) is None:
            raise RecsegError(f"{file}: does not say its {key}, so nobody can repeat it")
    verb = "compare" if "differences" in published else "evaluate"
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for option in ("--weights", "--data", "--split", "--json", "--device", "--choose-split"):
        parser.add_argument(option)
    for option in ("--limit", "--image-size"):
        parser.add_argument(option, type=int)
    parser.add_argument("--group", action="append", nargs="+")
    parser.add_argument("--per-class", action="store_true")
    parser.set_defaults(split="val")
    program, *words = shlex.split(published["command"])
    try:
        given, unknown = parser.parse_known_args(words[1:])
    except argparse.ArgumentError as error:
        raise RecsegError(f"{file}: its command cannot be repeated ({error})") from error
    networks = given.group if verb == "compare" else given.weights
    if (program, *words[:1]) != ("recseg", verb) or unknown or networks is None or given.data is None:
        raise RecsegError(f"{file}: its command is not one of recseg {verb}: {published['command']}")
    if (given.data, given.split) != (published["data"], published["split"]):
        raise RecsegError(f"{file}: names {published['data']} {published['split']}, its command other images")
    if not re.fullmatch(r"[0-9a-f]{40}", str(published["commit"])):
        raise RecsegError(f"{file}: commit {published['commit']!r} is not one of git's")
    return given


def read_result(file: Path) -> dict[str, Any]:
    """A stored result; empty where the file holds something else than a table.

    Raises:
        RecsegError: missing, or not JSON.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecsegError(f"{file}: not a readable result ({error})") from error
    return value if isinstance(value, dict) else {}
