"""The playground: the knobs change the answer, and what is no image changes nothing but the message."""

from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import recurrent_model, refusal
from PIL import Image

import recseg
from recseg.classes import VOC_CLASSES
from recseg.models.config import UNetConfig
from recseg.models.unet import UNet
from recseg.weights.io import save_weights

pytest.importorskip("ipywidgets")
from recseg.book.playground import ORDERS, Answer, Playground

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
OTHER = PICTURE[::-1].copy()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny network that says stop somewhere between its first and its last step."""
    network = recurrent_model(max_steps=4)
    with torch.inference_mode():
        network.classifier.weight *= 50
        stops = network(torch.from_numpy(PICTURE).permute(2, 0, 1)[None] / 255, torch.tensor([4])).stop[0]
        network.stop.bias.sub_(stops.sort().values[1:3].mean())
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network, classes=VOC_CLASSES, image_size=40, metadata={})
    return recseg.load(path)


@pytest.fixture
def playground(model: Any, tmp_path: Path) -> Playground:
    return Playground(model, [PICTURE, OTHER], folder=tmp_path)


def test_one_half_is_what_predict_says(model: Any) -> None:
    mine, expected = Answer(PICTURE, model).prediction(), recseg.predict(PICTURE, model)
    assert (mine.labels == expected.labels).all() and len(mine.steps) == len(expected.steps)
    for step, other in zip(mine.steps, expected.steps, strict=True):
        assert (step.class_id, step.name) == (other.class_id, other.name) and (step.mask == other.mask).all()
        assert step.probability == pytest.approx(other.probability, abs=1e-5)
    assert mine.stop_probability == pytest.approx(expected.stop_probability, abs=1e-5)


def test_thresholds(model: Any) -> None:
    answer = Answer(PICTURE, model)
    counts = [len(answer.prediction(stop=stop).steps) for stop in (0.0, *sorted(answer.stops), 1.0)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 4
    areas = [answer.prediction(threshold=value, stop=1.0).steps[0].area for value in (0.0, 0.3, 0.7, 1.0)]
    assert areas == sorted(areas, reverse=True) and areas[0] == 1 and areas[-1] == 0


def test_orders_tell_the_same_steps(model: Any) -> None:
    answer = Answer(PICTURE, model)
    listed = {order: [step.class_id for step in answer.prediction(stop=1.0, order=order).steps] for order in ORDERS}
    assert len({tuple(sorted(classes)) for classes in listed.values()}) == 1
    assert listed["by class"] == sorted(listed["by class"])
    areas = [step.area for step in answer.prediction(stop=1.0, order="largest first").steps]
    assert areas == sorted(areas, reverse=True)


def test_a_network_in_training_stays_there(model: Any) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Answer(PICTURE, model)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()


def test_a_network_without_steps_is_refused() -> None:
    refusal(lambda: Answer(PICTURE, UNet(UNetConfig()).eval()), "recurrent")


def test_knobs_change_what_is_shown(playground: Playground) -> None:
    first = playground.view.value
    playground.step.value = 1
    assert playground.view.value != first and 'alt="' in playground.view.value
    steps = len(playground.prediction.steps)
    playground.stop.value = 0.95
    assert len(playground.prediction.steps) >= steps and playground.step.max == len(playground.prediction.steps) + 1
    playground.stop.value, playground.step.value = 0.05, playground.step.max
    assert len(playground.prediction.steps) <= steps and playground.step.value <= playground.step.max
    playground.choice.value = 1
    assert (np.asarray(playground.answer.image) == OTHER).all()


def test_uploads(playground: Playground) -> None:
    stream, about = BytesIO(), {"type": "", "size": 9, "last_modified": datetime(2026, 1, 1)}
    Image.fromarray(OTHER).save(stream, "PNG")
    playground.upload.value = ({"name": "mine.png", "content": stream.getvalue(), **about},)
    assert (np.asarray(playground.answer.image) == OTHER).all()
    shown = playground.view.value
    playground.upload.value = ({"name": "<b>letter.txt", "content": b"Dear network", **about},)
    assert playground.message.value.startswith("&lt;b&gt;letter.txt: not an image")  # named as its owner named it
    assert playground.view.value == shown


def test_camera(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    from recseg.book import playground as module
    from recseg.inference.video import Clip

    monkeypatch.setattr(module, "open_clip", lambda number: Clip(iter([(Image.fromarray(OTHER), 40.0)]), "camera"))
    playground.snapshot()
    assert (np.asarray(playground.answer.image) == OTHER).all()
    monkeypatch.setattr(module, "open_clip", lambda number: Clip(iter([]), "camera"))
    playground.snapshot()
    assert playground.message.value == "camera 0: gives no image"


def test_gif(playground: Playground) -> None:
    path = playground.save_gif()
    with Image.open(path) as gif:
        assert gif.n_frames == len(playground.prediction.steps) + 2  # type: ignore[attr-defined]
    assert str(path) in playground.message.value
