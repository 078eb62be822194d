"""One image in, steps and a label map at its own size out."""

import io
import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, recurrent_model, refusal
from odd_pictures import exif, stored
from PIL import Image, ImageFile

import recseg
from recseg.classes import VOC_CLASSES, palette
from recseg.data.images import read_image
from recseg.errors import RecsegError
from recseg.inference.fusion import fuse
from recseg.inference.predict import predict, prepare
from recseg.inference.prediction import as_image
from recseg.models.config import UNetConfig
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput
from recseg.models.unet import UNet


class Scripted(SegmentationModel):
    """Answers every image with two steps: the left half is a cat, the lower half a dog; then it stops."""

    classes = VOC_CLASSES
    image_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> RecurrentOutput:
        assert not self.training
        self.seen.append(tuple(images.shape))
        height, width = images.shape[-2:]
        masks = torch.full((2, height // 2, width // 2), -20.0)
        masks[0, :, : width // 4] = 20
        masks[1, height // 4 :] = 20
        classes = torch.zeros(2, 20)
        classes[0, 8 - 1] = 9  # cat
        classes[1, 12 - 1] = 8  # dog
        steps = torch.arange(2)
        stop = torch.tensor([[-4.0, -3.0, 2.0, 5.0]])
        lengths = torch.tensor([2])
        return RecurrentOutput(masks, classes, stop, torch.zeros(2).long(), steps, lengths, None, (height, width))


def test_steps_say_class_probability_stop_mask_and_area_at_the_pictures_size() -> None:
    model = Scripted()
    found = predict(np.zeros((40, 60, 3), dtype=np.uint8), model)
    assert model.seen == [(1, 3, 16, 24)]  # short side as the model wants it, shape kept
    assert [(step.class_id, step.name) for step in found.steps] == [(8, "cat"), (12, "dog")]
    cat, dog = found.steps
    assert cat.mask.shape == (40, 60) and cat.mask.dtype == bool
    assert cat.mask[:, :30].all() and not cat.mask[:, 30:].any()
    assert cat.area == cat.mask.mean() == 0.5
    assert cat.probability == pytest.approx(float(torch.softmax(torch.tensor([9.0] + [0.0] * 19), 0)[0]))
    assert dog.stop_probability == pytest.approx(float(torch.sigmoid(torch.tensor(-3.0))))
    assert found.stop_probability == pytest.approx(float(torch.sigmoid(torch.tensor(2.0))))  # the one that ended it
    assert found.labels.shape == (40, 60) and found.labels.dtype == np.uint8
    assert set(np.unique(found.labels)) == {0, 8, 12}
    assert (found.labels[:20, 30:] == 0).all() and (found.labels[20:, 30:] == 12).all()


def test_label_map_is_the_fusion_at_the_pictures_size() -> None:
    model, picture = recurrent_model(), Image.new("RGB", (75, 50), (90, 160, 40))
    with torch.inference_mode():
        expected = fuse(model(prepare(picture, model).unsqueeze(0)), size=(50, 75))[0]
    assert np.array_equal(predict(picture, model).labels, expected.numpy())


def test_dense_network_lists_its_classes_by_area() -> None:
    torch.manual_seed(3)
    model = UNet(UNetConfig(**TINY)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    found = predict(pixels, model)
    with torch.inference_mode():
        logits = F.interpolate(model(prepare(as_image(pixels), model)[None]), (33, 47), mode="bilinear")[0]
    probability, labels = logits.softmax(0).max(0)
    assert np.array_equal(found.labels, labels.numpy())
    areas = [step.area for step in found.steps]
    assert areas == sorted(areas, reverse=True) and min(areas) >= 0.004
    expected = {k for k in range(1, 21) if (labels == k).float().mean() >= 0.004}
    assert {step.class_id for step in found.steps} == expected
    first = found.steps[0]
    assert first.probability == pytest.approx(float(probability[labels == first.class_id].mean()), abs=1e-5)
    assert first.stop_probability is None and found.stop_probability is None


def test_every_kind_of_picture_gives_the_same_answer(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = tmp_path / "image.png"
    Image.fromarray(pixels).save(file)
    model = recurrent_model()
    expected = predict(pixels, model).to_dict()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for picture in (file, str(file), Image.open(file), pixels / 255.0, tensor, tensor.float() / 255):
        assert predict(picture, model).to_dict() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright_however_it_is_handed_over(orientation: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = tmp_path / "turned.png"
    Image.fromarray(stored(pixels, orientation)).save(file, exif=exif(orientation))
    for image in (file, Image.open(file), pixels):
        assert np.array_equal(np.asarray(as_image(image)), pixels)
    opened = Image.open(file)
    as_image(opened)
    assert opened.getexif().get(0x0112, 1) == orientation  # the caller's image is left alone


def test_transparency_is_laid_over_white_however_it_is_handed_over(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    file = tmp_path / "transparent.png"
    Image.fromarray(pixels).save(file)
    share = pixels[..., 3:] / 255
    white = np.round(pixels[..., :3] * share + 255 * (1 - share))
    seen = [np.asarray(as_image(image)) for image in (file, Image.open(file), pixels, pixels / 255)]
    assert np.abs(seen[0] - white).max() <= 1
    for other in seen[1:]:
        assert np.array_equal(other, seen[0])


@pytest.mark.parametrize("how", ["file", "opened"])
def test_the_fourth_band_of_a_tiff_is_not_taken_for_transparency(how: str, tmp_path: Path) -> None:
    """It may be near infrared, and the tag that would tell is set to "alpha" by the common writers."""
    pixels = np.random.default_rng(4).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    file = tmp_path / "bands.tif"
    Image.fromarray(pixels).save(file)
    with pytest.raises(RecsegError, match="fourth band.* save it as RGB"):
        as_image(file if how == "file" else Image.open(file))
    pixels[..., 3] = 255  # opaque: nothing to be in doubt about
    Image.fromarray(pixels).save(file)
    assert np.array_equal(np.asarray(as_image(file)), pixels[..., :3])


def test_grey_and_transparent_pictures_are_read() -> None:
    model = recurrent_model()
    for mode in ("L", "RGBA", "P", "1"):
        assert predict(Image.new(mode, (20, 16)), model).labels.shape == (16, 20)
    assert predict(np.zeros((16, 20), dtype=np.uint8), model).labels.shape == (16, 20)


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        (np.zeros((2, 3, 4, 5)), "shape"),
        (np.zeros((0, 3, 3), dtype=np.uint8), "shape"),
        (np.full((4, 4, 3), 255.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"\[0, 1\]"),
        (np.zeros((4, 4, 3), dtype=np.int64), "int64"),
        (torch.zeros(4, 4, 3), "shape"),
        (torch.zeros(1, 3, 4, 4), "shape"),
    ],
)
def test_what_is_no_picture_is_refused(picture: object, word: str) -> None:
    with pytest.raises(RecsegError, match=word):
        as_image(picture)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("picture", "word"),
    [(io.BytesIO(b"GIF89a"), "BytesIO"), (None, "NoneType"), (b"GIF89a", "bytes"), (["a.jpg", "b.jpg"], "list")],
)
def test_what_cannot_be_an_image_is_named(picture: object, word: str) -> None:
    with pytest.raises(RecsegError, match=f"type {word}: expected a path"):
        as_image(picture)  # type: ignore[arg-type]


def test_an_opened_image_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "noise.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:-200])
    cut, closed = Image.open(file), Image.new("RGB", (3, 3))
    closed.close()
    for image in (cut, closed):
        with pytest.raises(RecsegError, match="image: cannot be read"):
            as_image(image)


def test_arrays_that_other_libraries_hand_over() -> None:
    """Turned views (OpenCV's BGR as RGB), Fortran's order, read-only memory."""
    pixels = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    frozen = pixels.copy()
    frozen.setflags(write=False)
    for array in (pixels[..., ::-1].copy()[..., ::-1], np.asfortranarray(pixels), frozen):
        assert np.array_equal(np.asarray(as_image(array)), pixels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_other_precision_predicts(dtype: torch.dtype) -> None:
    model = recurrent_model()
    assert model.classifier.bias is not None
    torch.nn.init.zeros_(model.classifier.bias)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    exact = predict(pixels, model)
    found = predict(pixels, model.to(dtype))
    assert len(np.unique(exact.labels)) > 2
    assert (found.labels == exact.labels).mean() > 0.95


@pytest.mark.parametrize("kind", ["recurrent", "dense"])
def test_a_network_that_has_diverged_is_refused(kind: str) -> None:
    model: Any = recurrent_model() if kind == "recurrent" else UNet(UNetConfig(**TINY)).eval()
    with torch.no_grad():
        for weight in model.decoder.parameters():  # finite as weights, not in a product
            weight.mul_(1e30)
    with pytest.raises(RecsegError, match="not finite.* --lr"):
        predict(np.full((32, 32, 3), 200, dtype=np.uint8), model)


@pytest.mark.parametrize("training", [False, True])
def test_threads_share_a_network(tmp_path: Path, training: bool) -> None:
    model = recurrent_model()
    generator = np.random.default_rng(6)
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(generator.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)).save(files[-1])
    wanted = [predict(file, model).to_dict() for file in files]
    model.train(training)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: predict(files[number % 6], model).to_dict(), range(48)))
    assert found == wanted * 8
    assert {module.training for module in model.modules()} == {training}


def test_a_network_in_training_is_not_touched_meanwhile() -> None:
    """What another thread would see of it, seen from within the prediction."""
    model, picture, seen = recurrent_model(), Image.new("RGB", (40, 30), (9, 130, 70)), list[bool]()
    wanted = predict(picture, model)
    model.train()
    model.decoder.register_forward_hook(lambda *_: seen.extend(module.training for module in model.modules()))
    assert np.array_equal(predict(picture, model).labels, wanted.labels)
    assert seen and all(seen)


def test_a_network_that_another_thread_puts_into_training_is_refused() -> None:
    model = recurrent_model()
    handle = model.encoder.register_forward_hook(lambda *_: model.train() and None)
    refusal(lambda: predict(Image.new("RGB", (40, 30)), model), "training mode while it predicted", "copy")
    handle.remove()
    assert predict(Image.new("RGB", (40, 30)), model).labels.shape == (30, 40)


def test_threads_leave_what_the_process_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads in one file reader at once, the first out before the second: neither may put back what it saw."""
    file, inside, opened = tmp_path / "a.png", [threading.Event(), threading.Event()], Image.open
    Image.new("RGB", (8, 8)).save(file)

    def slow(*arguments: Any, **options: Any) -> Image.Image:
        if threading.current_thread().name == "first":
            inside[0].set()
            inside[1].wait(0.3)  # in vain, where only one is let in
        elif not inside[1].is_set():
            inside[1].set()
            first.join(3)
        return opened(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    first = threading.Thread(target=read_image, args=(file,), name="first")
    second = threading.Thread(target=read_image, args=(file,), name="second")
    first.start()
    inside[0].wait(3)
    second.start()
    for thread in (first, second):
        thread.join()
    assert warnings.filters == filters
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_training_mode_is_put_back() -> None:
    model = recurrent_model().train()
    predict(np.zeros((16, 16, 3), dtype=np.uint8), model)
    assert model.training


def test_every_module_gets_its_own_mode_back() -> None:
    model = UNet(UNetConfig(**TINY)).train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms[0].eval()  # frozen, as the first stages of a pretrained encoder are
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict(np.zeros((32, 32, 3), dtype=np.uint8), model)
    assert model.training and norms[1].training and not norms[0].training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_network_of_fixed_size_gets_its_square() -> None:
    model = Scripted()
    model.input_size = 24
    found = predict(Image.new("RGB", (60, 40)), model)
    assert model.seen == [(1, 3, 24, 24)] and found.labels.shape == (40, 60)


def test_nothing_but_background_is_an_answer() -> None:
    model = recurrent_model()
    torch.nn.init.constant_(model.stop.bias, 9.0)
    found = predict(np.zeros((16, 16, 3), dtype=np.uint8), model)
    assert found.steps == [] and not found.labels.any() and found.stop_probability > 0.9  # type: ignore[operator]


def test_to_dict_is_json_and_labels_are_an_indexed_png(tmp_path: Path) -> None:
    found = recseg.predict(np.zeros((40, 60, 3), dtype=np.uint8), Scripted())
    report = json.loads(json.dumps(found.to_dict()))
    assert (report["height"], report["width"]) == (40, 60)
    assert set(report["steps"][0]) == {"class", "class_id", "probability", "stop_probability", "area"}
    found.save_labels(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), found.labels)
        colours = np.asarray(image.getpalette()).reshape(-1, 3)
        assert np.array_equal(colours[:21], palette()[:21])
