"""Interactive exploration of a network in a notebook: choose an image, step through the result, vary the thresholds.

Chapter 12 of the book uses it. Needs the extra `recseg[notebook]`, and for the camera `recseg[video]`.
"""

import html
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from recseg.errors import RecsegError
from recseg.inference.mode import inference_mode
from recseg.inference.predict import prepare, to_arrays
from recseg.inference.prediction import ImageLike, Prediction, Step, as_image
from recseg.inference.steps import to_prediction
from recseg.inference.video import open_clip
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.viz.plotting import describe, gif_frames, save_gif, to_html

try:
    import ipywidgets as widgets
except ImportError as error:
    raise RecsegError('the playground needs an extra: pip install "recseg[notebook]"') from error

ORDERS: dict[str, Callable[[Step], float]] = {
    "as the network emits them": lambda step: 0,
    "largest first": lambda step: -step.area,
    "by class": lambda step: step.class_id,
}


class Answer:
    """All steps of a recurrent network for an image, including those after its stop.

    Args:
        image: as for `recseg.predict`.
        model: recurrent, from `recseg.load`.

    Raises:
        RecsegError: the network has no steps, or the image cannot be read.
    """

    def __init__(self, image: ImageLike, model: SegmentationModel) -> None:
        if getattr(model, "kind", None) != "recurrent":
            raise RecsegError("expected a recurrent network: other networks have no steps to show")
        self.image = as_image(image)
        self.legend = model.legend
        everything = torch.tensor([model.max_steps], device=next(model.parameters()).device)
        with inference_mode(model) as network:
            self.output: RecurrentOutput = network(prepare(self.image, network).unsqueeze(0), everything)
        self.stops: list[float] = self.output.stop[0].float().sigmoid().tolist()  # (T,)

    def prediction(
        self, *, threshold: float = 0.5, stop: float = 0.5, order: str = "as the network emits them"
    ) -> Prediction:
        """The prediction for given thresholds.

        Args:
            threshold: probability above which a pixel belongs to a step's mask.
            stop: stop probability above which the sequence ends.
            order: one of `ORDERS`, in which the steps are listed.
        """
        live = next((t for t, value in enumerate(self.stops) if value > stop), len(self.stops))
        out = self.output
        kept = out._replace(
            masks=out.masks[:live], classes=out.classes[:live], sample=out.sample[:live], step=out.step[:live],
            lengths=torch.full_like(out.lengths, live),
        )  # fmt: skip
        found = to_prediction(to_arrays(kept), (self.image.height, self.image.width), self.legend, threshold)
        return replace(found, steps=sorted(found.steps, key=ORDERS[order]))


class Playground:
    """A panel of widgets: image, upload, camera; step, thresholds, order; and saving the result as a GIF.

    Args:
        model: recurrent, from `recseg.load`.
        images: to choose from, as for `recseg.predict`; at least one.
        folder: where GIFs are saved.

    Attributes:
        panel: the widget to show.
        answer: for the image shown.
    """

    def __init__(self, model: SegmentationModel, images: Sequence[ImageLike], *, folder: Path | str = ".") -> None:
        self.model, self.images, self.folder = model, images, Path(folder)
        self.choice = widgets.IntSlider(min=0, max=len(images) - 1, description="image", continuous_update=False)
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="your own")
        self.camera = widgets.Button(description="camera", tooltip="an image from the first camera of this computer")
        self.step = widgets.IntSlider(min=0, max=1, description="step")
        self.threshold = widgets.FloatSlider(value=0.5, min=0.05, max=0.95, step=0.05, description="mask from")
        self.stop = widgets.FloatSlider(value=0.5, min=0.05, max=0.95, step=0.05, description="stop from")
        self.order = widgets.Dropdown(options=list(ORDERS), description="order")
        self.save = widgets.Button(description="save as GIF")
        self.view, self.message = widgets.HTML(), widgets.HTML()
        self.choice.observe(lambda change: self.open(self.images[self.choice.value]), names="value")
        self.upload.observe(lambda change: self._open_upload(), names="value")
        self.camera.on_click(lambda button: self.snapshot())
        for control in (self.threshold, self.stop, self.order):
            control.observe(lambda change: self._compose(), names="value")
        self.step.observe(lambda change: self._show(), names="value")
        self.save.on_click(lambda button: self.save_gif())
        sources = widgets.HBox([self.choice, self.upload, self.camera])
        knobs = widgets.VBox([self.step, self.threshold, self.stop, self.order, self.save])
        self.panel = widgets.VBox([sources, widgets.HBox([self.view, knobs]), self.message])
        self.open(images[0])

    def open(self, image: ImageLike) -> None:
        """Segment an image and show it; if it cannot be read, show the error and keep the last image."""
        try:
            self.answer = Answer(image, self.model)
        except RecsegError as error:
            self._say(str(error))
        else:
            self._compose()

    def snapshot(self, camera: int = 0) -> None:
        """Segment a frame from a camera of this computer."""
        try:
            frame, _ = next(open_clip(camera).frames)
        except (RecsegError, StopIteration) as error:
            self._say(str(error) or f"camera {camera}: gives no image")
        else:
            self.open(frame)

    def save_gif(self) -> Path:
        """Write the result, as shown, to `recurrence.gif`."""
        path = self.folder / "recurrence.gif"
        save_gif(self.prediction, self.answer.image, path)
        self._say(f"written: {path}")
        return path

    def _open_upload(self) -> None:
        value = self.upload.value
        for file in value if isinstance(value, (tuple, list)) else value.values():  # ipywidgets 8, 7
            with tempfile.TemporaryDirectory() as folder:  # read like any other file, with the same errors
                path = Path(folder) / Path(file.get("name") or "upload").name
                path.write_bytes(bytes(file["content"]))
                self.open(path)
                self.message.value = self.message.value.replace(html.escape(f"{folder}{os.sep}"), "")  # hide the folder

    def _compose(self) -> None:
        """Update the prediction for the current settings."""
        self.prediction: Prediction = self.answer.prediction(
            threshold=self.threshold.value, stop=self.stop.value, order=self.order.value
        )
        self.pages = list(gif_frames(self.answer.image, self.prediction, side=320))
        self.step.max = len(self.pages) - 1
        self._say(describe(self.prediction))
        self._show()

    def _show(self) -> None:
        page = min(self.step.value, len(self.pages) - 1)
        self.view.value = to_html(self.pages[page], f"Page {page}. {describe(self.prediction)}.")

    def _say(self, words: str) -> None:
        self.message.value = html.escape(words)
