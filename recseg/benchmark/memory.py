"""Peak memory of one forward pass, above that of the loaded, idle model.

On a CPU each measurement runs in a process of its own, since freed memory may not have been returned to the system.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from recseg.benchmark import networks
from recseg.errors import RecsegError


def peak_bytes(name: str, *, device: str = "cpu", **options: Any) -> int | None:
    """Bytes above the idle model; None where the system does not report it (CPUs elsewhere than on Linux).

    Args:
        name: one of `networks.CONTESTANTS`.
        options: `batch`, `side`, `num_classes`, `encoder`, `threads`.
    """
    if torch.device(device).type == "cpu" and not Path("/proc/self/clear_refs").exists():
        return None
    request = json.dumps({"name": name, "device": device} | options)
    process = subprocess.run([sys.executable, "-m", __name__, request], capture_output=True, text=True, check=False)
    if process.returncode:
        raise RecsegError(f"memory of {name!r}: {(process.stderr.strip() or 'killed').splitlines()[-1]}")
    return int(process.stdout)


def measure(
    name: str, device: str, *, batch: int, side: int, num_classes: int = 21, encoder: str = "mobilenet_v2",
    threads: int | None = None,
) -> int:  # fmt: skip
    """Measure in this process: build the network, run it, and see how far the memory has risen."""
    if threads is not None:
        torch.set_num_threads(threads)
    model = networks.build(name, encoder=encoder, num_classes=num_classes, side=side, device=device)
    lengths = networks.voc_lengths(batch)
    images = networks.random_images(batch, side, device)
    call = networks.forward(name, model, images, lengths)
    if name != "published":  # which takes no small images
        # Warm up: code that libraries load and compile at the first call is not the network's memory.
        networks.forward(name, model, networks.random_images(1, 64, device), [1])()
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        idle = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - idle
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    idle = status("VmRSS")
    call()
    return status("VmHWM") - idle


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status, such as `VmHWM` (Linux only)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])  # kB
    raise RecsegError(f"/proc/self/status: has no {field}")


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(measure(arguments.pop("name"), arguments.pop("device"), **arguments))
