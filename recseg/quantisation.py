"""An exported network in 8 bits: the graph of what is computed once, where nearly all of the time goes.

Static quantisation: training pictures show how large each map's values become, and so how coarse 256 steps have to be
(Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018). The two small graphs of the recurrence stay in 32 bits: they cost little, and a memory that is rounded at every
step would drift.
"""

import tempfile
from pathlib import Path
from typing import Any

from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError
from recseg.export import quiet
from recseg.files import atomic_write
from recseg.onnx_model import OnnxModel, pad

PICTURES = 64


def quantise(path: Path | str, dataset: SegmentationFolder, pictures: int = PICTURES) -> Path:
    """Rewrite NAME.onnx in 8 bits, in place.

    Args:
        path: of `recseg.export.export`.
        dataset: training pictures, without a transform; the first ones are looked at.
        pictures: how many.

    Raises:
        RecsegError: packages that are missing, or no export.
    """
    path = Path(path)
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise RecsegError('ONNX is not installed: pip install "recseg[onnx]"') from error
    model = OnnxModel(path)
    # Spread over the list, since neighbours in a list may be alike.
    chosen = range(0, len(dataset), max(1, len(dataset) // pictures))[:pictures]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(chosen)

        def get_next(self) -> Any:
            from recseg.answer import as_image

            index = next(self.images, None)
            return (
                None if index is None else {"images": pad(model.pixels(as_image(dataset.pixels(index))), model.stride)}
            )

    meta = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    with tempfile.TemporaryDirectory() as folder, quiet(), atomic_write(path) as temporary:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(temporary), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        proto = onnx.load(temporary)
        onnx.helper.set_model_props(proto, meta)
        temporary.write_bytes(proto.SerializeToString())
    return path
