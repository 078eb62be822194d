"""`recseg results`: list the published scores, or measure one again."""

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from recseg.cli import compare, evaluate
from recseg.cli.command import Commands, add_device, command
from recseg.errors import RecsegError, counted

if TYPE_CHECKING:
    from recseg.evaluation.verify import Compared


class ScoreDiffers(RecsegError):
    """A published score is not reproduced on this machine."""

    exit_code = 1


def add(commands: Commands) -> None:
    """The arguments of `recseg results`."""
    parser = command(commands, "results", run)
    parser.add_argument("--verify", metavar="NAME", help="repeat this evaluation; exit code 1 if its scores differ")
    parser.add_argument("--data", help="data set to use instead of the one in its command")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """List the published scores, or measure one again.

    example: recseg results --verify pictograms-recurrent
    """
    from recseg.evaluation.verify import from_counts, published_results, read_result

    if arguments.verify is None:
        for name, file in published_results().items():
            found = read_result(file)
            print(f"{name:<28} {found['data']} {found['split']:<8} {_miou(found)}   {found['date']}")
        return
    published, figures = verify(
        arguments.verify, data=arguments.data, device=arguments.device, progress=sys.stderr.isatty()
    )
    worst, wrong = figures[0], [figure for figure in figures if not figure.agrees]
    where = f"{published['data']} {published['split']}, {counted(published['images'], 'image')}"
    if wrong:
        both = f"published {worst.published}, measured {worst.measured}, "
        raise ScoreDiffers(
            f"{arguments.verify} on {where}: {len(wrong)} of {len(figures)} figures differ, most of all {worst.name}: "
            f"{'' if isinstance(worst.published, dict) else both}distance {worst.distance:.4g}, "
            f"tolerance {worst.tolerance:g}"
        )
    exact = sum(figure.distance == 0 for figure in figures)
    print(
        f"{arguments.verify} on {where}: all {len(figures)} figures agree, {exact} of them exactly "
        f"({_miou(published, 2)}; largest distance {worst.distance:.2g}, {worst.name})"
    )
    if "differences" in published and from_counts(published):
        print("recomputed from the counts of each image, since not all runs that it names are here")


def _miou(result: dict[str, Any], digits: int = 1) -> str:
    """mIoU of an evaluation, or of each group of a comparison."""
    if "miou" in result:
        return f"mIoU {100 * result['miou']:.{digits}f} %"
    means = {group: result["rows"][group]["mean"]["miou"] for group in result["runs"]}
    return "mIoU " + ", ".join(f"{group} {100 * mean:.{digits}f} %" for group, mean in means.items())


def verify(
    name: str, *, data: str | None = None, device: str | None = None, progress: bool = False
) -> tuple[dict[str, Any], list["Compared"]]:
    """Repeat a published evaluation or comparison: the published result, and its figures compared with those measured.

    Not all runs of a comparison are published: if one is missing, the figures are recomputed from the counts of each
    image, stored next to the result. `data` overrides the data set of the command.
    """
    from recseg.devices import choose_device
    from recseg.evaluation.compare import summarise
    from recseg.evaluation.counts import count, counts_file, read_counts
    from recseg.evaluation.results import without_paths
    from recseg.evaluation.verify import compare as compare_figures
    from recseg.evaluation.verify import from_counts, published_results, read_result
    from recseg.weights.io import load

    known = published_results()
    if name not in known:
        raise RecsegError(f"{name!r}: no such result (available: {', '.join(known) or 'none'})")
    published = read_result(known[name])
    given = repeated(known[name], published)
    where, data = choose_device(device), data or given.data
    if "differences" not in published:
        from recseg.data import open_dataset
        from recseg.evaluation.evaluate import evaluate as score

        dataset = open_dataset(data, given.split)
        measured = score(load(given.weights, where), dataset, limit=given.limit, progress=progress)
    elif from_counts(published):
        measured = summarise(read_counts(counts_file(known[name])), published["resamples"])
    else:
        counts = count(
            given.group, data, given.split, given.choose_split, lambda run: load(run, where),
            image_size=given.image_size, limit=given.limit, progress=progress,
        )  # fmt: skip
        measured = summarise(counts, published["resamples"])
    return published, compare_figures(published, without_paths(measured))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting: the command comes from a result, not from the user."""
        raise RecsegError(message)


def repeated(file: Path, published: dict[str, Any]) -> argparse.Namespace:
    """The parsed command of a result, which must have everything that is needed to repeat it."""
    from recseg.evaluation.verify import ORIGIN

    for key in ORIGIN:
        if published.get(key) is None:
            raise RecsegError(f"{file}: has no {key}, so it cannot be repeated")
    kind, parser = (compare if "differences" in published else evaluate), _Parser(prog="recseg")
    kind.add(parser.add_subparsers(required=True, metavar="COMMAND"))
    program, *words = shlex.split(published["command"])
    try:
        given = parser.parse_args(words if program == "recseg" else [])
    except RecsegError as error:
        verb = kind.__name__.rpartition(".")[-1]
        raise RecsegError(f"{file}: cannot be repeated with recseg {verb} ({error}): {published['command']}") from error
    if (given.data, given.split) != (published["data"], published["split"]):
        raise RecsegError(f"{file}: names {published['data']} {published['split']}, but its command names other images")
    if not re.fullmatch(r"[0-9a-f]{40}", str(published["commit"])):
        raise RecsegError(f"{file}: commit {published['commit']!r} is not a git commit")
    return given
