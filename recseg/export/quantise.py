"""Quantise an exported network to 8 bits, where most of the time is spent and rounding does little harm.

Static quantisation: the range of each activation map, and so the size of its 256 levels, is calibrated on training
images (Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018). Four choices keep the labels almost unchanged:

- Convolutions that read maps finer than the output stay in 32 bits. Their few channels hold small differences between
  neighbours beside large values, later layers amplify the rounding errors, and 8 bits are no faster on few channels.
- A range is the mean over images of each image's extremes. The single most extreme value would make the levels coarse
  for every image because of one.
- Weights use 7 of the 8 bits. x86 processors without VNNI add two 8-bit products in 16 bits and silently saturate; with
  7 bits there is no overflow. On pictograms this changes less than 0.1 % of the pixels, and no speed.
- In a time step, only the convolutions are quantised: their inputs, h and coverage, lie between −1 and 1. The cell
  state, and what reads it, stay in 32 bits, so that no error accumulates over the steps.
"""

import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError
from recseg.export.onnx import quiet
from recseg.export.runtime import OnnxModel, pad, part_path
from recseg.files import atomic_write
from recseg.inference.prediction import as_image
from recseg.inference.steps import Floats

CALIBRATED = 64  # images
WATCHED = 16  # images used to calibrate the step: its inputs fill memory, and h is bounded anyway


def quantise(path: Path | str, dataset: SegmentationFolder, images: int = CALIBRATED) -> Path:
    """Rewrite NAME.onnx, and NAME.step.onnx of a recurrent network, in 8 bits, in place.

    Args:
        path: NAME.onnx, as written by `recseg.export.onnx.export`.
        dataset: training images, without a transform; a sample spread over the list is used.
        images: size of the sample.

    Raises:
        RecsegError: missing packages, or not an exported network.
    """
    path = Path(path)
    try:
        import onnx  # noqa: F401 - checked here, so that its absence gives one clear line
    except ImportError as error:
        raise RecsegError('ONNX is not installed: pip install "recseg[onnx]"') from error
    model = OnnxModel(path)
    # Spread over the list, since neighbouring images may be similar.
    chosen = range(0, len(dataset), max(1, len(dataset) // images))[:images]

    def shown() -> Iterator[Floats]:
        for index in chosen:
            yield pad(model.pixels(as_image(dataset.pixels(index))), model.stride)

    first = next(shown())
    stride = first.shape[-1] // model._run("encode", model._encode, {"images": first})[0].shape[-1]
    steps = _steps(model, shown()) if model.kind == "recurrent" else []  # before the first file changes
    _rewrite(path, ({"images": pixels} for pixels in shown()), stride=stride)
    if steps:
        _rewrite(part_path(path, "step"), steps, operators=["Conv"])
    return path


def finer_than(graph: Any, stride: int) -> list[str]:
    """Names of the convolutions that read a map finer than 1/stride, in an ONNX graph whose input is `images`.

    An inverted residual that begins there is included to its end, so that it is cut at its narrow end, not in its wide
    middle.
    """
    strides, wide, found = {"images": 1}, set[str](), list[str]()
    for node in graph.node:  # in order of execution
        known = [strides[name] for name in node.input if name in strides]
        if not known or node.op_type == "Resize":
            continue  # after a Resize, maps get finer again, but no finer than the output
        sizes = {entry.name: entry for entry in node.attribute}
        step = sizes["strides"].ints[0] if "strides" in sizes else 1
        inside = not wide.isdisjoint(node.input)
        if node.op_type == "Conv" and (known[0] < stride or inside):
            found.append(node.name)
            inside = "group" in sizes and sizes["group"].i > 1
        if inside and node.op_type in ("Conv", "Clip", "Relu"):
            wide.update(node.output)
        strides.update(dict.fromkeys(node.output, max(known) * step))
    return found


class _Watched:
    """A session that records its inputs."""

    def __init__(self, session: Any) -> None:
        self.session, self.given = session, list[dict[str, Floats]]()

    def run(self, names: Any, given: dict[str, Floats]) -> Any:
        self.given.append(given)
        return self.session.run(names, given)


def _steps(model: OnnxModel, images: Iterable[Floats]) -> list[dict[str, Floats]]:
    """The inputs of a recurrent network's steps on some images."""
    model._step = watched = _Watched(model._step)
    for pixels in islice(images, WATCHED):
        model.sequence(pixels)
    return watched.given


def _rewrite(
    file: Path, shown: Iterable[dict[str, Floats]], *, stride: int | None = None, operators: list[str] | None = None
) -> None:
    """Quantise one graph to 8 bits, in place, with a scale per channel for the weights.

    Args:
        file: the graph.
        shown: inputs to calibrate the ranges on.
        stride: of the output, if the graph's inputs are images: convolutions on finer maps stay in 32 bits.
        operators: kinds of nodes to quantise; None: all that can be.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.given = iter(shown)

        def get_next(self) -> dict[str, Floats] | None:
            return next(self.given, None)

    meta = {entry.key: entry.value for entry in onnx.load(file, load_external_data=False).metadata_props}
    with tempfile.TemporaryDirectory() as folder, quiet(), atomic_write(file) as temporary:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        kept = [] if stride is None else finer_than(onnx.load(prepared).graph, stride)
        quantize_static(
            str(prepared), str(temporary), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=operators,
            reduce_range=True, nodes_to_exclude=kept, extra_options={"CalibMovingAverage": stride is not None},
        )  # fmt: skip
        proto = onnx.load(temporary)
        _shapes_of_bytes(proto.graph)
        onnx.helper.set_model_props(proto, meta)
        temporary.write_bytes(proto.SerializeToString())


def _shapes_of_bytes(graph: Any) -> None:
    """Read shapes from the quantised maps, in place: otherwise each map is dequantised just to read its shape."""
    rounded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type == "Shape":
            node.input[0] = rounded.get(node.input[0], node.input[0])
