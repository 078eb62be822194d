"""Run an exported network with ONNX Runtime: the recurrence as a loop in plain NumPy, without PyTorch.

`recseg.export.onnx` writes the graphs. What remains to be done is here: pad the image to a multiple of the deepest
stride, and run time steps until the stop.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recseg.classes import NO_STOP, VOID, Legend, check_names, has_background
from recseg.data.images import MEAN_COLOUR, MOST_PIXELS, MOST_PIXELS_TILED, resized_shape
from recseg.errors import RecsegError
from recseg.inference.prediction import ImageLike, Prediction, as_image
from recseg.inference.steps import Floats, Output, Sequence, to_prediction
from recseg.inference.tiling import predict_tiles, tile_side

PARTS = ("encode", "step")
LARGEST = 8192  # pixels: limit on the image size and stride that a (possibly forged) file may ask for


def part_path(path: Path, part: str) -> Path:
    """NAME.onnx or NAME.step.onnx."""
    return path if part == "encode" else path.with_suffix(f".{part}.onnx")


class OnnxModel:
    """An exported network.

    Args:
        path: NAME.onnx.
        threads: of ONNX Runtime; None: its own default.

    Attributes:
        kind: "recurrent" or "dense".
        classes: names of the labels, background first.
        image_size: short side that images are resized to.
        legend: name, mask value and colour of each label in the training data.
        stride: of the coarsest map, in pixels; sides are padded to multiples of it.

    Raises:
        RecsegError: ONNX Runtime or a file is missing, or the file was not exported by recseg.
    """

    def __init__(self, path: Path | str, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RecsegError('ONNX Runtime is not installed: pip install "recseg[onnx]"') from error
        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads

        def session(part: str) -> Any:
            file = part_path(self.path, part)
            if not file.is_file():
                beside = "" if part == "encode" else f", expected beside {self.path.name}, as recseg export wrote it"
                raise RecsegError(f"{file}: no such file{beside}")
            try:
                return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's own errors have no common base class
                if "IR version" in str(error) or "opset" in str(error):
                    raise RecsegError(
                        f"{file}: written for a newer ONNX Runtime than {onnxruntime.__version__}: "
                        "pip install --upgrade onnxruntime"
                    ) from error
                raise RecsegError(f"{file}: not an ONNX file that can be run") from error

        whole = self.path.with_suffix("").with_suffix(".onnx")
        if self.path.name.endswith(".step.onnx") and whole.is_file():
            raise RecsegError(f"{path}: is only the time step of {whole.name}; give {whole} instead")
        self._encode = session("encode")
        try:
            about = json.loads(self._encode.get_modelmeta().custom_metadata_map["recseg"])
            self.kind, self.classes = str(about["kind"]), tuple(about["classes"])
            self.image_size, self.max_steps = int(about["image_size"]), int(about["max_steps"])
            self.stride = int(about["stride"])
        except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise RecsegError(f"{self.path}: not written by recseg export") from error
        if not (
            self.kind in ("recurrent", "dense")
            and 1 <= self.image_size <= LARGEST
            and (self.kind == "recurrent") <= self.max_steps <= VOID  # a dense network has no steps
            and 1 <= self.stride <= LARGEST
        ):
            raise RecsegError(f"{self.path}: its metadata are invalid; not written by recseg export")
        check_names(self.classes, str(self.path))
        self.legend = Legend.from_dict(self.classes, about.get("legend"), str(self.path))
        if self.kind == "recurrent":
            self._step = session("step")

    def pixels(self, image: Image.Image) -> Floats:
        """The image at the network's size: (1, 3, h, w) in [0, 1]."""
        height, width = resized_shape(image.height, image.width, self.image_size)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)  # antialiased, in Pillow
        array = np.asarray(resized, dtype=np.float32) / np.float32(255)  # (h, w, 3)
        return np.ascontiguousarray(array.transpose(2, 0, 1))[None]  # (1, 3, h, w)

    def pixel_logits(self, pixels: Floats) -> Floats:
        """A dense network's logits (1, num_classes, h, w) for pixels (1, 3, H, W)."""
        padded = pad(pixels, self.stride)
        logits: Floats = self._run("encode", self._encode, {"images": padded})[0]
        if logits.ndim != 4 or logits.shape[1] != len(self.classes):
            raise RecsegError(f"{self.path}: logits of shape {logits.shape}, expected {len(self.classes)} classes")
        return cropped(logits, pixels, padded)

    def _run(self, part: str, session: Any, given: dict[str, Floats]) -> list[Floats]:
        """Run one graph; its outputs must be finite."""
        try:
            found: list[Floats] = session.run(None, given)
        except Exception as error:  # as above
            raise RecsegError(f"{part_path(self.path, part)}: does not fit the files beside it") from error
        if not all(np.isfinite(values).all() for values in found):
            raise RecsegError(f"{part_path(self.path, part)}: its outputs are not finite")
        return found

    def sequence(self, pixels: Floats) -> Sequence:
        """Run the recurrence on pixels (1, 3, H, W), step by step, until the stop.

        Raises:
            RecsegError: the files do not belong together.
        """
        try:
            return self._unroll(pixels)
        except RecsegError:
            raise
        except (ValueError, IndexError) as error:
            raise RecsegError(f"{self.path}: does not fit the files beside it") from error

    def _unroll(self, pixels: Floats) -> Sequence:
        padded = pad(pixels, self.stride)
        embedding, x, gates = self._run("encode", self._encode, {"images": padded})
        h = c = np.zeros((1, gates.shape[1] // 4, *gates.shape[-2:]), np.float32)
        uncovered = np.ones((1, *embedding.shape[-2:]), np.float32)
        named = np.zeros((1, len(self.classes) - 1), np.float32)
        masks: list[Floats] = []
        classes: list[Floats] = []
        stops: list[float] = []
        background = has_background(self.classes)
        for _ in range(self.max_steps):
            given = {"embedding": embedding, "x": x, "gates": gates, "h": h, "c": c}
            given |= {"uncovered": uncovered, "named": named}
            h, c, uncovered, named, stop, scores, mask, _ = self._run("step", self._step, given)
            if scores.shape != named.shape or mask.shape != uncovered.shape:
                raise RecsegError(f"{self.path}: unexpected shapes of mask {mask.shape} and classes {scores.shape}")
            stops.append(float(stop[0]))
            if background and stops[-1] > 0:
                break
            masks.append(mask[0])
            classes.append(scores[0])
        if not background:  # all steps run, and those that win no pixel are left out
            live = np.unique(cropped(np.stack(masks), pixels, padded).argmax(axis=0))
            masks, classes = ([of[step] for step in live] for of in (masks, classes))
            stops = [NO_STOP] * len(live)
        shape = (0, *embedding.shape[-2:])
        return Sequence(
            cropped(np.stack(masks) if masks else np.zeros(shape, np.float32), pixels, padded),
            np.stack(classes) if classes else np.zeros((0, len(self.classes) - 1), np.float32),
            stops,
        )

    def predict(self, image: ImageLike, *, tile: bool | int = False) -> Prediction:
        """Segment one image, as `recseg.predict` does."""
        rgb = as_image(image, most_pixels=MOST_PIXELS_TILED if tile else MOST_PIXELS)
        if tile:
            return predict_tiles(rgb, tile_side(tile, self.image_size), self._ask, self.legend)
        return to_prediction(self._ask(rgb), (rgb.height, rgb.width), self.legend)

    def _ask(self, image: Image.Image) -> Output:
        pixels = self.pixels(image)
        return self.pixel_logits(pixels)[0] if self.kind == "dense" else self.sequence(pixels)


def pad(pixels: Floats, stride: int) -> Floats:
    """Pad (1, 3, H, W) at the right and the bottom to multiples of a stride, filled as training crops are."""
    height, width = (-(-side // stride) * stride for side in pixels.shape[-2:])
    padded = np.empty((1, 3, height, width), np.float32)
    padded[:] = np.array(MEAN_COLOUR, np.float32).reshape(3, 1, 1) / 255
    padded[..., : pixels.shape[-2], : pixels.shape[-1]] = pixels
    return padded


def cropped(maps: Floats, pixels: Floats, padded: Floats) -> Floats:
    """Crop maps (…, h, w) of the padded image to the part without padding."""
    height, width = (
        -(-side * cells // whole)  # rounded up, as the network rounds odd sides
        for side, cells, whole in zip(pixels.shape[-2:], maps.shape[-2:], padded.shape[-2:], strict=True)
    )
    return maps[..., :height, :width]
