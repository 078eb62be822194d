"""A trained network as ONNX graphs, which ONNX Runtime runs without PyTorch.

NAME.onnx        the picture → what does not depend on the step: pixel embedding, deepest features, gates of the input
NAME.step.onnx   gates, state and what is left → the next state, its summary, the stop
NAME.read.onnx   embedding, features, state, summary, what is left → mask and class of one step, what is left now

So the loop stays a loop, outside of the graphs (`recseg.export.runtime` has it), and stops where the network says so. A
dense network is NAME.onnx alone, with a channel for each class. Sides are multiples of the coarsest map's stride: then
every map is exactly twice as large as the next coarser one, and the graphs need no rule for odd rests.
"""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.export.runtime import part_path
from recseg.files import atomic_write
from recseg.models.feedback import EXPLAINED, TOLD
from recseg.models.heads import EmbeddingHead, broken_off, not_again

OPSET = 18


class Look(nn.Module):
    """What is computed once: images (1, 3, H, W) in [0, 1] → E (1, d, h, w), features (1, r, gh, gw), gates.

    And where steps are told what is left: present (1, h, w), the probability of foreground.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.cells = int(model.encoder.strides[model.level] // model.encoder.strides[model.skip_levels[-1]])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        features, projected = model._encode(images)
        embedding = model.decoder(features[-1], projected)
        beside = F.avg_pool2d(embedding, self.cells)  # sides are multiples: the same as the model's adaptive pooling
        times = model.encoder.strides[-1] // model.encoder.strides[model.level]
        deepest = F.interpolate(model.reduce(features[-1]), scale_factor=float(times), mode="bilinear")
        found = embedding, deepest, model.cell.input_gates(torch.cat([deepest, beside], dim=1))
        return (*found, model.head.foreground(embedding).squeeze(1).sigmoid()) if told(model) else found


class Step(nn.Module):
    """One turn of the ConvLSTM: gates, h, c → h, c (1, hidden, gh, gw), summary (1, hidden), stop (1, 1)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._turn(gates, h, c, None)

    def _turn(self, gates: Tensor, h: Tensor, c: Tensor, cells: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h, c = self.model.cell.step(gates, (h, c))
        summary = self.model._summarise(h, cells)
        return h, c, summary, self.model.stop(summary)


class ToldStep(Step):
    """The same, which is told what is left: present and left (1, h, w; the logarithm of a share)."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.cells = Look(model).cells

    def forward(  # type: ignore[override]
        self, gates: Tensor, h: Tensor, c: Tensor, present: Tensor, left: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cells = F.avg_pool2d((present * left.exp()).unsqueeze(1), self.cells).squeeze(1)  # (1, gh, gw)
        return self._turn(gates, h, c, cells)


class Read(nn.Module):
    """The mask and the class of a step.

    E, features, h, summary, what is left (1, h, w; logarithm of the share that no step has taken), taken (1, C; 1 for
    each class that a step has named) → mask logits (1, h, w), class logits (1, C), left, taken.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.head: EmbeddingHead = model.head
        self.shared, self.explained = model.config.feedback != "none", model.config.feedback in EXPLAINED
        self.cells = Look(model).cells

    def forward(
        self, embedding: Tensor, deepest: Tensor, h: Tensor, summary: Tensor, left: Tensor, taken: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head = self.head
        claims = head.claim(embedding, h, summary)  # (1, h, w)
        rough = broken_off(claims, left) if self.shared else claims
        weight = rough.sigmoid().unsqueeze(1)  # (1, 1, h, w)
        coarse = F.avg_pool2d(weight, self.cells)  # (1, 1, gh, gw)
        classes = head.classes(weight, coarse, embedding, torch.cat([deepest, h], dim=1))  # (1, C)
        classes = not_again(classes, taken > 0)
        best = classes.argmax(dim=1)  # (1,)
        taken = torch.maximum(taken, F.one_hot(best, classes.shape[1]).to(taken.dtype))
        rows, bias = head.rows()
        row, offset = rows[best + 1] - rows[:1], bias[best + 1] - bias[0]  # (1, d), (1,)
        mask = head.mask(rough, row, offset, embedding)  # (1, h, w)
        if self.shared:
            left = left + _log_sigmoid(-(mask if self.explained else claims))
        return mask, classes, left, taken


def _log_sigmoid(logits: Tensor) -> Tensor:
    """As `F.logsigmoid`, which ONNX would write as log(sigmoid(x)): minus infinity, or NaN, where x is below -20."""
    return -F.softplus(-logits)


def told(model: Any) -> bool:
    """Whether the steps of a recurrent network are told how much foreground is left."""
    return model.config.feedback in TOLD


class Pixels(nn.Module):
    """A dense network at its own resolution: images (1, 3, H, W) → logits (1, num_classes, h, w)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model.pixel_logits(images)
        return logits


def folded(model: Any) -> Any:
    """A copy in which each decoder block's first norm is part of the two convolutions before it: exact, and faster.

    The norm scales a sum. So it may scale both terms, and what it adds may be added to one of them.
    """
    model = copy.deepcopy(model).eval()
    for block in model.decoder.blocks:
        norm = block.merge[0]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        with torch.no_grad():
            block.conv_x.weight *= scale.view(-1, 1, 1, 1)
            block.conv_skip.weight *= scale.view(-1, 1, 1, 1)
            block.conv_skip.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
        block.merge[0] = nn.Identity()
    return model


def export(model: Any, path: Path | str) -> list[Path]:
    """Write the graphs of a network.

    Args:
        model: dense, or recurrent with the embedding head, from `recseg.load`.
        path: NAME.onnx; NAME.step.onnx and NAME.read.onnx come to stand beside it.

    Returns:
        The files.

    Raises:
        RecsegError: a network that has no such graphs, a name that does not end in .onnx, or packages that are missing.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise RecsegError(f"{path}: expected a name that ends in .onnx")
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so in twenty lines
    except ImportError as error:
        raise RecsegError('ONNX is not installed: pip install "recseg[onnx]"') from error
    about = {
        "kind": model.kind, "classes": list(model.classes), "image_size": model.image_size,
        "max_steps": getattr(model, "max_steps", 0), "stride": model.encoder.strides[-1],
    }  # fmt: skip
    files = []
    for part, graph, inputs, outputs, shapes in _graphs(folded(model)):
        with quiet():
            program = torch.onnx.export(
                graph.eval(), inputs, dynamo=True, opset_version=OPSET, dynamic_shapes=shapes,
                input_names=list(graph.forward.__annotations__)[:-1], output_names=outputs,
            )  # fmt: skip
        assert program is not None
        proto = without_origin(program.model_proto)
        onnx.helper.set_model_props(proto, {"recseg": json.dumps(about | {"part": part})})
        with atomic_write(part_path(path, part)) as temporary:
            temporary.write_bytes(proto.SerializeToString())
        files.append(part_path(path, part))
    return files


def without_origin(proto: Any) -> Any:
    """The graph without the exporter's notes on where each node comes from: long, and full of this machine's paths."""
    del proto.graph.value_info[:]
    for entry in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        entry.doc_string = ""
        del entry.metadata_props[:]
    return proto


def _graphs(model: Any) -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...], list[str], Any]]:
    """Name, module, example inputs, names of outputs, and which sides may change, of each graph."""
    rows, columns = torch.export.Dim("rows", min=1, max=256), torch.export.Dim("columns", min=1, max=256)

    def sides(factor: int, first: int = 2) -> dict[int, Any]:
        return {first: factor * rows, first + 1: factor * columns}

    stride = model.encoder.strides[-1]
    images = torch.zeros(1, 3, 3 * stride, 4 * stride)
    if model.kind == "dense":
        yield "look", Pixels(model), (images,), ["logits"], (sides(stride),)
        return
    if model.kind != "recurrent" or model.config.head != "embedding" or model.config.feedback == "coverage":
        raise RecsegError(
            f"a {model.kind} network of this make-up has no ONNX graphs: "
            "expected a dense one, or a recurrent one with the embedding head and without coverage"
        )
    look, step, read = Look(model).eval(), ToldStep(model) if told(model) else Step(model), Read(model)
    grid = stride // model.config.grid  # cells of the recurrence to one of the coarsest map, and cells of E
    fine = grid * look.cells
    yield "look", look, (images,), ["embedding", "deepest", "gates", "present"][: 3 + told(model)], (sides(stride),)
    with torch.no_grad():
        embedding, deepest, gates = look(images)[:3]
    # Two tensors, not two names of one: the exporter would take them for one input.
    h, c = (torch.zeros(1, model.config.hidden, *deepest.shape[-2:]) for _ in range(2))
    present, left = (torch.zeros(1, *embedding.shape[-2:]) for _ in range(2))
    turn: tuple[Tensor, ...] = (gates, h, c)
    among: tuple[Any, ...] = (sides(grid),) * 3
    if told(model):
        turn, among = (*turn, present, left), (*among, sides(fine, 1), sides(fine, 1))
    yield "step", step, turn, ["h_next", "c_next", "summary", "stop"], among
    summary, taken = torch.zeros(1, model.config.hidden), torch.zeros(1, model.num_classes - 1)
    given = (embedding, deepest, h, summary, left, taken)
    shapes: Any = (sides(fine), sides(grid), sides(grid), {}, sides(fine, 1), {})
    yield "read", read, given, ["mask", "scores", "left_next", "taken_next"], shapes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporter and quantiser talk of their own progress: on stdout, through logging and through warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
