"""Build the report page for a network and a split of a data set."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from recseg.data import open_dataset
from recseg.data.folder import SegmentationFolder, shared_ids
from recseg.errors import RecsegError
from recseg.evaluation.evaluate import evaluate
from recseg.evaluation.results import commit_of_clone, hardware, versions, without_paths
from recseg.inference.mode import inference_mode
from recseg.inference.predict import prepare
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.report.facts import Facts
from recseg.report.images import panels
from recseg.report.page import page
from recseg.resources import resource
from recseg.viz.figures import read_log
from recseg.weights.registry import published_weights

WORST, BEST = 8, 4  # number of images shown


def make_report(
    model: SegmentationModel,
    dataset: SegmentationFolder,
    *,
    title: str,
    log: Path | None = None,
    training: SegmentationFolder | None = None,
    command: str = "",
    progress: bool = True,
) -> str:
    """Score a network on a split, and describe it on one HTML page.

    Args:
        model: any network that `recseg.evaluate` scores.
        dataset: a split, without a transform.
        title: title of the page.
        log: training log, the `log.jsonl` of the run.
        training: the list that the network was trained on, if the data have it.
        command: command that reproduces the page.
        progress: show progress bars on stderr.

    Raises:
        RecsegError: as for `evaluate`, or a log that cannot be read.
    """
    rows = [] if log is None else [row for row in read_log(log) if isinstance(row, dict) and "step" in row]
    scores = evaluate(model, dataset, progress=progress, per_image=True)
    facts = Facts(
        scores=scores,
        legend=dataset.legend,
        kind=model.kind,
        side=model.input_size or model.image_size,
        cell=cell_size(model, dataset),
        masks=dataset.survey(),
        trained_on=training.split if training else None,
        training=training.survey(skip=True) if training else None,
        shared=len(shared_ids(dataset.ids, training.ids)) if training else 0,
        log=rows,
    )
    names = list(facts.image_iou)  # the worst first
    chosen = tqdm([*names[:WORST], *names[: WORST - 1 : -1][:BEST]], "draw images", disable=not progress, leave=False)
    shown = {name: panels(model, dataset, name) for name in chosen}
    return page(title, facts, shown, WORST, _origin(model, command))


def cell_size(model: SegmentationModel, dataset: SegmentationFolder) -> float:
    """Output stride: side, in pixels of the network's input, of one cell of its masks or logits."""
    with inference_mode(model) as network:
        pixels = prepare(Image.fromarray(dataset.pixels(0)), network)[None]  # (1, 3, h, w)
        planes = network.pixel_logits(pixels)  # (1, K, h, w)
        if planes is None:
            output = network(pixels)
            planes = output.masks if isinstance(output, RecurrentOutput) else output
    return float(pixels.shape[-2] / planes.shape[-2])


def _origin(model: SegmentationModel, command: str) -> dict[str, dict[str, Any]]:
    """Tables of settings, by caption."""
    commit, changed = commit_of_clone()
    made = {"command": command, "commit": commit and commit[:12] + (" and changes" if changed else ""), **versions()}
    training = {key: value for key, value in model.metadata.items() if value is not None and key != "network"}
    return {
        "This report": {key: value for key, value in {**made, **hardware()}.items() if value},
        "The training, as recorded in the weights": without_paths(training),
        "The network": {"kind": model.kind, **(asdict(model.config) if model.config else {})},
    }


def find_log(weights: str) -> Path | None:
    """The training log: in a run's folder, next to a weight file, or published with a name."""
    if any(entry["name"] == weights for entry in published_weights()):
        with suppress(RecsegError):
            return resource("results", f"{weights}-log.jsonl")
        return None
    path = Path(weights)
    log = (path if path.is_dir() else path.parent) / "log.jsonl"
    return log if log.is_file() else None


def open_training(model: SegmentationModel, data: str, dataset: SegmentationFolder) -> SegmentationFolder | None:
    """The list that a network was trained on, if the data have one of that name; None for pictograms."""
    split = model.metadata.get("split")
    if not isinstance(split, str) or data == "pictograms":
        return None
    if split == dataset.split:
        return dataset
    with suppress(RecsegError):
        return open_dataset(data, split)
    return None
