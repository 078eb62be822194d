"""Whatever images, masks and lists come: the right answer, or exit 2 with one line that names the file.

Each case is drawn from a seed of its own. `make test` runs a tenth of them, `make test-slow` all.
"""

import contextlib
import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import recurrent_model, refusal
from odd_data import BAD_MASKS, GOOD_MASKS, NAMES, label_map, make_folder
from odd_pictures import BAD, GOOD, SHAPES, scene
from PIL import Image
from safetensors.torch import load_file

import recseg
from recseg.classes import VOC_CLASSES
from recseg.cli.main import main
from recseg.data.images import read_image, read_labels
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.weights.io import save_weights

SMALL = ["--encoder-widths", "4", "6", "8", "8", "--decoder-widths", "8", "8", "--hidden", "8", "--reduced", "8"]
HANG = 600  # seconds after which a case counts as one that never ends (a starved machine is slow, too)


def lively_model() -> RecurrentUNet:
    """A network whose every answer depends on the whole image: weights as He et al. (ICCV 2015) scale them."""
    model = recurrent_model()
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=(2 / parameter[0].numel()) ** 0.5, generator=generator)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lively.safetensors"
    save_weights(path, lively_model(), classes=VOC_CLASSES, image_size=32, metadata={})
    return path


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    pytest.importorskip("onnxruntime")
    from recseg.export.onnx import export

    export(recseg.load(weights), weights.with_suffix(".onnx"))
    return weights.with_suffix(".onnx")


@contextlib.contextmanager
def not_forever() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise AssertionError(f"no answer after {HANG} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and what stands on stderr; an exception that leaves `main` fails the test as it is."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with not_forever(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main([str(argument) for argument in arguments])
    return code, stderr.getvalue()


def complains(code: int, errors: str, names: list[str], what: object) -> None:
    assert code == 2, (what, code, errors)
    assert errors.startswith("recseg: error: ") and errors.count("\n") == 1 and "Traceback" not in errors, (
        what,
        errors,
    )
    assert any(name in errors for name in names), (what, names, errors)


# the readers


def exactly(path: Path, read: Any, expected: Any, what: object) -> None:
    found = np.asarray(read(path))
    assert found.shape == expected.shape and np.array_equal(found, expected), what


def read_case(seed: int, folder: Path) -> None:
    """Each kind of image and mask once: the pixels that it was made from, or a refusal that names the file."""
    rng = np.random.default_rng([0, seed])

    def labels(path: Path) -> Any:
        return read_labels(path, 21)

    for kind, write in GOOD.items():
        path = folder / f"good {kind}"
        expected = write(rng, scene(rng, *SHAPES[int(rng.integers(len(SHAPES)))]), path)
        exactly(path, read_image, expected, (seed, kind))
    for kind, spoil in BAD.items():
        path = folder / f"bad {kind}"
        spoil(rng, path)
        refusal(lambda path=path: read_image(path), path)  # type: ignore[misc]
    for kind, mask in GOOD_MASKS.items():
        path = folder / f"good mask {kind}.png"
        expected = label_map(rng, *rng.integers(1, 40, 2))
        mask(rng, expected, path)
        exactly(path, labels, expected, (seed, kind))
    for kind, mask in BAD_MASKS.items():
        if kind != "other size":  # than the image's, which only a folder knows
            path = folder / f"bad mask {kind}.png"
            given = label_map(rng, 24, 40)
            given[:12, :20] = 7
            mask(rng, given, path)
            refusal(lambda path=path: labels(path), path)  # type: ignore[misc]


def test_readers(tmp_path: Path) -> None:
    with not_forever():
        many(read_case, range(4), tmp_path)


# predict


def predict_case(seed: int, folder: Path, network: list[object], segment: Any) -> None:
    """One to three images of any kind; with faults in some, nothing is written."""
    rng = np.random.default_rng([1, seed])
    bad = rng.random() < 0.4
    paths, expected, faults, what = [], [], [], []
    count = int(rng.integers(1, 4))
    for number in range(count):
        suffix = str(rng.choice([".jpg", ".png", ".PNG", ".gif", "", ".jpeg"]))
        path = folder / f"{number}{rng.choice(NAMES)}{suffix}"
        if bad and (number == count - 1 or rng.random() < 0.3):
            kind = str(rng.choice([*BAD, "missing"]))
            if kind != "missing":
                BAD[kind](rng, path)
            faults.append(path.name)
        else:
            kind = str(rng.choice(list(GOOD)))
            height, width = SHAPES[int(rng.integers(len(SHAPES)))]
            expected.append(GOOD[kind](rng, scene(rng, height, width), path))
        paths.append(path)
        what.append(f"{path.name}: {kind}")
    out, report = folder / "out", folder / "steps.json"
    extras = ["--gif"] if rng.random() < 0.2 else []
    code, errors = run("predict", *paths, *network, "--out", out, "--json", report, *extras)
    if faults:
        complains(code, errors, faults, (seed, what))
        assert not out.exists() and not report.exists(), (seed, what)
        return
    assert code == 0 and not errors, (seed, what, errors)
    for entry, pixels in zip(json.loads(report.read_text(encoding="utf-8")), expected, strict=True):
        found = segment(pixels)
        height, width = pixels.shape[:2]
        assert (entry["height"], entry["width"]) == (height, width), (seed, what)
        assert entry == {**entry, **json.loads(json.dumps(found.to_dict()))}, (seed, what)
        with Image.open(entry["labels"]) as labels, Image.open(entry["overlay"]) as overlay:
            assert labels.size == overlay.size == (width, height), (seed, what)
            assert np.array_equal(np.asarray(labels), found.labels), (seed, what)
            assert set(np.unique(np.asarray(labels))) <= {0, *(step["class_id"] for step in entry["steps"])}
        assert ("gif" in entry) == bool(extras) and all(Path(entry[kind]).is_file() for kind in extras and ["gif"])


def many(case: Any, seeds: range, folder: Path, *arguments: Any) -> None:
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        case(seed, place, *arguments)


def predict_all(seeds: range, weights: Path, folder: Path) -> None:
    model = recseg.load(weights)
    many(
        predict_case,
        seeds,
        folder,
        ["--weights", weights, "--device", "cpu"],
        lambda pixels: recseg.predict(pixels, model),
    )


def predict_all_exported(seeds: range, exported: Path, folder: Path) -> None:
    from recseg.export.runtime import OnnxModel

    many(predict_case, seeds, folder, ["--onnx", exported], OnnxModel(exported).predict)


def test_predict(weights: Path, tmp_path: Path) -> None:
    predict_all(range(110), weights, tmp_path)


def test_predict_exported(exported: Path, tmp_path: Path) -> None:
    predict_all_exported(range(5000, 5030), exported, tmp_path)


def test_a_turned_picture_would_be_noticed(weights: Path) -> None:
    """What makes the tests above worth something: the network's answer changes with every turn and shade."""
    model = recseg.load(weights)
    rng = np.random.default_rng(0)
    answers = []
    pixels = scene(rng, 33, 47)
    for changed in (pixels, pixels[::-1], pixels[:, ::-1], pixels[::-1, ::-1], pixels[..., ::-1], 255 - pixels):
        answers.append(json.dumps(recseg.predict(np.ascontiguousarray(changed), model).to_dict()))
    assert len(set(answers)) == len(answers)


# evaluate


SCORES = ("confusion", "miou", "slot_accuracy", "slot_iou", "label_set_f1", "count_accuracy", "mean_steps", "images")


def evaluate_case(seed: int, folder: Path, weights: Path) -> None:
    """The scores of a folder are those of its clean twin, to the last digit."""
    rng = np.random.default_rng([2, seed])
    made = make_folder(rng, folder, images=int(rng.integers(1, 4)), faults=int(rng.random() < 0.5), split="val")
    file = folder / "scores.json"
    start = ["evaluate", "--weights", weights, "--device", "cpu", "--data"]
    code, errors = run(*start, made.root, "--json", file)
    if made.faults:
        complains(code, errors, made.faults, (seed, made))
        assert not file.exists()
        return
    assert code == 0, (seed, made, errors)
    assert run(*start, made.twin, "--json", folder / "twin.json")[0] == 0
    mine, twins = (json.loads(path.read_text()) for path in (file, folder / "twin.json"))
    assert {key: mine[key] for key in SCORES} == {key: twins[key] for key in SCORES}, (seed, made)


def test_evaluate(weights: Path, tmp_path: Path) -> None:
    many(evaluate_case, range(50), tmp_path, weights)


# train


def train_case(seed: int, folder: Path) -> None:
    """The weights after a step are those that the clean twin gives, bit for bit."""
    rng = np.random.default_rng([3, seed])
    made = make_folder(rng, folder, images=2, faults=int(rng.random() < 0.6), split="train")
    settings = ["--steps", "1", "--batch-size", "2", "--size", "16", "--workers", "0", "--device", "cpu", *SMALL]
    code, errors = run("train", "--data", made.root, "--out", folder / "run", *settings)
    if made.faults:
        # The bar of a training that began stands before the complaint.
        complains(code, errors[errors.rfind("recseg: error: ") :], made.faults, (seed, made))
        assert not (folder / "run" / "weights.safetensors").exists()
        return
    assert code == 0, (seed, made, errors)
    assert run("train", "--data", made.twin, "--out", folder / "twin-run", *settings)[0] == 0
    mine, twins = (load_file(folder / name / "weights.safetensors") for name in ("run", "twin-run"))
    assert all(torch.equal(mine[name], tensor) for name, tensor in twins.items()), (seed, made)
    assert all(bool(tensor.isfinite().all()) for tensor in mine.values()), (seed, made)


def test_train(tmp_path: Path) -> None:
    many(train_case, range(16), tmp_path)


# all of it


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_thousands_of_cases(
    part: int,
    weights: Path,
    exported: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """2,400 runs of commands (1,400 predictions, 200 by an exported network, 600 evaluations, 200 trainings), and 40
    files of each kind read.
    """
    for name in ("read", "predict", "exported", "evaluate", "train"):
        (tmp_path / name).mkdir()
    many(read_case, range(100 + part * 10, 110 + part * 10), tmp_path / "read")
    predict_all(range(10_000 + part * 350, 10_350 + part * 350), weights, tmp_path / "predict")
    predict_all_exported(range(20_000 + part * 50, 20_050 + part * 50), exported, tmp_path / "exported")
    many(evaluate_case, range(30_000 + part * 150, 30_150 + part * 150), tmp_path / "evaluate", weights)
    many(train_case, range(40_000 + part * 50, 40_050 + part * 50), tmp_path / "train")
    for name, runs in (("predict", 350), ("predict --onnx", 50), ("evaluate", 150), ("train", 50)):
        record_property(f"runs of {name}", runs)
