"""What several test files share: a data set of four tiny images, and tiny networks that were never trained."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from recseg.classes import VOC_CLASSES, VOID, palette
from recseg.cli.main import main
from recseg.errors import RecsegError
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.recurrent_unet import RecurrentUNet
from recseg.models.unet import UNet
from recseg.weights.io import save_weights

Snapshot = Callable[[Path], dict[str, bytes | None]]
Refuses = Callable[..., None]
HEIGHT, WIDTH = 32, 48
TINY: dict[str, Any] = {"encoder_widths": (4, 6, 8, 8), "decoder_widths": (8, 8)}  # pools 2×2 pixels to a cell


def refusal(action: Callable[[], object], *names: object) -> str:
    """The message of the `RecsegError` that `action` raises: one line, holding every one of `names`."""
    with pytest.raises(RecsegError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert str(name) in message
    return message


def uninstall(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every import of a package fail, as where it is not installed."""
    real = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)


def save_indexed(labels: np.ndarray, path: Path) -> None:
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette().tobytes())
    image.save(path)


@pytest.fixture
def tiny_voc(tmp_path: Path) -> Path:
    """A folder in VOC's layout: four images of 32×48, two in train, two in val; each has one class and void."""
    root = tmp_path / "tiny_voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"tiny_{index}.jpg")
        labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        labels[4:20, 4:24] = index + 1
        labels[20:22, 4:24] = VOID
        save_indexed(labels, root / "SegmentationClass" / f"tiny_{index}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("tiny_0\ntiny_1\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("tiny_2\ntiny_3\n")
    return root


def recurrent_model(**options: Any) -> RecurrentUNet:
    """A recurrent network of a few thousand weights that always runs `max_steps` steps."""
    torch.manual_seed(0)
    model = RecurrentUNet(RecurrentUNetConfig(**TINY | {"hidden": 8, "reduced": 8, "max_steps": 3} | options))
    torch.nn.init.constant_(model.stop.bias, -8.0)
    return model.eval()


@pytest.fixture
def tiny_recurrent(tmp_path: Path) -> Path:
    """A weight file of `recurrent_model`."""
    path = tmp_path / "recurrent.safetensors"
    save_weights(path, recurrent_model(), classes=VOC_CLASSES, image_size=32, metadata={"seed": 0})
    return path


@pytest.fixture
def tiny_dense(tmp_path: Path) -> Path:
    """A weight file of a dense network of a few thousand weights."""
    torch.manual_seed(0)
    path = tmp_path / "dense.safetensors"
    save_weights(path, UNet(UNetConfig(**TINY)), classes=VOC_CLASSES, image_size=32, metadata={})
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image of 40×56 in two flat halves."""
    pixels = np.zeros((40, 56, 3), dtype=np.uint8)
    pixels[:, :28] = (200, 30, 30)
    pixels[:, 28:] = (20, 90, 220)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def snapshot() -> Snapshot:
    """Everything under a folder: name → content, None for a folder. Equal before and after: nothing was touched."""

    def take(root: Path) -> dict[str, bytes | None]:
        return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}

    return take


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path, snapshot: Snapshot) -> Refuses:
    """Run a command that must fail: exit 2, one line on stderr that has all these words, and no file touched."""

    def check(arguments: list[object], *words: str) -> None:
        before = snapshot(tmp_path)
        capsys.readouterr()
        try:
            code: Any = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's own
            code = stop.code
        streams = capsys.readouterr()
        assert code == 2, streams
        assert streams.err.startswith("recseg: error: ") and streams.err.count("\n") == 1, streams.err
        assert all(word in streams.err for word in words), streams.err
        assert snapshot(tmp_path) == before

    return check
