"""`recseg benchmark`: the cost of recurrence, compared with a dense U-Net and with the published network.

All contestants run in one process, in interleaved rounds; the targets are ratios, since absolute times on a shared
machine are noisy (`recseg.benchmark.timing`). The contestants are in `recseg.benchmark.networks`, the measurements in
`parts`, `anatomy`, `data`, `quality` and `deployed`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from recseg.benchmark import PARTS, anatomy, data, deployed, parts, quality
from recseg.benchmark.parts import Bar, Setting
from recseg.devices import choose_device

MEASURES = {
    "inference": parts.inference,
    "anatomy": anatomy.anatomy,
    "training": parts.training,
    "classes": parts.classes,
    "loader": data.loader,
    "quality": quality.quality,
    "deployed": deployed.deployed,
}


def benchmark(
    names: Sequence[str] = PARTS,
    *,
    device: str | None = None,
    side: int = 256,
    rounds: int = 5,
    encoder: str = "mobilenet_v2",
    reference: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        names: of the parts, some of `recseg.benchmark.PARTS`.
        device: by default the fastest available.
        side: of the square images, in pixels.
        rounds: number of rounds.
        encoder: of all contestants but the published network.
        reference: TensorFlow Lite file of a network to compare the exported one with.
        progress: show a progress bar.

    Returns:
        JSON-serialisable: an entry for each part, and `bars`: what was measured, value, bound, whether it holds, range
        over the rounds, and what it tells.
    """
    result: dict[str, Any] = {}
    bars: list[Bar] = []
    chosen = choose_device(device)
    with tqdm(unit="part", disable=not progress) as shown:
        setting = Setting(chosen, side, rounds, encoder, reference, progress=shown.update)
        for name in names:
            shown.set_description(f"benchmark {name}")
            result[name], held = MEASURES[name](setting)
            bars += held
    about = {
        "device": str(chosen),
        "threads": torch.get_num_threads(),
        "side": side,
        "rounds": rounds,
        "encoder": encoder,
    }
    return {"setting": about, **result, "bars": [bar.to_dict() for bar in bars]}


def bar_table(bars: Sequence[dict[str, Any]]) -> str:
    """The bars as lines of text: median of the rounds, their range, the bound, and what it tells."""
    lines = []
    for bar in bars:
        bound = f"{'≤' if bar['at_most'] else '≥'} {bar['bound']:g}"
        holds = {True: "holds", False: "missed", None: "not measured"}[bar["holds"]]
        value = "–" if bar["value"] is None else f"{bar['value']:.3g}"
        spread = "" if bar["spread"] is None else f"({bar['spread']['low']:.3g} – {bar['spread']['high']:.3g})"
        lines.append(f"{bar['what']:<62}{value:>8}  {spread:<17}{bound:>8}  {holds}")
        lines.append(f"    {bar['tells']}")
    return "\n".join(lines)
