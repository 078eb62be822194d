"""Measure a GPU for the book: `python -m recseg.book.measure_gpu --minutes 8 --out DIR` writes DIR/gpu-NAME.json.

The file is rewritten after each row, so that an interrupted measurement is still useful. A case that fails (out of
memory, no compiler) is recorded with its error, and the next one follows. With `--data voc.pack` the remaining time is
spent training the published recipe. The measurements are in `recseg.book.gpu_parts`.
"""

import argparse
import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recseg.book.gpu_parts import PARTS, Plan
from recseg.devices import choose_device
from recseg.errors import RecsegError
from recseg.evaluation.results import write_result


def measure(plan: Plan, file: Path, *, command: list[str] | None = None) -> dict[str, Any]:
    """Run all parts, each for its share of the time, and write the file after each row.

    Returns:
        The content of the file: `device`, and for each part its `rows` and whether all were measured (`complete`).
    """
    result: dict[str, Any] = {"device": describe(plan.device)}
    written = write_result(file, result, command=command)
    whole = plan.until - time.monotonic()
    for name, (part, share) in PARTS.items():
        until = min(plan.until, time.monotonic() + share * whole)
        found: dict[str, Any] = {"rows": [], "complete": False}
        result[name] = found
        for facts, act in part(plan):
            if time.monotonic() >= until:
                break
            found["rows"].append(facts | attempt(act))
            written = write_result(file, result, command=command)
        else:
            found["complete"] = True
            written = write_result(file, result, command=command)
    return written


def attempt(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a measurement, or the first line of its error."""
    try:
        return act()
    except Exception as error:  # of memory, compiler or driver: a result as well
        words = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {words[0][:200]}"}
    finally:
        gc.collect()  # models in reference cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def describe(device: torch.device) -> dict[str, Any]:
    """Name, memory, driver and libraries of a device."""
    about: dict[str, Any] = {"type": device.type, "name": "cpu", "cuda": torch.version.cuda}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {"name": properties.name, "bytes": properties.total_memory, "driver": _driver()}
        about |= {"capability": f"{properties.major}.{properties.minor}", "cudnn": torch.backends.cudnn.version()}
    return about


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def table(result: dict[str, Any]) -> str:
    """Images per second of each network as a Markdown table: in training and in inference, by batch size."""
    kinds = {name: _rates(result.get(name, {}).get("rows", [])) for name in ("training", "inference")}
    columns = [(name, batch) for name, found in kinds.items() for batch in sorted({batch for _, batch in found})]
    networks = dict.fromkeys(network for found in kinds.values() for network, _ in found)
    lines = ["| images a second | " + " | ".join(f"{name}, batch {batch}" for name, batch in columns) + " |"]
    lines += ["|---|" + "---:|" * len(columns)]
    for network in networks:
        cells = [kinds[name].get((network, batch)) for name, batch in columns]
        words = ["–" if cell is None else f"{cell:,.0f}" for cell in cells]
        lines.append(f"| {network} | " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def _rates(rows: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Images per second by network and batch size, for the first image size and precision measured."""
    first = rows[0] if rows else {}
    same = [row for row in rows if all(row[key] == first[key] for key in ("side", "precision"))]
    return {(row["network"], row["batch"]): row["images_a_second"] for row in same if "images_a_second" in row}


def main(arguments: list[str] | None = None) -> None:
    """Measure the given device, or the fastest available."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together (8)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of gpu-NAME.json")
    parser.add_argument("--device", help="by default the fastest available")
    parser.add_argument("--data", type=Path, metavar="PACK", help="a packed VOC, to train on in the remaining time")
    parser.add_argument("--encoder-weights", type=Path, metavar="FILE", help="encoder weights for that training")
    asked = parser.parse_args(arguments)
    until = time.monotonic() + 60 * asked.minutes
    try:
        device = choose_device(asked.device)
        name = re.sub(r"[^a-z0-9]+", "-", describe(device)["name"].lower()).strip("-")
        file = asked.out / f"gpu-{name}.json"
        plan = Plan(device, asked.out, until, asked.data, asked.encoder_weights)
        words = ["python", "-m", "recseg.book.measure_gpu", *(sys.argv[1:] if arguments is None else arguments)]
        print(table(json.loads(json.dumps(measure(plan, file, command=words)))))
    except RecsegError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"written: {file}")


if __name__ == "__main__":
    main()
