"""The networks of the live page as ONNX graphs with small weights, compressed."""

import gzip
import shutil
from pathlib import Path
from typing import Any

from recseg.export.onnx import export
from recseg.export.runtime import PARTS, part_path

SMALLEST = 256  # weights; below it, rounding saves nothing
LARGE = 16384  # weights; tensors below it keep 16 bits: they are a small part of the download


def rounded(proto: Any) -> Any:
    """The same graph with weights as 8-bit integers (tensors of `LARGE` weights or more) or 16-bit, with row scales.

    A scale is the row's largest weight divided by 127 or 32,767, and no weight is off by more than half of it. ONNX
    Runtime converts them back to 32-bit floats when it loads the graph, so inference is not slower.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    for tensor in list(proto.graph.initializer):
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.ndim < 2 or weights.size < SMALLEST:
            continue
        kind = np.int8 if weights.size >= LARGE else np.int16
        most = np.float32(np.iinfo(kind).max)
        scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / most
        scale[scale == 0] = 1
        name, short, long, by = tensor.name, tensor.name + ".short", tensor.name + ".long", tensor.name + ".scale"
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(numpy_helper.from_array(np.rint(weights / scale).astype(kind), short))
        proto.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), by))
        nodes += [helper.make_node("Cast", [short], [long], to=TensorProto.FLOAT)]
        nodes += [helper.make_node("Mul", [long, by], [name])]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes + rest)
    return proto


def with_gates(proto: Any) -> Any:
    """The step's graph with the gates, which are computed anyway, as outputs (see `recseg.models.convlstm`)."""
    from onnx import TensorProto, helper

    splits = [node for node in proto.graph.node if node.op_type == "Split" and len(node.output) == 4]
    if len(splits) != 1:
        return proto
    after = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "Sigmoid"}
    for index, name in ((0, "input_gate"), (1, "forget_gate"), (3, "output_gate")):
        if source := after.get(splits[0].output[index]):
            proto.graph.node.append(helper.make_node("Identity", [source], [name]))
            proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return proto


def compress(content: bytes, path: Path) -> int:
    """Write content as gzip, identical at every build; returns the size on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    return path.stat().st_size


def write_graphs(model: Any, name: str, folder: Path, *, exact: bool = False) -> dict[str, dict[str, Any]]:
    """Export a network into a folder; returns file and size of each graph. `exact` keeps weights in 32 bits."""
    import onnx

    raw = folder / "export" / f"{name}.onnx"
    raw.parent.mkdir(parents=True, exist_ok=True)
    export(model, raw)
    graphs = {}
    for part in PARTS:
        proto = onnx.load(part_path(raw, part))
        proto = with_gates(proto) if part == "step" else proto
        file = f"{part_path(raw, part).name}.gz"
        content = (proto if exact else rounded(proto)).SerializeToString()
        graphs[part] = {"file": file, "bytes": compress(content, folder / file)}
    if not exact:
        shutil.rmtree(raw.parent)
    return graphs
