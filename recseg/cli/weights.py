"""`recseg weights`: list the published weights."""

import argparse
import json

from recseg.cli.command import Commands, command


def add(commands: Commands) -> None:
    """The arguments of `recseg weights`."""
    parser = command(commands, "weights", run)
    parser.add_argument("--json", action="store_true", help="print the registry as JSON")


def run(arguments: argparse.Namespace) -> None:
    """List the published weights.

    example: recseg weights --json
    """
    from recseg.weights.registry import published_weights

    entries = published_weights()
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return
    if not entries:
        print("no published weights in this installation: train a network, and pass the run's folder to --weights")
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
