"""What classes.txt may say of a folder's masks, and that reading, training, scoring and drawing go by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, recurrent_model, refusal, save_indexed
from PIL import Image

from recseg.classes import NO_BACKGROUND, VOC_CLASSES, VOID, Legend, check_names
from recseg.data import open_dataset
from recseg.data.folder import SegmentationFolder
from recseg.data.images import read_labels
from recseg.data.pack import PackedFolder, fingerprint, write_pack
from recseg.evaluation.compare import summarise
from recseg.evaluation.counts import count
from recseg.evaluation.evaluate import evaluate
from recseg.export.onnx import export
from recseg.export.runtime import OnnxModel
from recseg.inference.predict import predict
from recseg.models.baseline import PublishedConfig, PublishedNetwork
from recseg.models.config import UNetConfig
from recseg.models.recurrent_unet import winners
from recseg.models.unet import UNet, pad_to_stride
from recseg.training.train import TrainConfig, train
from recseg.weights.io import load, save_weights

TABLE = "value,name,colour\n0,sky,#80b0e0\n38,tall building,rgb(100 90 80)\n75,car,#c02020\n11,void,\n"
NAMES = (NO_BACKGROUND, "sky", "tall building", "car")


@pytest.fixture
def scenes(tiny_voc: Path) -> Path:
    """Fully labelled: sky above, below it a building in train_0 and a car in the others; a line of void between."""
    (tiny_voc / "classes.txt").write_text(TABLE.replace("rgb(100 90 80)", "#645a50"))
    for index, path in enumerate(sorted((tiny_voc / "SegmentationClass").iterdir())):
        mask = np.full((32, 48), 38 if index == 0 else 75, np.uint8)
        mask[:10], mask[10] = 0, 11
        Image.fromarray(mask).save(path)
    return tiny_voc


def test_a_table_gives_values_names_and_colours(scenes: Path) -> None:
    dataset = open_dataset(str(scenes), "train")
    assert dataset.classes == NAMES and dataset.num_classes == 4
    labels = dataset.labels(0)
    assert np.unique(labels).tolist() == [1, 2, VOID] and (labels[:10] == 1).all() and (labels[10] == VOID).all()
    assert dataset.palette.tolist() == [[0, 0, 0], [0x80, 0xB0, 0xE0], [100, 90, 80], [0xC0, 0x20, 0x20]]
    assert dataset.max_classes_per_image == 2


def test_masks_of_colours_are_read_by_the_table(scenes: Path) -> None:
    dataset = open_dataset(str(scenes), "train")
    path = scenes / "colours.png"
    Image.fromarray(dataset.legend.palette[dataset.labels(0)]).save(path)
    assert (read_labels(path, dataset.legend) == dataset.labels(0)).all()
    Image.new("RGB", (4, 4), (128, 0, 0)).save(path)  # a colour of VOC's, and none of these
    refusal(lambda: read_labels(path, dataset.legend), path, "(128, 0, 0)", "classes.txt")


def test_a_value_without_a_name_is_refused(scenes: Path) -> None:
    legend = open_dataset(str(scenes), "train").legend
    for value, mode in ((1, np.uint8), (255, np.uint8), (300, np.uint16)):
        Image.fromarray(np.array([[0, value]], mode)).save(scenes / "m.png")
        refusal(
            lambda: read_labels(scenes / "m.png", legend), f"index {value}, expected 0, 38, 75, or 11", "classes.txt"
        )
    Image.fromarray(np.array([[38, 65535]], np.uint16)).save(scenes / "m.png")
    assert read_labels(scenes / "m.png", legend).tolist() == [[2, VOID]]


@pytest.mark.parametrize(
    ("table", "labels", "names"),
    [
        ("value,name\n0,background\n255,cat\n", [[0, 1]], ("background", "cat")),  # nothing is void
        ("name,value\ncat,0\nBackground,255\n", [[1, 0]], ("Background", "cat")),  # label 0 is the background's
        ("value,name\r\n0,a\r\n255,void\r\n7,b\r\n", [[1, VOID]], (NO_BACKGROUND, "a", "b")),
        ("name,color\na,#010203\nb,#040506\n", [[1, VOID]], (NO_BACKGROUND, "a", "b")),  # row k names the value k
        ('value,name\n0,"rock, sand"\n3,moss\n', [[1, VOID]], (NO_BACKGROUND, "rock, sand", "moss")),
    ],
)
def test_tables_of_many_kinds(tiny_voc: Path, table: str, labels: list[list[int]], names: tuple[str, ...]) -> None:
    (tiny_voc / "classes.txt").write_bytes(table.encode())
    legend = open_dataset(str(tiny_voc), "train").legend
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tiny_voc / "m.png")
    assert legend.names == names
    assert read_labels(tiny_voc / "m.png", legend).tolist() == labels


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("value,name\n0,a\n0,b\n", "value 0 twice"),
        ("value,name\n0,a\n1,a\n", "'a' twice"),
        ("value,name\n0,a\n256,b\n", "'256'"),
        ("value,name\n0,a\n-1,b\n", "'-1'"),
        ("value,name\n0,a\n1\n", "'1'"),
        ("value,name\n0,a\n1,b,c\n", "'1,b,c'"),
        ("value,name,shape\n0,a,x\n", "'shape'"),
        ("value,name\n0,a\n", "two classes"),
        ("value,name\n0,background\n11,void\n", "a class beside the background"),
        ("value,name,colour\n0,a,#123456\n1,b,#123456\n", "colour (18, 52, 86) twice"),
        ("value,name,colour\n0,a,#123456\n1,b,\n", "'b' no colour"),
        ("value,name,colour\n0,a,#12345\n1,b,red\n", "'#12345'"),
    ],
)
def test_tables_refused(tiny_voc: Path, table: str, words: str) -> None:
    (tiny_voc / "classes.txt").write_text(table)
    refusal(lambda: open_dataset(str(tiny_voc), "train"), tiny_voc / "classes.txt", words)


@pytest.mark.parametrize(
    "other",
    ["class_names.txt", "labelmap.txt", "Labels.txt", "classes.csv", "data.yaml", "class_dict.csv", "notes.json"],
)
def test_classes_in_another_file_are_not_taken_for_vocs(tiny_voc: Path, other: str) -> None:
    (tiny_voc / other).write_text("_background_\nroof\n")
    refusal(lambda: open_dataset(str(tiny_voc), "train"), tiny_voc / other, "classes.txt", "value,name,colour")
    (tiny_voc / "classes.txt").write_text("\n".join(VOC_CLASSES))
    assert open_dataset(str(tiny_voc), "train").classes == VOC_CLASSES


# Without a background no network answers background


def networks() -> list[Any]:
    """A recurrent network that wants to stop at once, a dense one and the published one that find background only."""
    recurrent = recurrent_model(num_classes=4)
    torch.nn.init.constant_(recurrent.stop.bias, 8.0)
    dense = UNet(UNetConfig(**TINY, num_classes=4)).eval()
    assert dense.classifier.bias is not None
    torch.nn.init.constant_(dense.classifier.bias[0], 50.0)
    published = PublishedNetwork(PublishedConfig(num_classes=4, max_steps=2, widths=(4, 6), input_size=32)).eval()
    last = published.head[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.constant_(last.bias[0], 50.0)
    return [recurrent, dense, published]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_pixel_gets_a_class(scenes: Path, tmp_path: Path, number: int) -> None:
    torch.manual_seed(0)
    model = networks()[number]
    dataset = open_dataset(str(scenes), "val")
    file = tmp_path / "model.safetensors"
    for legend in (Legend.plain(("background", "a", "b", "c")), dataset.legend):
        save_weights(file, model, classes=legend.names, image_size=32, metadata={"legend": legend.to_dict()})
        model = load(file)
        found = predict(dataset.image_paths[0], model)
        if legend is not dataset.legend:
            assert not found.labels.any() and not found.steps
    assert found.labels.min() > 0 and found.steps
    assert {step.name for step in found.steps} <= set(NAMES[1:])
    scores = evaluate(model, dataset, progress=False)
    assert tuple(scores["iou_per_class"]) == NAMES[1:]
    assert not any(row[0] for row in scores["confusion"])
    # What is written are the data's own values, in its own colours.
    found.save_labels(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as written:
        values = np.asarray(written)
        assert set(np.unique(values).tolist()) <= {0, 38, 75}
        assert (np.asarray(written.convert("RGB")) == dataset.legend.palette[found.labels]).all()
    assert (read_labels(tmp_path / "labels.png", dataset.legend) == found.labels).all()
    assert {step["class_id"] for step in found.to_dict()["steps"]} <= {0, 38, 75}


@pytest.mark.parametrize("bias", [-8.0, 8.0])
def test_without_background_the_steps_are_those_that_win_a_pixel(bias: float, tmp_path: Path) -> None:
    """Whatever the learned stop says, and what is won beside the image; the exported network does the same."""
    model = recurrent_model(num_classes=4)
    model.classes, model.image_size = NAMES, 32
    torch.nn.init.constant_(model.stop.bias, bias)
    images = torch.rand(2, 3, 22, 26, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = model.encode(pad_to_stride(images, model.encoder.strides[-1]))
        state, masks = model.initial_state(features), list[torch.Tensor]()
        for _ in range(model.max_steps):
            state, step = model.step(features, state)
            masks.append(step.mask[:, :11, :13])  # what the padding added is cut off
        output = model(images)
    pairs = [(image, int(t)) for image in range(2) for t in torch.stack(masks)[:, image].argmax(dim=0).unique()]
    assert list(zip(output.sample.tolist(), output.step.tolist(), strict=True)) == pairs
    assert output.lengths.tolist() == [sum(image == i for i, _ in pairs) for image in range(2)]
    torch.testing.assert_close(output.masks, torch.stack([masks[t][image] for image, t in pairs]))
    assert (output.stop < -20).all()
    export(model, tmp_path / "model.onnx")
    found = OnnxModel(tmp_path / "model.onnx").sequence(images[:1].numpy())
    np.testing.assert_allclose(found.masks, output.split()[0].masks, atol=1e-4)
    assert len(found.stops) == len(found.masks) and max(found.stops) < -20


def test_a_step_that_wins_no_pixel_is_left_out() -> None:
    masks = torch.tensor([[[3.0, 1.0]], [[2.0, 0.5]], [[1.0, 2.0]]])[:, None]  # (3, 1, 1, 2): the second wins nothing
    assert winners(masks).tolist() == [[True, False, True]]
    assert winners(masks.flip(3)).tolist() == [[True, False, True]]
    assert winners(masks[:1]).tolist() == [[True]]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_pixel_of_a_large_image_gets_a_class(scenes: Path, tmp_path: Path, number: int) -> None:
    torch.manual_seed(0)
    model, legend = networks()[number], open_dataset(str(scenes), "val").legend
    model.classes, model.image_size, model.metadata = NAMES, 32, {"legend": legend.to_dict()}
    found = predict(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), model, tile=32)
    assert found.labels.min() > 0 and {step.name for step in found.steps} <= set(NAMES[1:])
    found.save_labels(tmp_path / "labels.png")
    assert (read_labels(tmp_path / "labels.png", legend) == found.labels).all()
    assert (found.palette == legend.palette).all()


def test_an_absent_background_is_in_no_comparison(scenes: Path) -> None:
    model = networks()[0]
    model.classes, model.image_size = NAMES, 32
    result = summarise(count([("one", "run")], str(scenes), "val", None, lambda _: model), number=10)
    assert {*result["classes"], *result["classes_not_in_ground_truth"]} == set(NAMES[1:])
    assert all(NO_BACKGROUND not in row["iou_per_class"] for row in result["rows"].values())


def test_only_the_first_name_may_be_empty() -> None:
    assert check_names(NAMES, "here") == NAMES
    for names in (("sky", ""), ("", ""), (" ", "sky"), (None, "sky")):
        refusal(lambda names=names: check_names(names, "here"), "here")  # type: ignore[misc]


def test_an_export_answers_alike(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model, dataset = networks()[0], open_dataset(str(scenes), "val")
    model.classes, model.image_size, model.metadata = NAMES, 32, {"legend": dataset.legend.to_dict()}
    export(model, tmp_path / "model.onnx")
    mine, theirs = (
        f(dataset.image_paths[0]) for f in (lambda p: predict(p, model), OnnxModel(tmp_path / "model.onnx").predict)
    )
    assert theirs.labels.min() > 0 and (mine.labels == theirs.labels).mean() > 0.99
    assert [step.name for step in mine.steps] == [step.name for step in theirs.steps]
    assert (theirs.palette == dataset.legend.palette).all() and theirs.values is not None
    assert theirs.values.tolist() == [0, 0, 38, 75]


def test_a_training_hands_the_legend_on(scenes: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=str(scenes), steps=1, size=32, batch_size=2, workers=0, device="cpu")
    model = load(train(config, tmp_path / "run", progress=False))
    legend = open_dataset(str(scenes), "train").legend
    assert (model.legend.names, model.legend.values, model.legend.colours) == (NAMES, legend.values, legend.colours)
    assert not model.has_background


def test_a_pack_keeps_the_legend(scenes: Path, tmp_path: Path) -> None:
    source = open_dataset(str(scenes), "train")
    packed = PackedFolder(write_pack(source, tmp_path / "scenes.pack", 32, progress=False))
    assert (packed.labels(0) == source.labels(0)).all()
    assert packed.legend.to_dict() == source.legend.to_dict() and packed.classes == NAMES
    # What the values mean has changed, so the pack is made anew.
    (scenes / "classes.txt").write_text("value,name\n0,background\n38,house\n75,car\n11,void\n")
    again = open_dataset(str(tmp_path / "scenes.pack"), "train")
    assert again.classes == ("background", "house", "car") and np.unique(again.labels(0)).tolist() == [0, 1, VOID]


def test_another_void_makes_a_pack_anew(tiny_voc: Path) -> None:
    table = "value,name\n" + "".join(f"{value},{name}\n" for value, name in enumerate(VOC_CLASSES))
    found = set()
    for void in ("", "254,void\n", "254,void\n255,void\n"):
        (tiny_voc / "classes.txt").write_text(table + void)
        found.add(fingerprint(SegmentationFolder(tiny_voc, "train")))
    assert len(found) == 3


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"values": [None, 0]},
        {"values": ["x", 0, 1, 2], "colours": [[0, 0, 0]] * 4},
        {"values": [None, 0, 1, 300], "colours": [[0, 0, 0]] * 4},
        7,
    ],
)
def test_a_forged_legend_is_refused(tmp_path: Path, facts: Any) -> None:
    file = tmp_path / "model.safetensors"
    save_weights(file, networks()[1], classes=NAMES, image_size=32, metadata={"legend": facts})
    refusal(lambda: load(file), file, "legend")


def test_vocs_way_needs_no_legend(tiny_voc: Path) -> None:
    assert open_dataset(str(tiny_voc), "train").legend.to_dict() is None
    save_indexed(np.array([[0, 20, 255]]), tiny_voc / "m.png")
    assert read_labels(tiny_voc / "m.png", Legend.plain(VOC_CLASSES)).tolist() == [[0, 20, 255]]
