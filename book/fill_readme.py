"""Write the measured results into README.md, between its markers: `make readme`. `--check` only compares.

Scores are never typed by hand: each row comes from a file in `data/results` that says how it was measured.
"""

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from recseg.book import finding
from recseg.book.measure_gpu import table as gpu_table
from recseg.errors import counted

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
STUDY = ROOT / "data" / "results" / "voc-study.json"
LONG = ROOT / "data" / "results" / "voc-long.json"
# Titles that make clear which part of a split was scored.
PARTS = {
    ("voc", "val", 421): "VOC 2012 val, images of 2007 and 2008 (421)",
    ("streets", "val", 100): "100 drawn street scenes, each pixel of one of eleven classes",
    ("pictograms-4242", "train", 500): "500 fresh pictograms, drawn after all choices were made: "
    "the list `train` of `recseg data pictograms --out pictograms-4242 --images 625 --seed 4242`",
}
COLUMNS = {
    "mIoU": ("miou", "{:.1%}"),
    "label-set F1": ("label_set_f1", "{:.1%}"),
    "count accuracy": ("count_accuracy", "{:.1%}"),
    "steps": ("mean_steps", "{:.2f}"),
    "slot accuracy": ("slot_accuracy", "{:.1%}"),
    "slot IoU": ("slot_iou", "{:.1%}"),
}


def results() -> dict[Path, dict[str, Any]]:
    """Every evaluation in `data/results`, best mIoU first."""
    read = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("data/results/*.json"))}
    scores = {path: result for path, result in read.items() if isinstance(result, dict) and "miou" in result}
    return dict(sorted(scores.items(), key=lambda item: -(item[1]["miou"] or 0)))


def table() -> str:
    """One table for each data set and split: scores on different images never share a column."""
    groups: dict[tuple[str, str, int], list[tuple[Path, dict[str, Any]]]] = {}
    for path, result in results().items():
        key = (str(result.get("data", "?")), str(result.get("split", "?")), int(result.get("images", 0)))
        groups.setdefault(key, []).append((path, result))
    files = sorted(ROOT.glob("data/results/*.json"), key=lambda path: (path != STUDY, path != LONG, path))
    parts = [_compared(path) for path in files]
    parts = [part for part in parts if part] + [_one(*key, rows) for key, rows in sorted(groups.items())]
    parts = parts or ["No result has been measured yet.\n"]
    return "\n".join([*parts, gpus()])


def gpus() -> str:
    """The results of `recseg.book.measure_gpu`, one table per GPU."""
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("data/results/gpu-*.json"))]
    tables = [f"**{result['device']['name']}, 256×256**\n\n{gpu_table(result)}" for result in measured]
    return "\n".join(tables) if tables else "**Speed on a GPU**: not measured.\n"


def _compared(path: Path) -> str:
    """A comparison's main rows (chapter 9 has the others); empty for results of another kind."""
    result = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(result, dict) or "differences" not in result:
        return ""
    title = PARTS.get((result["data"], result["split"], result["images"]), f"{result['data']}, {result['split']}")
    runs = result["runs"]["recurrent"]
    trained = f"{runs[0]['network']['encoder']}, {runs[0]['updates']:,} updates, {counted(len(runs), 'seed')} each"
    link = f"[{path.stem}]({path.relative_to(ROOT).as_posix()})"
    return f"**{title}, compared in {link} ({trained})**\n\n{finding.table(result)}\n"


def _one(data: str, split: str, images: int, rows: list[tuple[Path, dict[str, Any]]]) -> str:
    shown = [name for name, (key, _) in COLUMNS.items() if any(row.get(key) is not None for _, row in rows)]
    title = PARTS.get((data, split, images), f"{data}, {split}: {images} images")
    lines = [f"**{title}**", ""]
    lines += ["| measured in | " + " | ".join(shown) + " | trained | on |", "|---|" + "---:|" * len(shown) + "---|---|"]
    for path, row in rows:
        values = [row.get(COLUMNS[name][0]) for name in shown]
        cells = ["–" if v is None else COLUMNS[n][1].format(v) for n, v in zip(shown, values, strict=True)]
        machine = row.get("hardware") or {}
        cores = machine.get("cores", "?")
        device = machine.get("gpu") or f"{cores} CPU core{'s' * (cores != 1)}"
        name = f"[{path.stem}]({path.relative_to(ROOT).as_posix()})"
        training = row["training"]
        encoder = training.get("network", training)["encoder"]  # older runs had all options in one table
        trained = f"{encoder}, {training['step']:,} updates"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {trained} | {device}, {row.get('date', '?')} |")
    return "\n".join(lines) + "\n"


def _between(marker: str, new: str, text: str) -> str:
    pattern = rf"(?<=<!-- {marker} -->\n).*?(?=<!-- /{marker} -->)"
    return re.sub(pattern, lambda _: new, text, flags=re.DOTALL)


def main(arguments: list[str]) -> int:
    text = README.read_text(encoding="utf-8")
    study, long = (json.loads(path.read_text(encoding="utf-8")) for path in (STUDY, LONG))
    opening = textwrap.fill(f"{finding.sentence(study)} {finding.longer(long)}", 120)
    filled = _between("finding", f"{opening}\n", _between("results", table(), text))
    if arguments == ["--check"]:
        return filled != text
    README.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
