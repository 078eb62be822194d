"""A trained network as ONNX graphs, which ONNX Runtime runs without PyTorch.

NAME.onnx        `RecurrentUNet.encode`: image → pixel embedding, bottleneck features, their part of the gates
NAME.step.onnx   `RecurrentUNet.step`: features and state → next state, stop, class logits, mask, attention map

The loop over time steps is not part of the graphs but in `recseg.export.runtime`, and ends at the learned stop. A dense
network is NAME.onnx alone, with a channel for each class. The sides of an image must be multiples of the stride of the
deepest features; `recseg.export.runtime` pads it as the networks themselves do.
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
from torch import Tensor, nn

from recseg.errors import RecsegError
from recseg.export.runtime import part_path
from recseg.files import atomic_write
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import Features, RecurrentUNet, State, StepOutput
from recseg.models.unet import DecoderBlock, UNet

OPSET = 18


class Encode(nn.Module):
    """Images (1, 3, H, W) in [0, 1] → embedding (1, d, h, w), x (1, reduced, gh, gw), gates (1, 4·hidden, gh, gw)."""

    def __init__(self, model: RecurrentUNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Features:
        return self.model.encode(images)


class Step(nn.Module):
    """One time step, with only tensors as inputs and outputs.

    The features of `Encode`; the state h, c (1, hidden, gh, gw), uncovered (1, h, w), named (1, C; 1 for each class
    that has been named) → the next state, stop (1,), classes (1, C), mask (1, h, w), attention (1, h, w).
    """

    def __init__(self, model: RecurrentUNet) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, embedding: Tensor, x: Tensor, gates: Tensor, h: Tensor, c: Tensor, uncovered: Tensor, named: Tensor
    ) -> tuple[Tensor, ...]:
        # Floats, because not every browser runtime supports bool tensors as inputs and outputs.
        state, output = self.model.step(Features(embedding, x, gates), State(h, c, uncovered, named > 0))
        return *state[:3], state.named.to(h.dtype), *output


class Pixels(nn.Module):
    """A dense network at its own resolution: images (1, 3, H, W) → logits (1, num_classes, h, w)."""

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.pixel_logits(images)


def folded(model: UNet | RecurrentUNet) -> UNet | RecurrentUNet:
    """A copy in which each decoder block's first batch norm is folded into the two convolutions before it.

    The result is exact, and faster. The norm scales a sum, so both terms can be scaled and the shift added to one.
    """
    model = copy.deepcopy(model).eval()
    for block in model.decoder.blocks:
        assert isinstance(block, DecoderBlock)
        norm = block.merge[0]
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        with torch.no_grad():
            block.conv_x.weight *= scale.view(-1, 1, 1, 1)
            block.conv_skip.weight *= scale.view(-1, 1, 1, 1)
            block.conv_skip.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
        block.merge[0] = nn.Identity()
    return model


def export(model: SegmentationModel, path: Path | str) -> list[Path]:
    """Write the graphs of a network.

    Args:
        model: dense or recurrent, from `recseg.load`.
        path: NAME.onnx; for a recurrent network, NAME.step.onnx is written beside it.

    Returns:
        The files.

    Raises:
        RecsegError: a network that cannot be exported, a name that does not end in .onnx, or missing packages.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise RecsegError(f"{path}: expected a name that ends in .onnx")
    try:
        import onnx
        import onnxscript  # noqa: F401 - needed by torch's exporter, whose own error is twenty lines long
    except ImportError as error:
        raise RecsegError('ONNX is not installed: pip install "recseg[onnx]"') from error
    if not isinstance(model, UNet | RecurrentUNet):
        raise RecsegError(f"a {model.kind} network cannot be exported to ONNX: expected a dense or a recurrent one")
    about = {
        "kind": model.kind, "classes": list(model.classes), "image_size": model.image_size,
        "max_steps": getattr(model, "max_steps", 0), "stride": model.encoder.strides[-1],
        "legend": model.legend.to_dict(),
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
    """The graph without the exporter's metadata on the origin of each node, which is long and contains local paths."""
    del proto.graph.value_info[:]
    for entry in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        entry.doc_string = ""
        del entry.metadata_props[:]
    return proto


def _graphs(
    model: UNet | RecurrentUNet,
) -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...], list[str], Any]]:
    """For each graph: name, module, example inputs, output names and dynamic shapes."""
    rows, columns = torch.export.Dim("rows", min=1, max=256), torch.export.Dim("columns", min=1, max=256)

    def sides(factor: int, first: int = 2) -> dict[int, Any]:
        return {first: factor * rows, first + 1: factor * columns}

    stride = model.encoder.strides[-1]
    images = torch.zeros(1, 3, 3 * stride, 4 * stride)
    if isinstance(model, UNet):
        yield "encode", Pixels(model), (images,), ["logits"], (sides(stride),)
        return
    yield "encode", Encode(model), (images,), list(Features._fields), (sides(stride),)
    with torch.no_grad():
        features = model.encode(images)
        h, c, uncovered, named = model.initial_state(features)
    grid, fine = stride // model.encoder.strides[-2], stride // model.decoder.stride
    given = (*features, h, c, uncovered, named.to(h.dtype))
    shapes: Any = (sides(fine), *(sides(grid),) * 4, sides(fine, 1), {})
    outputs = [f"{name}_next" for name in State._fields] + list(StepOutput._fields)
    yield "step", Step(model), given, outputs, shapes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter and the quantiser, which report on stdout, through logging and through warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
