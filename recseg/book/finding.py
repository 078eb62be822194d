"""The main result of a comparison in one sentence and a small table, generated from the output of `recseg compare`."""

from typing import Any

from recseg.errors import counted
from recseg.evaluation.answers import PIXELS
from recseg.evaluation.report import HEADLINE, points, separable, signed

OURS, BASELINE = "recurrent", "dense"


def sentence(result: dict[str, Any]) -> str:
    """The result of a comparison of recurrent and dense networks in mIoU, with its interval and number of seeds."""
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


def longer(result: dict[str, Any]) -> str:
    """The result of a comparison of longer runs, to follow `sentence`: in mIoU and in count accuracy."""
    ours, baseline = (100 * result["rows"][name]["mean"]["miou"] for name in (OURS, BASELINE))
    runs = result["runs"][OURS]
    gap = _gap(result, BASELINE)
    sure = {key: "" if separable(gap[key]) else "; not separable" for key in ("miou", "count_accuracy")}
    found = {key: points(gap[key]).replace(")", f"{words})") for key, words in sure.items()}
    return (
        f"With a stronger encoder and {runs[0]['updates']:,} updates ({counted(len(runs), 'seed')} each), the recurrent"
        f" network scores {ours:.1f} % mIoU and the dense one {baseline:.1f} %. In points, the difference in mIoU is "
        f"{found['miou']} and that in the share of images with the right number of classes {found['count_accuracy']}."
    )


def table(result: dict[str, Any]) -> str:
    """Scores of the recurrent network, its own pixel classifier and the dense network, and the differences.

    Intervals have rows of their own, so that the table fits on a phone.
    """
    pixels = f"{OURS}: {PIXELS}"
    rows = [(f"%, {result['images']} images", list(HEADLINE.values())), ("---", ["--:"] * len(HEADLINE))]
    rows += [
        (title, [f"{100 * result['rows'][name]['mean'][key]:.1f}" for key in HEADLINE])
        for name, title in (
            (OURS, "recurrent"),
            (pixels, "its own pixels, without the sequence"),
            (BASELINE, "dense network"),
        )
    ]
    for name, title in ((pixels, "recurrent − own pixels"), (BASELINE, "recurrent − dense network")):
        gaps = [_gap(result, name)[key] for key in HEADLINE]
        rows.append((f"{title}, points", [signed(100 * gap["value"]) for gap in gaps]))
        ends = [(signed(100 * gap["low"]), signed(100 * gap["high"])) for gap in gaps]
        # A non-breaking space before …, so that a narrow column shows "+2.2 …" above "+5.7".
        rows.append(("95 % interval", [f"{low}\N{NO-BREAK SPACE}… {high}" for low, high in ends]))
    return "\n".join(f"| {title} | {' | '.join(cells)} |" for title, cells in rows)


def _gap(result: dict[str, Any], minus: str) -> dict[str, Any]:
    return next(each for each in result["differences"] if (each["of"], each["minus"]) == (OURS, minus))
