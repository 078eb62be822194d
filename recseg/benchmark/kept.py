"""What it saves to keep freed memory (`recseg.allocator`), as the commands do, instead of giving it back."""

from collections.abc import Callable
from typing import Any

from recseg.allocator import GLIBC, keep_freed_memory
from recseg.benchmark.networks import forward, random_images, voc_lengths
from recseg.benchmark.parts import Bar, Found, Setting, as_milliseconds
from recseg.benchmark.timing import ratio

NAMES = ("encoder", "dense", "recurrent")
WAYS = {"given back": GLIBC, "kept": 1 << 30}


def kept(setting: Setting) -> Found:
    """Milliseconds and page faults of a call, both ways in turn; and what 1,000 classes cost a dense network then.

    Stands last: a process whose settings were changed once does not go back to glibc's own, which move.
    """
    if setting.device.type != "cpu" or not keep_freed_memory(GLIBC):
        return {"not_measured": "not a CPU, or a C library without such settings"}, []
    one, many = random_images(1, setting.side), random_images(16, setting.side)
    calls = {f"{name}, batch 16": forward(name, setting.make(name), many, voc_lengths(16)) for name in NAMES}
    for classes in (21, 1000):
        calls |= {
            f"{name}, {classes} classes": forward(name, setting.make(name, classes), one, [2]) for name in NAMES[1:]
        }
    acts = {f"{call}, {way}": _in(limit, calls[call]) for call in calls for way, limit in WAYS.items()}
    times = setting.times(acts)
    found = ratio(*(times[f"{name}, 1000 classes, kept"] for name in NAMES[1:]))
    bars = [Bar("1,000 classes, dense ÷ recurrent, time, memory kept", found.median, 5, False, found)]
    result: dict[str, Any] = {"milliseconds": as_milliseconds(times)}
    return result | {"page_faults": {name: _page_faults(act) for name, act in acts.items()}}, bars


def _in(limit: int, act: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        keep_freed_memory(limit)  # a microsecond
        return act()

    return call


def _page_faults(act: Callable[[], object]) -> int:
    """Pages that one call has to be given; the first brings the process into the state of all others."""
    import resource  # not everywhere

    act()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    act()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
