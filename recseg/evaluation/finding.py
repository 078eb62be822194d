"""The main finding of a comparison in one sentence and a small table, for whoever reads no further.

Both say what `recseg compare` measured, so that nobody types it.
"""

from typing import Any

from recseg.evaluation.answers import PIXELS
from recseg.evaluation.report import HEADLINE, points, separable

OURS, BASELINE = "recurrent", "dense"


def sentence(result: dict[str, Any]) -> str:
    """What a comparison of recurrent and dense networks found in mIoU, with its interval and the number of seeds."""
    ours, baseline = (100 * result["rows"][name]["mean"]["miou"] for name in (OURS, BASELINE))
    gap = _gap(result, BASELINE)["miou"]
    lead = "more" if gap["value"] > 0 else "less"
    sure = "" if separable(gap) else "; the interval holds 0, so the two are not separable"
    seeds = min(len(runs) for runs in result["runs"].values())
    return (
        f"On {result['images']} photographs of PASCAL VOC's validation set (those of 2007 and 2008), naming one class "
        f"at a time scores {ours:.1f} % mIoU. A dense network with the same encoder, decoder and updates scores "
        f"{baseline:.1f} %. The sequence gets {abs(100 * gap['value']):.1f} points {lead} (95 % interval over images "
        f"{100 * gap['low']:+.1f} … {100 * gap['high']:+.1f}; {seeds} seed{'s' * (seeds != 1)} each{sure})."
    ).replace("-", "−")


def table(result: dict[str, Any]) -> str:
    """The recurrent network, its own pixel classifier and the dense network, and what the first leads the others by."""
    pixels = f"{OURS}: {PIXELS}"
    titles = {OURS: "recurrent", pixels: "its own pixels, without the sequence", BASELINE: "dense network"}
    lines = [f"| %, {result['images']} images | {' | '.join(HEADLINE.values())} |", "|---|--:|--:|--:|"]
    for name, title in titles.items():
        mean = result["rows"][name]["mean"]
        lines.append(f"| {title} | {' | '.join(f'{100 * mean[key]:.1f}' for key in HEADLINE)} |")
    for name in (pixels, BASELINE):
        gaps = " | ".join(points(_gap(result, name)[key]) for key in HEADLINE)
        lines.append(f"| recurrent − {titles[name].split(',')[0]}, points (95 % interval) | {gaps} |")
    return "\n".join(lines)


def _gap(result: dict[str, Any], minus: str) -> dict[str, Any]:
    return next(each for each in result["differences"] if (each["of"], each["minus"]) == (OURS, minus))
