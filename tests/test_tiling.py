"""Large images window by window: nothing small is lost, and windows that name different classes agree on one map."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, recurrent_model, refusal
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import recseg
from recseg.classes import VOC_CLASSES, Legend
from recseg.cli.main import main
from recseg.inference.steps import Floats, Sequence, probabilities, to_prediction
from recseg.inference.tiling import predict_tiles, window_starts
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.weights.io import save_weights

NAMES = ("background", "red", "green", "blue")
COLOURS = ((120, 120, 120), (255, 0, 0), (0, 255, 0), (0, 0, 255))


class Painter(SegmentationModel):
    """A dense network of 16 pixels that knows three colours, each pixel by itself."""

    classes, num_classes, image_size, kind = NAMES, len(NAMES), 16, "dense"

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Parameter(torch.tensor(COLOURS) / 255)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape[-2:]))
        return -30 * (images[:, None] - self.colours[:, :, None, None]).square().sum(dim=2)  # (B, K, h, w)


def scene(height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """Grey, with a red block of a quarter of the image and a green and a blue thing of four pixels a side."""
    labels = np.zeros((height, width), np.uint8)
    labels[: height // 2, : width // 2] = 1
    labels[height - 9 : height - 5, 5:9] = 2
    labels[5:9, width - 9 : width - 5] = 3
    return Image.fromarray(np.array(COLOURS, np.uint8)[labels]), labels


@given(length=st.integers(1, 400), side=st.integers(2, 60))
def test_windows_cover_all_and_share_a_quarter(length: int, side: int) -> None:
    starts = window_starts(length, side)
    assert starts[0] == 0 and starts[-1] == max(0, length - side)
    for one, other in zip(starts, starts[1:], strict=False):
        assert one < other <= one + 0.75 * side + 1  # whole pixels


def test_small_things_of_a_large_image_are_found() -> None:
    image, labels = scene(150, 200)
    whole, tiled = recseg.predict(image, Painter()), recseg.predict(image, Painter(), tile=True)
    assert np.array_equal(tiled.labels, labels)
    assert not np.isin(whole.labels, (2, 3)).any()  # what it is for
    assert [step.name for step in tiled.steps] == ["red", "green", "blue"]
    for step in tiled.steps:
        assert np.array_equal(step.mask, labels == step.class_id)
        assert step.area == step.mask.mean() and 0.99 < step.probability <= 1 and step.stop_probability is None


def test_windows_are_what_whole_images_are_to_the_network() -> None:
    image, labels = scene(150, 200)
    model = Painter()
    recseg.predict(image, model, tile=True)
    assert set(model.seen) == {(16, 16)}
    assert len(model.seen) == len(window_starts(150, 16)) * len(window_starts(200, 16))
    model.seen.clear()
    assert (recseg.predict(image, model, tile=64).labels == labels).mean() > 0.9
    assert set(model.seen) == {(16, 16)} and len(model.seen) == 3 * 4  # 64 pixels shrink to the network's 16
    model.seen.clear()
    recseg.predict(image.crop((0, 0, 10, 200)), model, tile=True)  # narrower than a window
    assert set(model.seen) == {(26, 16)}  # the shape is kept, as for a whole image


@pytest.mark.parametrize("size", [(20, 30), (32, 32), (7, 5)])
def test_one_window_says_what_the_whole_image_says(size: tuple[int, int]) -> None:
    model = recurrent_model(max_steps=5)
    torch.nn.init.normal_(model.context.weight, generator=torch.Generator().manual_seed(0))
    assert model.classifier.bias is not None
    torch.nn.init.zeros_(model.classifier.bias)
    model.classes, model.image_size = VOC_CLASSES, 32
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    pixels = pixels[: size[0], : size[1]]
    whole, tiled = recseg.predict(pixels, model), recseg.predict(pixels, model, tile=32)
    assert len(np.unique(whole.labels)) > 2
    assert (whole.labels == tiled.labels).mean() > 0.99  # a tie may be rounded to the other side
    assert {step.class_id for step in tiled.steps} == set(np.unique(tiled.labels)) - {0}


def steps_of(*named: tuple[int, float], side: int = 8) -> Sequence:
    """Steps whose masks have one log-odds everywhere, of a network that is sure to go on."""
    masks = np.array([np.full((side, side), logit) for _, logit in named], np.float32).reshape(-1, side, side)
    classes = np.eye(3, dtype=np.float32)[[label - 1 for label, _ in named]] * 9
    return Sequence(masks, classes, [-40.0] * len(named) + [40.0])


def test_a_class_that_the_neighbour_does_not_name_fades_out() -> None:
    """Two windows share four columns. The left one says 90 % red everywhere, the right one names nothing."""
    answers = iter([steps_of((1, float(np.log(9)))), steps_of()])
    found = predict_tiles(Image.new("RGB", (12, 8)), 8, lambda window: next(answers), Legend.plain(NAMES))
    # Column 4 + k of the image: weights 3.5 − k and 0.5 + k, red where 0.9 of the first is more than half of both.
    red = [True] * 4 + [0.9 * (3.5 - k) > 0.5 * 4 for k in range(4)] + [False] * 4
    assert np.array_equal(found.labels, np.tile(np.array(red, np.uint8), (8, 1)))
    (step,) = found.steps
    expected = [0.9] * 4 + [0.9 * (3.5 - k) / 4 for k in range(4)]
    assert step.probability == pytest.approx(np.mean(expected[: sum(red)]), rel=1e-5)


def test_probabilities_are_a_softmax_whose_winner_is_the_label() -> None:
    generator = np.random.default_rng(0)
    masks, classes = generator.normal(size=(3, 5, 7)), generator.normal(size=(3, 3))
    classes[2] = classes[0]  # a class named twice counts where it is surest
    recurrent = Sequence(masks.astype(np.float32), classes.astype(np.float32), [-1.0, 0.5, -2.0, 3.0])
    dense: Floats = generator.normal(size=(4, 5, 7)).astype(np.float32)
    for output, most in ((recurrent, 3), (dense, 4)):
        found = probabilities(output, (10, 14))
        assert len(found) <= most
        np.testing.assert_allclose(sum(found.values()), 1, rtol=1e-5)
        labels = np.array(list(found))[np.argmax(list(found.values()), axis=0)]
        assert np.array_equal(labels, to_prediction(output, (10, 14), Legend.plain(NAMES)).labels)


def test_memory_does_not_grow_with_the_image() -> None:
    """Beside an image and its map: a tall image takes what a short one takes."""
    logits = np.zeros((4, 8, 8), np.float32)
    taken = {}
    for rows in (64, 4096):
        image = Image.new("RGB", (48, rows))
        tracemalloc.start()
        predict_tiles(image, 32, lambda window: logits, Legend.plain(NAMES))
        taken[rows] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    growth = (taken[4096] - taken[64]) / (48 * (4096 - 64))
    assert growth < 1.2  # bytes a pixel: the label map


def test_a_recurrent_network_names_window_by_window() -> None:
    class OneClass(Painter):
        """Names one class, that of the most coloured pixels, as a network does that has one step."""

        kind = "recurrent"

        def forward(self, images: Tensor) -> RecurrentOutput:  # type: ignore[override]
            logits = super().forward(images)[0]
            label = int(torch.bincount(logits.argmax(dim=0).flatten(), minlength=4)[1:].argmax()) + 1
            masks, one = logits[label : label + 1] - logits[:1], torch.zeros(1).long()
            stop = torch.tensor([[-20.0, 20.0]])
            classes = 9 * torch.eye(3)[label - 1 : label]
            return RecurrentOutput(masks, classes, stop, one, one, one + 1, None, (16, 16))

    image, labels = scene(150, 200)
    found = recseg.predict(image, OneClass(), tile=True)
    assert np.array_equal(found.labels, labels)
    assert [step.name for step in found.steps] == ["red", "green", "blue"]  # more than any one window may name


def test_windows_that_cannot_be() -> None:
    image, model = Image.new("RGB", (40, 40)), Painter()
    refusal(lambda: recseg.predict(image, model, tile=1), "tile 1")
    model.image_size = None  # type: ignore[assignment]
    refusal(lambda: recseg.predict(image, model, tile=True), "window's side in pixels")
    assert recseg.predict(image, model, tile=16).labels.shape == (40, 40)


def test_the_command_warns_of_shrinking_and_says_what_helps(
    tiny_dense: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    large = tmp_path / "large.png"
    scene(97, 120)[0].save(large)  # 97 > 3 · 32
    model: Any = recseg.load(tiny_dense)
    torch.nn.init.zeros_(model.classifier.bias)  # whose label would be everywhere
    save_weights(tiny_dense, model, classes=VOC_CLASSES, image_size=32, metadata={})
    command = ["predict", str(photo), str(large), "--weights", str(tiny_dense), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 2 images" in line and "large.png: 97 pixels to 32" in line and "--tile" in line
    whole = (tmp_path / "out" / "large-labels.png").read_bytes()
    for option in (["--tile"], ["--tile-size", "48"]):
        assert main([*command, *option]) == 0
        assert capsys.readouterr().err == ""
        assert (tmp_path / "out" / "large-labels.png").read_bytes() != whole
    refuses([*command, "--tile-size", "1"], "--tile-size", "from 2")


def test_a_larger_file_is_read_in_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_dense: Path, refuses: Refuses
) -> None:
    from recseg.data import images

    large = tmp_path / "large.png"
    scene(50, 60)[0].save(large)
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    command = ["predict", str(large), "--weights", str(tiny_dense), "--out", str(tmp_path / "out")]
    refuses(command, "large.png", "too many pixels", "--tile")
    assert main([*command, "--tile"]) == 0
