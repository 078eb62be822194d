"""Findings in words, each with what to do about it, in one or two sentences.

The thresholds are rules of thumb: they select what is worth reporting, and prove nothing.
"""

from collections.abc import Iterator

import numpy as np

from recseg.classes import BACKGROUND
from recseg.data.check import FEW
from recseg.errors import some
from recseg.report.facts import Facts

OFTEN = 0.2  # smallest share of a class's images, or pixels, at which a confusion is reported
FEWEST_CASES = 3  # images in which it must occur
MOST_SHRUNK = 3.0
UNSURE = 0.1  # calibration error above which probabilities are reported as unreliable
MOST_NAMED = 5  # number of confusions reported


def hints(facts: Facts) -> list[str]:
    """What stands out; what invalidates the scores comes first."""
    kinds = (_leak, _training, _shrunk, _thin, _rare, _never, _swapped, _mistaken, _stop, _calibration)
    return [sentence for kind in kinds for sentence in kind(facts)]


def _leak(facts: Facts) -> Iterator[str]:
    if facts.shared:
        yield (
            f"{facts.shared} of these {len(facts.images)} images are in the list that the network was trained on "
            f"({facts.trained_on}): the scores are too good. Score a list that it was not trained on."
        )


def _training(facts: Facts) -> Iterator[str]:
    scored = [(row["step"], row["val_miou"]) for row in facts.log if row.get("val_miou") is not None]
    if len(scored) < 4:
        return
    best, value = max(scored, key=lambda row: row[1])
    last = scored[-1]
    if best == last[0] and value - scored[-3][1] > 0.005:
        yield (
            f"The validation mIoU was still rising at the end of training (by {_points(value - scored[-3][1])} in the "
            "last two validations): train longer."
        )
    elif value - last[1] > 0.02:
        yield (
            f"The validation mIoU was best at step {best:,}, {_points(value - last[1])} above the last: those "
            "weights are in the run's best.safetensors."
        )


def _shrunk(facts: Facts) -> Iterator[str]:
    if facts.shrink > MOST_SHRUNK:
        yield (
            f"Images are shrunk {facts.shrink:.1f}-fold for the network, to a short side of {facts.side} pixels: small "
            "objects are lost. Train and predict at a larger --image-size, or predict in windows (--tile)."
        )


def _thin(facts: Facts) -> Iterator[str]:
    cell = facts.cell * facts.shrink
    thin = sorted((width, label) for label, width in facts.widths.items() if width < cell)
    if thin:
        names = [f"{facts.legend.names[label]} (about {width:.0f} pixels wide)" for width, label in thin]
        yield (
            f"Thinner than the output stride ({cell:.0f} pixels of an image): {some(names)}. "
            "A larger --image-size, or windows (--tile) with a network trained at that scale, make them wider."
        )


def _rare(facts: Facts) -> Iterator[str]:
    if facts.training is None:
        return
    images = facts.training.images
    rare = sorted((int(images[row.label]), row.name) for row in facts.classes if row.images and images[row.label] < FEW)
    if rare:
        names = [f"{name} ({count})" for count, name in rare]
        yield f"In fewer than {FEW} training images (list {facts.trained_on}): {some(names)}. Label more of them."


def _never(facts: Facts) -> Iterator[str]:
    never = [f"{row.name} (in {row.images} images)" for row in facts.classes if row.images and not row.named]
    if never:
        yield f"Never named: {some(never)}."
    answered = float(facts.confusion[:, BACKGROUND].sum() / facts.confusion.sum())
    if answered and not facts.confusion[BACKGROUND].any():
        yield (
            f"{_percent(answered)} of the pixels are predicted as {facts.legend.names[BACKGROUND]}, which no mask "
            "contains. If every pixel belongs to some class, use a table in classes.txt without a row background."
        )
    absent = [row.name for row in facts.classes if not row.images]
    if absent:
        yield f"Named, but in no image: {some(absent)}. No mean includes it, but it lowers the IoU of others."


def _swapped(facts: Facts) -> Iterator[str]:
    found = []
    for row in facts.classes:
        other = int(facts.swaps[row.label].argmax())
        count = int(facts.swaps[row.label, other])
        if count >= FEWEST_CASES and count >= OFTEN * row.images:
            share, name = count / row.images, facts.legend.names[other]
            found.append(
                (share, f"{row.name} is named as {name} in {_percent(share)} of its images ({count} of {row.images})")
            )
    yield from (f"{words}." for _, words in sorted(found, reverse=True)[:MOST_NAMED])


def _mistaken(facts: Facts) -> Iterator[str]:
    """Confusions of pixels: between classes, and with the background."""
    shares = facts.confusion / facts.confusion.sum(axis=1, keepdims=True).clip(min=1)
    lost, missed = [], []
    for row in facts.classes:
        others = shares[row.label].copy()
        others[[row.label, BACKGROUND]] = 0
        other = int(others.argmax())
        if others[other] >= OFTEN:
            lost.append((float(others[other]), f"{row.name} → {facts.legend.names[other]} ({_percent(others[other])})"))
        if row.images and shares[row.label, BACKGROUND] > 0.5:
            missed.append((float(shares[row.label, BACKGROUND]), row.name))
    if lost:
        yield f"Pixels of one class predicted as another: {some(name for _, name in sorted(lost, reverse=True))}."
    if missed:
        names = [f"{name} ({_percent(share)})" for share, name in sorted(missed, reverse=True)]
        yield f"More than half of the pixels are predicted as {facts.legend.names[BACKGROUND]}: {some(names)}."


def _stop(facts: Facts) -> Iterator[str]:
    counts = facts.counts
    few, many = float(np.tril(counts, -1).sum() / counts.sum()), float(np.triu(counts, 1).sum() / counts.sum())
    if max(few, many) < 0.1 or max(few, many) < 1.5 * min(few, many):
        return
    if facts.kind == "dense":
        subject = "Too few classes are named" if few > many else "Too many classes are named"
    else:
        subject = "The stop comes too early" if few > many else "The stop comes too late"
    parts = f"fewer classes than are present are named in {_percent(few)} of the images, more in {_percent(many)}"
    yield f"{subject}: {parts}."


def _calibration(facts: Facts) -> Iterator[str]:
    for key, outcome, words in (("class", "present", "a class"), ("stop", "ended", "the stop")):
        error, bins = facts.scores[f"{key}_calibration_error"], facts.scores[f"{key}_calibration"]
        if error is not None and error > UNSURE:
            total = sum(row["decisions"] for row in bins)
            said, true = (
                sum(row[name] * row["decisions"] for row in bins) / total for name in ("probability", outcome)
            )
            figures = f"{_percent(said)} on average, while {_percent(true)} are true"
            side = f"overconfident: {figures}" if said > true else f"underconfident: {figures}"
            if abs(said - true) < error / 2:
                side = "overconfident in some cases and underconfident in others"
            yield f"Probabilities of {words} are off by {_points(error)} on average; the network is {side}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"
