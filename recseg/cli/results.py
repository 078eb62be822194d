"""`recseg results`: list the published scores, or measure one again."""

import argparse
import sys
from typing import Any

from recseg.cli.command import Commands, add_device, command
from recseg.errors import counted


def add(commands: Commands) -> None:
    """The arguments of `recseg results`."""
    parser = command(
        commands,
        "results",
        "list the published scores, or measure one again",
        "recseg results --verify pictograms-recurrent",
        run,
    )
    parser.add_argument("--verify", metavar="NAME", help="repeat this evaluation; exit code 1 if it differs")
    parser.add_argument("--data", help="where its images are, if not where its command says")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """`recseg results`."""
    from recseg.evaluation.verify import ScoreDiffers, from_counts, published_results, read_result, verify

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
        raise ScoreDiffers(
            f"{arguments.verify} on {where}: {len(wrong)} of {len(figures)} figures differ, most of all {worst.name}: "
            f"published {worst.published}, measured {worst.measured}, distance {worst.distance:.4g}, "
            f"tolerance {worst.tolerance:g}"
        )
    exact = sum(figure.distance == 0 for figure in figures)
    print(
        f"{arguments.verify} on {where}: all {len(figures)} figures agree, {exact} of them to the last digit "
        f"({_miou(published, 2)}; largest distance {worst.distance:.2g}, {worst.name})"
    )
    if "differences" in published and from_counts(published):
        print("computed again from the counts of each image: the trainings that it names are not all here")


def _miou(result: dict[str, Any], digits: int = 1) -> str:
    """mIoU of an evaluation, or of each group of a comparison."""
    if "miou" in result:
        return f"mIoU {100 * result['miou']:.{digits}f} %"
    means = {group: result["rows"][group]["mean"]["miou"] for group in result["runs"]}
    return "mIoU " + ", ".join(f"{group} {100 * mean:.{digits}f} %" for group, mean in means.items())
