"""What it saves to keep freed memory (`recseg.allocator`), as the commands do, instead of giving it back.

Each turn has a process of its own: what a process has freed before may lie in the midst of its heap, where nothing is
ever given back, and then both ways are one.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from recseg.allocator import keep_freed_memory
from recseg.benchmark.networks import build, forward, random_images, voc_lengths
from recseg.benchmark.parts import Bar, Found, Setting, as_milliseconds
from recseg.benchmark.timing import interleave, ratio
from recseg.errors import RecsegError

WAYS = ("given back", "kept")
NAMES = ("dense", "recurrent")


def kept(setting: Setting) -> Found:
    """Milliseconds and page faults of a call, both ways; and what 1,000 classes cost a dense network then."""
    if setting.device.type != "cpu" or not sys.platform.startswith("linux"):
        return {"not_measured": "not a CPU, or not Linux"}, []
    times: dict[str, list[float]] = {}
    faults: dict[str, int] = {}
    for _ in range(setting.rounds):
        for way in WAYS:
            found = _in_a_process(way, setting)
            for call, seconds in found["seconds"].items():
                times.setdefault(f"{call}, {way}", []).append(seconds)
            faults |= {f"{call}, {way}": number for call, number in found["page_faults"].items()}
            setting.progress()
    bars = []
    for way in WAYS:
        spread = ratio(*(times[f"{name}, 1000 classes, {way}"] for name in NAMES))
        bars.append(Bar(f"1,000 classes, dense ÷ recurrent, time, memory {way}", spread.median, 5, False, spread))
    return {"milliseconds": as_milliseconds(times), "page_faults": faults}, bars


def _in_a_process(way: str, setting: Setting) -> dict[str, Any]:
    request = json.dumps(
        {"way": way, "side": setting.side, "encoder": setting.encoder, "threads": torch.get_num_threads()}
    )
    process = subprocess.run([sys.executable, "-m", __name__, request], capture_output=True, text=True, check=False)
    if process.returncode:
        raise RecsegError(f"memory {way}: {(process.stderr.strip() or 'killed').splitlines()[-1]}")
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def measure(way: str, side: int, encoder: str, threads: int) -> dict[str, Any]:
    """In this process: seconds and page faults of each call."""
    torch.set_num_threads(threads)
    if way == "kept":
        keep_freed_memory()
    one, many = random_images(1, side), random_images(16, side)
    calls = {
        f"{name}, batch 16": forward(name, build(name, encoder=encoder, side=side), many, voc_lengths(16))
        for name in ("encoder", *NAMES)
    }
    for classes in (21, 1000):
        calls |= {
            f"{name}, {classes} classes": forward(
                name, build(name, encoder=encoder, side=side, num_classes=classes), one, [2]
            )
            for name in NAMES
        }
    seconds = {call: found for call, (found,) in interleave(calls, rounds=1, least=0.2).items()}
    return {"seconds": seconds, "page_faults": {call: _page_faults(act) for call, act in calls.items()}}


def _page_faults(act: Callable[[], object]) -> int:
    """Pages that one call has to be given; the first brings the process into the state of all others."""
    import resource  # not everywhere

    act()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    act()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
