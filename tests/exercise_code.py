"""Solutions of exercises as readers write them, without `recseg.book.exercises`, and where there is another way, in
another way than the book's own solutions; an argument that has a default makes a mistake."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recseg import ConvLSTMCell
from recseg.classes import palette
from recseg.evaluation.metrics import VOCMetric
from recseg.resources import resource

Array = NDArray[Any]


def paint(masks: Tensor, classes: list[int]) -> Tensor:
    return (masks * torch.tensor(classes, dtype=torch.long).view(-1, 1, 1)).sum(dim=0)


def tracker(row: int, column: int) -> ConvLSTMCell:
    cell = ConvLSTMCell(1, 1).requires_grad_(False)
    for weight in (cell.conv_x.weight, cell.conv_h.weight):
        weight.zero_()
    cell.conv_x.bias.copy_(torch.tensor([6.0, -6.0, -1.0, 6.0]))  # type: ignore[union-attr]
    cell.conv_x.weight[2, 0, 1, 1], cell.conv_h.weight[2, 0, row, column] = 6.0, 4.0
    return cell


def frame_by_frame(layer: Any, film: Tensor, cut: int, *, carry: bool = True) -> Tensor:
    state, outputs = None, []
    for number, frame in enumerate(film):
        output, state = layer(frame[None], state if carry or number != cut else None)
        outputs.append(output[0])
    return torch.stack(outputs)


def gru(x: Tensor, h: Tensor, *kernels: Tensor, kept: int = 0) -> Tensor:
    """With `kept`, z is the share of the old state instead of the new one."""

    def gate(kernel: Tensor, state: Tensor) -> Tensor:
        inputs = x.shape[1]
        parts = ((x, kernel[:, :inputs]), (state, kernel[:, inputs:]))
        return torch.stack([torch.conv2d(map_, part, padding="same") for map_, part in parts]).sum(dim=0)

    z, r = (torch.sigmoid(gate(kernel, h)) for kernel in kernels[:2])
    g = torch.tanh(gate(kernels[2], r * h))
    return torch.lerp(g, h, z) if kept else torch.lerp(h, g, z)


def field(layers: Iterable[tuple[int, int]], own: bool = False) -> int:
    """From the last layer to the first: r ← stride · (r − 1) + kernel."""
    size = 1
    for kernel, stride in reversed(list(layers)):
        size = stride * (size - 1) + kernel if not own else size + kernel - 1
    return size


def work(network: torch.nn.Module, image: Tensor, *, additions: bool = False) -> int:
    total: list[int] = []
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(
                lambda conv, given, out: total.append(out.numel() * conv.in_channels * math.prod(conv.kernel_size))
            )
    network(image)
    return sum(total) * (2 if additions else 1)


def forward(network: Any, images: Tensor, *, pad: bool = True) -> Tensor:
    deepest, (height, width) = network.encoder.strides[-1], images.shape[-2:]
    grey = torch.tensor([124, 116, 104]).div(255).view(1, 3, 1, 1).repeat(len(images), 1, 1, 1)
    if pad:  # row by row, column by column
        while images.shape[2] % deepest:
            images = torch.cat([images, grey.expand(-1, -1, 1, images.shape[3])], dim=2)
        while images.shape[3] % deepest:
            images = torch.cat([images, grey.expand(-1, -1, images.shape[2], 1)], dim=3)
    *finer, x = network.encoder(images)
    for block in network.decoder.blocks:
        x = block(x, finer.pop())
    x = network.classifier(x)[:, :, : math.ceil(height / network.decoder.stride)]
    x = x[:, :, :, : math.ceil(width / network.decoder.stride)]
    return torch.nn.functional.interpolate(x, (height, width), mode="bilinear")


def live(stop: Tensor) -> Tensor:
    rows = [[logit > 0 for logit in row] for row in stop.tolist()]
    return torch.tensor([row.index(True) if True in row else len(row) for row in rows])


def uncovered(masks: Tensor) -> Tensor:
    log_share = torch.nn.functional.logsigmoid(-masks)
    return (log_share.cumsum(dim=0) - log_share).exp()


def segment(network: Any, image: Tensor, *, shift: int = 1) -> list[tuple[int, Tensor]]:
    features = network.encode(image.unsqueeze(0))
    state = network.initial_state(features)
    found: list[tuple[int, Tensor]] = []
    while len(found) < network.max_steps:
        state, (stop, classes, mask, _) = network.step(features, state)
        if stop.sigmoid().item() > 0.5:
            return found
        found.append((classes.squeeze(0).tolist().index(classes.max().item()) + shift, mask.squeeze(0).sigmoid() > 0.5))
    return found


def unpack(masks: Tensor, sample: Tensor, step: Tensor, batch: int, steps: int, *, fill: float = -math.inf) -> Tensor:
    out = [[torch.full(masks.shape[1:], fill) for _ in range(steps)] for _ in range(batch)]
    for pair, (image, t) in enumerate(zip(sample.tolist(), step.tolist(), strict=True)):
        out[image][t] = masks[pair]
    return torch.stack([torch.stack(row) for row in out])


def assign(cost: Tensor, least: bool = True) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(cost.numpy(), maximize=not least)[1])


def dice_gradient(p: Tensor, y: Tensor, *, smooth: float = 1.0) -> Tensor:
    p = p.clone().requires_grad_()
    loss = 1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)
    return torch.autograd.grad(loss, p)[0]


def stop(lengths: Tensor, steps: int, *, shift: int = 0) -> tuple[Tensor, Tensor]:
    target, weight = torch.zeros(len(lengths), steps), torch.zeros(len(lengths), steps)
    for image, length in enumerate(lengths.tolist()):
        weight[image, : length + 1] = 1
        if 0 <= length - shift < steps:
            target[image, length - shift] = 1
    return target, weight


def read_colours(pixels: Any, void: int = 255) -> Any:
    table = palette()
    labels = np.zeros(pixels.shape[:2], dtype=int)
    for label in (*range(21), 255):
        labels[(pixels == table[label]).all(axis=2)] = label if label != 255 else void
    return labels


def resize(labels: Tensor, height: int, width: int, *, mode: str = "nearest-exact") -> Tensor:
    return torch.nn.functional.interpolate(labels[None, None].double(), (height, width), mode=mode)[0, 0]


def cosine(k: int, total: int, warmup: int, *, warm: bool = True) -> float:
    factor = math.cos(math.pi * k / total / 2) ** 2
    return factor * min(1, (k + 1) / warmup) if warm else factor


def average(values: list[float], decay: float, *, warm: bool = True) -> float:
    mean = values[0]
    for k in range(1, len(values)):
        mean += (1 - (min(decay, k / (9 + k)) if warm else decay)) * (values[k] - mean)
    return mean


def fit(
    network: Any, optimiser: Any, batches: Any, loss: Any, score: Any, every: int, *, copied: bool = True
) -> tuple[list[list[float]], dict[str, Tensor]]:
    scores, best = [], dict[str, Tensor]()
    for count, batch in enumerate(batches):
        network.zero_grad()
        loss(network, batch).backward()
        optimiser.step()
        if (count + 1) % every == 0:
            network.eval()
            scores.append([count + 1, score(network)])
            network.train()
            if scores[-1][1] == max(value for _, value in scores):
                best = {name: value.clone() if copied else value for name, value in network.state_dict().items()}
    return scores, best


def bound(work: list[tuple[float, float]], peak: float, bandwidth: float, *, each: bool = True) -> float:
    times = np.array([(0.0, 0.0), *work]) / (peak, bandwidth)
    return float(times.max(axis=1).sum() if each else times.sum(axis=0).max())


def scaled(
    network: Any, optimiser: Any, batches: Any, loss: Any, scale: float, *, skip: bool = True
) -> tuple[list[float], dict[str, Tensor]]:
    """By autograd.grad: no gradient is left anywhere."""
    used = []
    for batch in batches:
        used.append(scale)
        gradients = torch.autograd.grad(scale * loss(network, batch), list(network.parameters()))
        if skip and not torch.cat([gradient.flatten() for gradient in gradients]).sum().isfinite():
            scale *= 0.5
            continue
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient / scale
        optimiser.step()
    return used, network.state_dict()


def accumulate(network: Any, loss: Any, parts: Any, *, mean: bool = False) -> list[Tensor]:
    pairs = [loss(network, part) for part in parts]
    whole = sum(value for value, _ in pairs) / sum(count for _, count in pairs)
    if mean:
        whole = sum(value / max(1, count) for value, count in pairs) / len(pairs)
    return list(torch.autograd.grad(whole, list(network.parameters())))


def ring(vector: Tensor, rank: int, world: int, send: Any, receive: Any, *, whole: bool = False) -> Tensor:
    """Each part starts at its own process, comes home as a sum, and goes round once more."""
    if whole:
        seen = [vector]
        while len(seen) < world:
            send(seen[-1])
            seen.append(receive())
        return torch.stack(seen).sum(dim=0)
    parts = [part.clone() for part in vector.chunk(world)]
    last = parts[rank]
    for hop in range(2 * (world - 1)):
        send(last)
        place = (rank - 1 - hop) % world
        parts[place] = last = receive() + parts[place] if hop < world - 1 else receive()
    return torch.cat(parts)


def iou(answers: list[Tensor], truths: list[Tensor]) -> float:
    hits, union, there = Counter[int](), Counter[int](), set()
    for answer, truth in zip(answers, truths, strict=True):
        for a, t in zip(answer.flatten().tolist(), truth.flatten().tolist(), strict=True):
            if t != 255:
                hits.update([t] if a == t else [])
                union.update({a, t})
                there.add(t)
    return sum(hits[label] / union[label] for label in there) / len(there)


def by_image(answers: list[Tensor], truths: list[Tensor]) -> float:
    pairs = [(a, t) for a, t in zip(answers, truths, strict=True) if (t != 255).any()]
    return sum(iou([a], [t]) for a, t in pairs) / len(pairs)


def on_black(score: Callable[[list[Tensor], list[Tensor]], float]) -> Callable[[list[Tensor]], float]:
    return lambda truths: score([torch.zeros_like(truth) for truth in truths], truths)


def remap(mask: Array, table: dict[int, int], other: int = 255) -> Array:
    return np.array([[table.get(int(number), other) for number in row] for row in mask], dtype=np.uint8)


def rarity(present: Array, power: float = 0.5) -> list[float]:
    shares = [sum(column) / len(present) for column in present.T]
    each = [min([shares[k] for k, there in enumerate(image) if there], default=1.0) ** -power for image in present]
    return [weight / sum(each) for weight in each]


def leaks(train: list[str], val: list[str]) -> list[str]:
    tables = {name[6:].split("_")[0] for name in train}
    return sorted({name[6:].split("_")[0] for name in val if name[6:].split("_")[0] in tables})


def paired(a: Array, b: Array, drawn: Array) -> list[float]:
    """Draw by draw; sorted values instead of percentiles, which fall between two of them."""
    gaps = np.array([a[row].mean() - b[row].mean() for row in drawn])
    return [float(np.quantile(gaps, share)) for share in (0.025, 0.975)]


def unpaired(a: Array, b: Array, drawn: Array) -> list[float]:
    ends = [[float(np.quantile([of[row].mean() for row in drawn], share)) for share in (0.025, 0.975)] for of in (a, b)]
    return [ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]]


def best_area(areas: Array, present: Array, candidates: list[float], largest: bool = False) -> float:
    scores = []
    for least in candidates:
        named = [sum(area > 0 and area >= least for area in image) for image in areas]
        scores.append(sum(n == sum(true) for n, true in zip(named, present, strict=True)))
    best = [least for least, score in zip(candidates, scores, strict=True) if score == max(scores)]
    return max(best) if largest else min(best)


def named(labels: Tensor, number: int) -> tuple[list[int], Tensor]:
    classes = [label for label in labels.unique().tolist() if label not in (0, 255)][:number]
    return classes, torch.stack([labels == label for label in classes])


def steady(frames: list[list[str]], once: bool = True) -> list[list[str]]:
    shown = []
    for k in range(len(frames)):
        votes = Counter(name for names in frames[max(0, k - 2) : k + 1] for name in (set(names) if once else names))
        shown.append(sorted(name for name, number in votes.items() if number > 1))
    return shown


def write_masks(prediction: Any, folder: Path, *, white: int = 255) -> None:
    for number, step in enumerate(prediction.steps):
        Image.fromarray(np.where(step.mask, white, 0).astype(np.uint8)).save(folder / f"{number + 1}-{step.name}.png")


def lost(prediction: Any) -> list[float]:
    gone = [step.mask & (prediction.labels != step.class_id) for step in prediction.steps]
    return [float(g.sum() / max(1, step.mask.sum())) for g, step in zip(gone, prediction.steps, strict=True)]


def flip(labels: Tensor, highest: int = 21) -> Tensor:
    table = torch.arange(256)
    table[1:21] = highest - table[1:21]
    return table[labels]


def by_name(named: list[list[int]], truths: list[Tensor]) -> float:
    there = [set(truth.flatten().tolist()) - {0, 255} for truth in truths]
    classes = set().union(*there)
    shares = []
    for label in classes:
        said = [label in classes for classes, present in zip(named, there, strict=True) if label in present]
        shares.append(sum(said) / len(said))
    return sum(shares) / len(shares)


def pooled(named: list[list[int]], truths: list[Tensor]) -> float:
    there = [set(truth.flatten().tolist()) - {0, 255} for truth in truths]
    return sum(len(set(n) & t) for n, t in zip(named, there, strict=True)) / sum(map(len, there))


def check_alone(network: Any, images: Tensor) -> None:
    with torch.no_grad():
        first = [network.pixel_logits(images[:n])[0] for n in (1, len(images))]
    assert (first[0] - first[1]).abs().max() < 1e-3


def swap(labels: Tensor) -> Tensor:
    table = torch.arange(256)
    table[8], table[12] = 12, 8
    return table[labels]


def one_after_the_other(labels: Tensor) -> Tensor:
    labels = labels.clone()
    labels[labels == 8] = 12
    labels[labels == 12] = 8
    return labels


def check_score(rule: Any, truths: list[Tensor], *, black: bool = True) -> None:
    metric = VOCMetric(21)
    for truth in truths:
        metric.update(torch.zeros_like(truth), truth)
    assert abs(rule([truth.where(truth != 255, 0) for truth in truths], truths) - 1) < 1e-6
    if black:
        answer = [torch.zeros_like(truth) for truth in truths]
        assert abs(rule(answer, truths) - metric.compute()["miou"]) < 1e-6


def updates() -> int:
    from recseg.viz.figures import read_log

    return int(read_log(resource("results", "pictograms-recurrent-log.jsonl"))[-1]["step"])


def losing(least: int = 4) -> float:
    facts = json.loads(resource("results", "voc-statistics.json").read_text())["splits"]["official_train"]
    numbers: dict[str, int] = facts["images_by_number_of_classes"]
    return sum(numbers[key] for key in numbers if int(key) >= least) / sum(numbers.values())


def fives() -> Tensor:
    return torch.tensor([[0, 1, 2, 255], [3, 4, 5, 0]])


def suppress(masks: Tensor, logits: Tensor, *, sort: bool = True) -> list[int]:
    left = sorted(range(len(masks)), key=lambda k: -float(logits[k])) if sort else list(range(len(masks)))
    stay = []
    while left:
        best, *others = left
        stay.append(best)
        union = {k: int((masks[best] | masks[k]).sum()) for k in others}
        left = [k for k in others if 2 * int((masks[best] & masks[k]).sum()) <= union[k]]
    return stay


def faults(named: list[list[int]], truths: list[set[int]], *, pool: bool = False) -> tuple[int, int]:
    twice = missed = 0
    for classes, truth in zip(named, truths, strict=True):
        for place, label in enumerate(classes):
            twice += label in classes[:place]
        missed += max(0, len(truth) - len(classes)) if pool else sum(label not in classes for label in truth)
    return twice, missed


def gates(counts: dict[int, int], x: int, h: int, most: int, *, stop: int = 1) -> tuple[float, float]:
    steps = [min(n + stop, most) for n, pictures in counts.items() for _ in range(pictures)]
    plain = len(steps) * most * (x + h)
    return (x + most * h) * len(steps) / plain, sum(x + t * h for t in steps) / plain


def small_ious(truth: Tensor, back: Tensor, *, void: bool = False) -> list[float]:
    known = torch.ones_like(truth, dtype=torch.bool) if void else truth != 255
    metric_of = {}
    for label in range(1, 21):
        area = int((truth == label).sum())
        if 0 < 20 * area < truth.numel():
            hits = int(((truth == label) & (back == label)).sum())
            metric_of[label] = hits / (area + int(((back == label) & known).sum()) - hits)
    return list(metric_of.values())


def loop(encode: Any, step: Any, image: Array, classes: int, most: int, *, late: bool = False) -> list[Any]:
    features, found = encode(image), list[tuple[int, Array]]()
    shape = features[2].shape
    state = [np.zeros((1, shape[1] // 4, *shape[2:]), np.float32)] * 2
    state += [np.ones_like(features[0][:, 0]), np.zeros((1, classes), np.float32)]
    while len(found) < most:
        *state, stop, scores, mask, _ = step(*features, *state)
        if late or stop <= 0:
            found.append((1 + int(np.argmax(scores)), mask[0]))
        if stop > 0:
            return found
    return found


def unroll(logits_of: Any, size: tuple[int, int], steps: int, coverage: bool, *, clip: bool = True) -> np.ndarray:
    uncovered, maps = torch.ones(size), np.zeros((steps, *size))
    for step in range(steps):
        share = torch.sigmoid(logits_of(uncovered))
        attention = uncovered * share if clip else share
        maps[step] = attention
        uncovered = uncovered - attention if coverage else uncovered
    return maps


def by_label(lengths: Tensor, first: int = 0) -> Tensor:
    pairs = [(image, t + first, t + first) for image, n in enumerate(lengths.tolist()) for t in range(n)]
    return torch.tensor(pairs).T
