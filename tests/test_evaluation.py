"""Evaluation with networks whose answers are known: they read the labels out of the image's colours."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from recseg.data.folder import SegmentationFolder
from recseg.errors import RecsegError
from recseg.evaluation.answers import OWN, argmax, from_pixels
from recseg.evaluation.evaluate import Ready, batches_of_one_shape, evaluate, score
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.model import SegmentationModel
from recseg.models.recurrent_unet import RecurrentOutput, RecurrentUNet, live_pairs
from recseg.models.unet import UNet

NAMES = ("background", "cat", "dog", "owl")
STEP = 60  # a pixel of label k is painted in grey 60·k


class Reader(SegmentationModel):
    """What the fakes share: labels from colours, and a record of what came in."""

    def __init__(self, num_classes: int = 4, image_size: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.image_size = image_size
        self.anchor = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, ...]] = []

    def read(self, images: Tensor) -> Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        assert images.dtype == torch.float32 and 0 <= images.min() <= images.max() <= 1
        self.seen.append(tuple(images.shape))
        return (images[:, 0] * 255 / STEP).round().long()  # (B, H, W)


class Dense(Reader):
    def forward(self, images: Tensor) -> Tensor:
        return 20.0 * nn.functional.one_hot(self.read(images), self.num_classes).permute(0, 3, 1, 2)


class Recurrent(Reader):
    """Steps in descending class id, each `repeat` times over."""

    repeat = 1

    def forward(self, images: Tensor) -> RecurrentOutput:
        labels = self.read(images)
        steps = [sorted(set(image.unique().tolist()) - {0}, reverse=True) * self.repeat for image in labels]
        lengths = torch.tensor([len(classes) for classes in steps])
        sample, step = live_pairs(lengths)
        pairs = list(zip(sample.tolist(), [k for classes in steps for k in classes], strict=True))
        masks = [40.0 * (labels[image] == k) - 20 for image, k in pairs]
        classes = 20.0 * nn.functional.one_hot(torch.tensor([k - 1 for _, k in pairs]).long(), self.num_classes - 1)
        stop = torch.where(torch.arange(6) < lengths[:, None], -20.0, 20.0)  # (B, 6)
        stacked = torch.stack(masks) if masks else torch.zeros(0, *labels.shape[1:])
        return RecurrentOutput(stacked, classes, stop, sample, step, lengths, None, (labels.shape[1], labels.shape[2]))


def write(root: Path, pictures: list[np.ndarray], names: tuple[str, ...] = NAMES) -> SegmentationFolder:
    """A data set whose images show their labels; void is painted as background."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for index, labels in enumerate(pictures):
        colours = np.where(labels == 255, 0, labels) * STEP
        Image.fromarray(colours.astype(np.uint8)).convert("RGB").save(root / "JPEGImages" / f"{index}.png")
        Image.fromarray(labels.astype(np.uint8)).save(root / "SegmentationClass" / f"{index}.png")
    (root / "ImageSets/Segmentation/val.txt").write_text("".join(f"{index}\n" for index in range(len(pictures))))
    (root / "classes.txt").write_text("\n".join(names))
    return SegmentationFolder(root, "val")


def picture(height: int, width: int, *classes: int) -> np.ndarray:
    """Background with a block of each class beside the other, and a void row."""
    labels = np.zeros((height, width), dtype=np.uint8)
    for place, label in enumerate(classes):
        labels[height // 4 : height // 2, width * place // 4 : width * (place + 1) // 4] = label
    labels[-2] = 255
    return labels


PICTURES = [picture(64, 64, 1), picture(64, 96, 2, 1), picture(96, 64), picture(64, 64, 3, 1, 2), picture(64, 96, 3)]


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationFolder:
    return write(tmp_path / "set", PICTURES)


@pytest.mark.parametrize("model", [Dense(), Recurrent()])
def test_a_network_that_knows_scores_full_marks(dataset: SegmentationFolder, model: Reader) -> None:
    result = evaluate(model, dataset, progress=False)
    for key in ("miou", "pixel_accuracy", "slot_accuracy", "label_set_precision", "label_set_recall", "label_set_f1"):
        assert result[key] == 1.0, key
    assert result["count_accuracy"] == 1.0
    assert result["mean_steps"] == (1 + 2 + 0 + 3 + 1) / 5
    assert result["slot_iou"] > 0.97  # masks are stretched to 256×256 by another rule than labels
    assert result["iou_per_class"] == dict.fromkeys(NAMES, 1.0)
    assert list(result["slot_accuracy_per_class"]) == list(NAMES[1:])
    assert result["slot_classes_without_hits"] == []
    assert result["images"] == 5
    assert result["best_slot_accuracy"]["value"] == 1.0
    assert result["best_slot_iou"]["value"] == max(result["slot_iou_per_class"].values())


def test_slot_iou_is_exact_at_the_slots_own_size(tmp_path: Path) -> None:
    result = evaluate(Recurrent(), write(tmp_path, [picture(256, 256, 2, 3)]), progress=False)
    assert result["slot_iou"] == result["slot_accuracy"] == 1.0
    assert result["slot_accuracy_own_order"] == 0.0  # emitted in descending order
    assert result["stop_calibration_error"] < 1e-6
    assert sum(row["decisions"] for row in result["stop_calibration"]) == 3  # two live steps, and the end
    assert result["class_calibration_error"] < 1e-6
    assert [row["decisions"] for row in result["class_calibration"]] == [2]  # both named with certainty, and right


def test_steps_of_one_class_are_merged_but_counted(dataset: SegmentationFolder) -> None:
    model = Recurrent()
    model.repeat = 2
    result = evaluate(model, dataset, progress=False)
    assert result["mean_steps"] == 2 * (1 + 2 + 0 + 3 + 1) / 5
    assert result["count_accuracy"] == 1 / 5  # the image of nothing
    assert result["label_set_f1"] == result["slot_accuracy"] == 1.0


@pytest.mark.parametrize("kind", [Dense, Recurrent])
def test_the_score_does_not_depend_on_the_batch(dataset: SegmentationFolder, kind: type[Reader]) -> None:
    results = []
    for size in (1, 2, 16):
        model = kind()
        results.append(evaluate(model, dataset, batch_size=size, progress=False))
        assert sum(shape[0] for shape in model.seen) == 5
        assert max(shape[0] for shape in model.seen) == min(size, 2)
        del results[-1]["seconds"]
    assert results[0] == results[1] == results[2]


def test_workers_change_nothing(dataset: SegmentationFolder) -> None:
    here, there = (evaluate(Dense(), dataset, workers=workers, progress=False) for workers in (0, 1))
    assert {**here, "seconds": 0} == {**there, "seconds": 0}


def test_the_result_is_json_with_the_promised_keys(dataset: SegmentationFolder) -> None:
    result = evaluate(Dense(), dataset, progress=False)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    promised = "miou iou_per_class pixel_accuracy slot_accuracy slot_iou label_set_f1 count_accuracy mean_steps images"
    assert set(promised.split()) <= result.keys()
    assert result["stop_calibration_error"] is None  # a dense network learns no stop
    assert result["class_calibration"] == []  # and gives its probabilities to pixels


def test_parts_of_the_list_make_the_list(dataset: SegmentationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is shared among processes."""
    whole = score(Recurrent(), dataset, progress=False)[0][OWN]
    parts = []
    for part in (range(0, 2), range(2, 5)):
        monkeypatch.setattr("recseg.evaluation.evaluate.shard", lambda number, part=part: part)
        scores = score(Recurrent(), dataset, progress=False)[0][OWN]
        parts.append(pickle.loads(pickle.dumps(scores)))  # as they travel
    together = parts[1].merge(parts[0])
    assert together.compute() == whole.compute()
    assert together.images == whole.images and whole.images.keys() == set(range(5))


def test_what_each_image_adds(dataset: SegmentationFolder) -> None:
    result = evaluate(Recurrent(), dataset, progress=False, per_image=True)
    images = result["per_image"]
    assert json.loads(json.dumps(images)) == images and list(images) == dataset.ids
    assert [images[name]["present"] for name in dataset.ids] == [[1], [1, 2], [], [1, 2, 3], [3]]
    assert [images[name]["named"] for name in dataset.ids] == [[1], [2, 1], [], [3, 2, 1], [3]]
    assert images["1"]["slots"][0][:2] == [1, 1] and images["2"]["slots"] == []
    total = np.zeros((4, 4), dtype=int)
    for counts in images.values():
        for true, predicted, pixels in counts["confusion"]:
            total[true, predicted] += pixels
    assert total.tolist() == result["confusion"]


def test_a_class_that_occurs_nowhere_is_null(tmp_path: Path) -> None:
    result = evaluate(Dense(), write(tmp_path, [picture(64, 64, 1)]), progress=False)
    assert result["iou_per_class"] == {"background": 1.0, "cat": 1.0, "dog": None, "owl": None}
    assert result["slot_accuracy_per_class"] == {"cat": 1.0, "dog": None, "owl": None}
    assert result["miou"] == 1.0


def test_specks_of_a_dense_network_name_no_class(tmp_path: Path) -> None:
    labels = picture(100, 100, 1)
    labels[80, 0:39] = 2  # 0.39 % of the image
    result = evaluate(Dense(), write(tmp_path / "a", [labels]), progress=False)
    assert (result["mean_steps"], result["label_set_recall"], result["iou_per_class"]["dog"]) == (1, 1 / 2, 1.0)
    labels[80, 39] = 2
    assert evaluate(Dense(), write(tmp_path / "b", [labels]), progress=False)["label_set_recall"] == 1.0


# --- sizes


@pytest.mark.parametrize(
    ("options", "seen"), [({"image_size": 32}, {(32, 32), (32, 48), (48, 32)}), ({}, {(64, 64), (64, 96), (96, 64)})]
)
def test_the_short_side_is_what_the_model_wants(
    dataset: SegmentationFolder, options: dict[str, int], seen: set[tuple[int, int]]
) -> None:
    model = Dense(**options)
    result = evaluate(model, dataset, progress=False)
    assert {shape[2:] for shape in model.seen} == seen
    assert sum(map(sum, result["confusion"])) == sum(int((labels != 255).sum()) for labels in PICTURES)
    asked = Dense()
    evaluate(asked, dataset, image_size=32, progress=False)
    assert {shape[2:] for shape in asked.seen} == {(32, 32), (32, 48), (48, 32)}


def test_a_network_of_one_size_gets_squares(dataset: SegmentationFolder) -> None:
    model = Dense(image_size=64)
    model.input_size = 48
    evaluate(model, dataset, progress=False)
    assert {shape[2:] for shape in model.seen} == {(48, 48)}


def test_logits_are_stretched_before_the_largest_is_taken() -> None:
    """Classes 1 and 3 side by side never blend into class 2; the answer is the argmax of stretched planes."""
    logits = torch.randn(2, 5, 7, 9)
    stretched = nn.functional.interpolate(logits, (31, 20), mode="bilinear", align_corners=False)
    assert torch.equal(argmax(logits, (31, 20)), stretched.argmax(dim=1))
    classes = from_pixels(logits[0], (31, 20), background=False).labels
    assert torch.equal(classes, stretched[0, 1:].argmax(dim=0) + 1)
    pair = 20.0 * nn.functional.one_hot(torch.tensor([[[1, 3]]]), 4).permute(0, 3, 1, 2)
    assert set(argmax(pair, (8, 16)).unique().tolist()) == {1, 3}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=40), st.integers(1, 5))
def test_batches_hold_each_image_once(widths: list[int], batch_size: int) -> None:
    samples = [
        Ready(torch.full((3, 2, width), index), torch.full((4, width), index), index)
        for index, width in enumerate(widths)
    ]
    seen = []
    for images, labels, places in batches_of_one_shape(samples, batch_size):
        assert len(images) == len(labels) <= batch_size
        assert images[:, 0, 0, 0].tolist() == labels[:, 0, 0].tolist() == places
        seen += images[:, 0, 0, 0].tolist()
    assert sorted(seen) == list(range(len(widths)))


# --- the model is left as it was


class Frozen(Dense):
    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.fail = fail

    def forward(self, images: Tensor) -> Tensor:
        if self.fail:
            raise RuntimeError("out of memory")
        return super().forward(self.norm(images).clamp(0, 1))


@pytest.mark.parametrize("fail", [False, True])
def test_modes_and_statistics_are_left_alone(dataset: SegmentationFolder, fail: bool) -> None:
    model = Frozen(fail).train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if fail:
        with pytest.raises(RuntimeError, match="out of memory"):
            evaluate(model, dataset, progress=False)
    else:
        evaluate(model, dataset, progress=False)
    assert model.training and not model.norm.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_in_training_mode_is_scored_as_any_other(dataset: SegmentationFolder) -> None:
    torch.manual_seed(0)
    model = UNet(UNetConfig(num_classes=4, encoder_widths=(4, 6, 8), decoder_widths=(8,)))
    model.classifier = nn.Sequential(model.classifier, nn.Dropout2d())  # type: ignore[assignment]
    scores = [{**evaluate(model.train(mode), dataset, progress=False), "seconds": 0} for mode in (False, True, True)]
    assert model.training and model.classifier.training
    assert scores[0] == scores[1] == scores[2]
    with torch.inference_mode():  # in training mode, and only there, it would have answered otherwise
        images = torch.rand(2, 3, 32, 32)
        assert not torch.equal(model(images), model(images))
        assert torch.equal(model.eval()(images), model(images))


def test_limit_takes_the_first_images(dataset: SegmentationFolder) -> None:
    result = evaluate(Recurrent(), dataset, limit=2, progress=False)
    assert (result["images"], result["mean_steps"]) == (2, 1.5)
    assert evaluate(Recurrent(), dataset, limit=99, progress=False)["images"] == 5
    with pytest.raises(RecsegError, match="limit 0"):
        evaluate(Recurrent(), dataset, limit=0, progress=False)


# --- what a user can get wrong


def test_numbers_and_names_of_classes_must_agree(dataset: SegmentationFolder) -> None:
    with pytest.raises(RecsegError, match=r"21 classes .* 4"):
        evaluate(Dense(21), dataset, progress=False)
    model: Any = Dense()
    model.classes = ("background", "cat", "owl", "dog")
    with pytest.raises(RecsegError, match="class 2 is 'owl'.*'dog'"):
        evaluate(model, dataset, progress=False)


def test_a_data_set_with_nothing_in_it(dataset: SegmentationFolder) -> None:
    dataset.ids = []
    with pytest.raises(RecsegError, match="no images"):
        evaluate(Dense(), dataset, progress=False)


def test_a_transform_would_change_the_labels(tmp_path: Path) -> None:
    write(tmp_path, PICTURES)
    with pytest.raises(RecsegError, match="without a transform"):
        evaluate(Dense(), SegmentationFolder(tmp_path, "val", transform=lambda sample: sample), progress=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_line_whoever_reads_it(dataset: SegmentationFolder, workers: int) -> None:
    dataset.image_paths[3].write_bytes(b"nothing")
    with pytest.raises(RecsegError, match=r"3\.png") as caught:
        evaluate(Dense(), dataset, workers=workers, progress=False)
    assert "\n" not in str(caught.value)


# --- the real networks


@pytest.mark.parametrize("kind", ["dense", "recurrent", "published"])
def test_every_network_is_evaluated(dataset: SegmentationFolder, kind: str) -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {"num_classes": 4, "encoder_widths": (4, 6, 8), "decoder_widths": (6,)}
    model: nn.Module
    if kind == "dense":
        model = UNet(UNetConfig(**small))
    elif kind == "published":
        model = PublishedNetwork(PublishedConfig(num_classes=4, input_size=32, widths=(4, 4)))
    else:
        model = RecurrentUNet(RecurrentUNetConfig(**small, hidden=4, reduced=4))
        nn.init.constant_(model.stop.bias, -8.0)  # it runs every step
    result = evaluate(model, dataset, image_size=32, progress=False)
    assert result["images"] == 5
    assert 0 <= result["miou"] <= 1
    assert result["mean_steps"] == 5 if kind == "recurrent" else 0 <= result["mean_steps"] <= 5
