"""An exported network in 8 bits: where nearly all of the time goes, and where rounding does little harm.

Static quantisation: training images show how large each map's values become, and so how coarse 256 steps have to be
(Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018). Four choices keep the labels what they were:

- What reads maps finer than the output stays in 32 bits. There few channels hold small differences between neighbours
  beside large values, later layers amplify what is rounded away, and 8 bits are no faster on so few channels.
- A range is the mean over images of each image's extremes. The most extreme value of all would make steps coarse
  for every image, for the sake of one.
- Weights take 7 of the 8 bits. x86 processors without VNNI add two products of 8 bits in 16, and what does not fit is
  cut off without a word; with 7 bits it fits. On pictograms this changes less than 0.1 % of the pixels, and no speed.
- Of a time step only the convolutions are rounded: their inputs, h and coverage, lie between −1 and 1. The cell state,
  and what reads it, stay in 32 bits, so that no error adds up over the steps.
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
WATCHED = 16  # images whose steps are kept: what a step is given fills memory, and h is bounded anyway


def quantise(path: Path | str, dataset: SegmentationFolder, images: int = CALIBRATED) -> Path:
    """Rewrite NAME.onnx, and NAME.step.onnx of a recurrent network, in 8 bits, in place.

    Args:
        path: of `recseg.export.onnx.export`.
        dataset: training images, without a transform; some, spread over the list, are used.
        images: how many.

    Raises:
        RecsegError: packages that are missing, or no export.
    """
    path = Path(path)
    try:
        import onnx  # noqa: F401 - asked for here, so that its absence is one clear line
    except ImportError as error:
        raise RecsegError('ONNX is not installed: pip install "recseg[onnx]"') from error
    model = OnnxModel(path)
    # Spread over the list, since neighbours in a list may be alike.
    chosen = range(0, len(dataset), max(1, len(dataset) // images))[:images]

    def shown() -> Iterator[Floats]:
        for index in chosen:
            yield pad(model.pixels(as_image(dataset.pixels(index))), model.stride)

    first = next(shown())
    stride = first.shape[-1] // model._run("encode", model._encode, {"images": first})[0].shape[-1]
    steps = _steps(model, shown()) if model.kind == "recurrent" else []  # before the first file is another
    _rewrite(path, ({"images": pixels} for pixels in shown()), stride=stride)
    if steps:
        _rewrite(part_path(path, "step"), steps, operators=["Conv"])
    return path


def finer_than(graph: Any, stride: int) -> list[str]:
    """Names of the convolutions that read a map finer than 1/stride, in an ONNX graph whose input is `images`.

    And of those that end an inverted residual which begins there: it is cut at its narrow end, not in its wide middle.
    """
    strides, wide, found = {"images": 1}, set[str](), list[str]()
    for node in graph.node:  # in the order in which they are computed
        known = [strides[name] for name in node.input if name in strides]
        if not known or node.op_type == "Resize":
            continue  # behind a Resize maps grow again, up to the output and no finer
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
    """A session that keeps what it was given."""

    def __init__(self, session: Any) -> None:
        self.session, self.given = session, list[dict[str, Floats]]()

    def run(self, names: Any, given: dict[str, Floats]) -> Any:
        self.given.append(given)
        return self.session.run(names, given)


def _steps(model: OnnxModel, images: Iterable[Floats]) -> list[dict[str, Floats]]:
    """What the step of a recurrent network is given, one after the other, on some images."""
    model._step = watched = _Watched(model._step)
    for pixels in islice(images, WATCHED):
        model.sequence(pixels)
    return watched.given


def _rewrite(
    file: Path, shown: Iterable[dict[str, Floats]], *, stride: int | None = None, operators: list[str] | None = None
) -> None:
    """One graph in 8 bits, in place, its weights by channel.

    Args:
        file: the graph.
        shown: what it is given, to learn the ranges from.
        stride: of the output, for a graph of images: convolutions of finer maps stay in 32 bits.
        operators: kinds of nodes that are rounded; None: all that can be.
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
    """Ask rounded maps for their shape, in place: otherwise they are written out in 32 bits to be asked."""
    rounded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type == "Shape":
            node.input[0] = rounded.get(node.input[0], node.input[0])
