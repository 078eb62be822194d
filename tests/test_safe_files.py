"""Files that mean harm: nothing of a pickle, an archive, a forged or cut file is used; and nothing is unpickled."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses, refusal
from safetensors.torch import load_file, save_file

import recseg
from recseg.data.archive import extract_tar
from recseg.models.encoders import Encoder, load_encoder_weights, torchvision_network
from recseg.weights import io as checkpoints
from recseg.weights.safetensors import TensorFile, open_tensors


class Harmful:
    """What unpickling this does is seen: it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.write_text, (self.trace, "ran")


def parts(file: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(file: Path, header: dict[str, Any] | bytes, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Other kinds of file under the name of weights


def as_pickle(file: Path, trace: Path) -> None:
    file.write_bytes(pickle.dumps(Harmful(trace)))


def as_torch(file: Path, trace: Path) -> None:
    torch.save({"weight": Harmful(trace)}, file)


def as_zip_bomb(file: Path, trace: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(50_000_000))


def as_numpy(file: Path, trace: Path) -> None:
    with open(file, "wb") as stream:
        np.save(stream, np.array([Harmful(trace)], dtype=object), allow_pickle=True)


def as_tar(file: Path, trace: Path) -> None:
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))


@pytest.mark.parametrize("disguise", [as_pickle, as_torch, as_zip_bomb, as_numpy, as_tar])
def test_another_kind_of_file(
    disguise: Callable[[Path, Path], None], photo: Path, tmp_path: Path, refuses: Refuses
) -> None:
    file, trace = tmp_path / "weights.safetensors", tmp_path / "trace"
    disguise(file, trace)
    refuses(["predict", photo, "--weights", file, "--out", tmp_path / "out"], "weights.safetensors", "safetensors")
    encoder = Encoder("mobilenet_v2")
    refusal(lambda: load_encoder_weights(encoder, file), file)
    assert not trace.exists()


# Forged and damaged safetensors files: refused by their table of contents, before a tensor is read


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorFile, "read", lambda *_: pytest.fail("a tensor was read before the file was judged"))


def absurd_shape(header: dict[str, Any], name: str) -> None:
    header[name]["shape"] = [1 << 40]


def overflowing_shape(header: dict[str, Any], name: str) -> None:
    header[name]["shape"] = [1 << 33, 1 << 33]


def negative_shape(header: dict[str, Any], name: str) -> None:
    header[name]["shape"] = [-1]


def beyond_the_end(header: dict[str, Any], name: str) -> None:
    header[name]["data_offsets"][1] += 1 << 40


def overlapping(header: dict[str, Any], name: str) -> None:
    other = next(key for key in header if key not in (name, "__metadata__"))
    header[name]["data_offsets"] = header[other]["data_offsets"]


def unknown_kind(header: dict[str, Any], name: str) -> None:
    header[name]["dtype"] = "PICKLE"


def other_kind(header: dict[str, Any], name: str) -> None:
    header[name]["dtype"] = "I32"  # as many bytes as a float


def other_shape(header: dict[str, Any], name: str) -> None:
    header[name]["shape"] = [1, *header[name]["shape"]]


def no_text(header: dict[str, Any], name: str) -> None:
    del header["__metadata__"]


FORGERIES = [absurd_shape, overflowing_shape, negative_shape, beyond_the_end, overlapping, unknown_kind, other_kind,
             other_shape, no_text]  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_tables(tiny_dense: Path, forge: Callable[..., None], unread: None) -> None:
    header, data = parts(tiny_dense)
    forge(header, "classifier.bias")
    write(tiny_dense, header, data)
    refusal(lambda: recseg.load(tiny_dense), tiny_dense)


@pytest.mark.parametrize("length", [0, 7, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_absurd_lengths_of_the_header(tiny_dense: Path, length: int, unread: None) -> None:
    tiny_dense.write_bytes(struct.pack("<Q", length) + tiny_dense.read_bytes()[8:])
    refusal(lambda: recseg.load(tiny_dense), tiny_dense, "not a safetensors file")


def test_a_huge_sparse_file_asks_for_no_memory(tiny_dense: Path, unread: None) -> None:
    """Four terabytes that the disk does not have: whole as a file, and none of it is read."""
    header, data = parts(tiny_dense)
    header["extra"] = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [len(data), len(data) + (4 << 40)]}
    write(tiny_dense, header, data)
    with open(tiny_dense, "rb+") as stream:
        stream.truncate(tiny_dense.stat().st_size + (4 << 40))
    refusal(lambda: recseg.load(tiny_dense), tiny_dense)


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_cut_short_by_a_few_bytes(tiny_dense: Path, cut: int, unread: None) -> None:
    tiny_dense.write_bytes(tiny_dense.read_bytes()[:-cut])
    refusal(lambda: recseg.load(tiny_dense), tiny_dense, "not a safetensors file")


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("config", {"max_steps": 10**9}, "max_steps"),
        ("config", {"encoder_widths": [1] * 100_000}, "encoder_widths"),
        ("config", {"num_classes": 70_000}, "num_classes"),
        ("classes", ["\x1b[2J", *"abcdefghijklmnopqrst"], "classes"),
    ],
)
def test_text_that_would_hang_or_harm(tiny_recurrent: Path, key: str, change: Any, words: str, unread: None) -> None:
    header, data = parts(tiny_recurrent)
    value = json.loads(header["__metadata__"][key])
    value = value | change if isinstance(change, dict) else change
    if "num_classes" in value:
        header["__metadata__"]["classes"] = json.dumps([str(number) for number in range(value["num_classes"])])
    header["__metadata__"][key] = json.dumps(value)
    write(tiny_recurrent, header, data)
    refusal(lambda: recseg.load(tiny_recurrent), tiny_recurrent, words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite(tiny_dense: Path, value: float) -> None:
    """1e300 is finite in the file and no longer in the network's 32 bits."""
    tensors, text = load_file(tiny_dense), parts(tiny_dense)[0]["__metadata__"]
    tensors["classifier.bias"] = torch.full((21,), value, dtype=torch.float64)
    save_file(tensors, tiny_dense, metadata=text)
    refusal(lambda: recseg.load(tiny_dense), tiny_dense, "classifier.bias", "not finite")


def test_encoder_weights_are_judged_likewise(tmp_path: Path) -> None:
    encoder = Encoder("resnet18")
    file = tmp_path / "resnet.safetensors"
    good = dict(torchvision_network("resnet18").state_dict())
    for change, words in (
        ({"bn1.bias": torch.full((64,), float("nan"))}, "not finite"),
        ({"bn1.bias": torch.zeros(64, dtype=torch.int32)}, "type"),
        ({"bn1.bias": torch.zeros(65)}, "shape"),
        ({"extra": torch.zeros(1)}, "extra"),
    ):
        save_file({**good, **change}, file)
        refusal(lambda: load_encoder_weights(encoder, file), file, words)
    save_file(good, file)
    load_encoder_weights(encoder, file)
    assert torch.equal(encoder.state_dict()["stages.0.0.weight"], good["conv1.weight"])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.safetensors")
    with pytest.raises(recseg.RecsegError, match="not a regular file"), open_tensors(tmp_path / "weights.safetensors"):
        pass


# Archives


def test_archives_that_are_none(tmp_path: Path) -> None:
    """Random bytes and damaged headers: a refusal, never another error, and nothing unpacked."""
    rng = np.random.default_rng(0)
    whole = tmp_path / "whole.tar"
    with tarfile.open(whole, "w") as tar:
        info = tarfile.TarInfo("a/b.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    refused = 0
    for number in range(200):
        content = bytearray(whole.read_bytes())
        for place in rng.integers(0, 512, 4):
            content[place] = rng.integers(256)
        bad = tmp_path / "bad.tar"
        bad.write_bytes(content)
        try:
            extract_tar(bad, tmp_path / f"out{number}" / "deeper")
        except recseg.RecsegError as error:
            refused += str(bad) in str(error)
        assert not (tmp_path / f"out{number}" / "a").exists()
    assert refused > 150


# Nothing is unpickled


UNPICKLING_FORBIDDEN = """
import builtins, pickle, sys, _pickle

def forbidden(*arguments, **options):
    raise AssertionError("something was unpickled")

class Forbidden:
    def __init__(self, *arguments, **options):
        forbidden()

def forbid(torch=None):
    for module in (pickle, _pickle):
        module.load = module.loads = forbidden
        module.Unpickler = Forbidden
    pickle._Unpickler = pickle._load = pickle._loads = Forbidden
    if torch is not None:
        torch.load = torch.serialization.load = forbidden

forbid()
from recseg.cli.main import main  # everything that is imported is imported under the ban
import torch
forbid(torch)
photo, weights, data, out = sys.argv[1:]
assert main(["predict", photo, "--weights", weights, "--out", out, "--gif"]) == 0
assert main(["evaluate", "--weights", weights, "--data", data, "--device", "cpu"]) == 0
train = ["train", "--data", data, "--steps", "1", "--batch-size", "2", "--size", "16", "--workers", "0"]
assert main([*train, "--device", "cpu", "--out", out + "/run"]) == 0
assert main(["train", "--resume", out + "/run"]) == 0
try:
    pickle.loads(b"N.")
except AssertionError:
    print("the ban held")
"""


def test_nothing_is_unpickled(photo: Path, tiny_recurrent: Path, tiny_voc: Path, tmp_path: Path) -> None:
    """Importing, loading, predicting, evaluating, training and going on, where every way to unpickle raises."""
    arguments = [str(path) for path in (photo, tiny_recurrent, tiny_voc, tmp_path / "out")]
    command = [sys.executable, "-c", UNPICKLING_FORBIDDEN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("the ban held\n")


def test_no_source_unpickles() -> None:
    """No line of the package asks for it; torchvision and timm read the weights that they publish, and no others."""
    sources = {path: path.read_text(encoding="utf-8") for path in Path(recseg.__file__).parent.rglob("*.py")}
    for word in ("import pickle", "torch.load(", "np.load(", "allow_pickle", "joblib", "eval(compile", "exec("):
        assert not [path.name for path, text in sources.items() if word in text], word
    for word in ("get_state_dict(", "pretrained=True"):
        assert [path.name for path, text in sources.items() if word in text] == ["encoders.py"], word
    assert checkpoints.FORMAT in sources[Path(checkpoints.__file__)]
