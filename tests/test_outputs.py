"""Where outputs go: regular files are replaced whole, links are followed, devices and pipes are written into.

And no command writes over what it reads.
"""

import contextlib
import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Refuses, refusal
from PIL import Image

from recseg.cli.main import main
from recseg.data.folder import SegmentationFolder
from recseg.data.pack import write_pack
from recseg.files import STDOUT, atomic_write, check_folder, check_writable
from recseg.inference.video import segment_video
from recseg.weights.io import load

posix = pytest.mark.skipif(sys.platform == "win32", reason="no pipes and devices among files on Windows")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = [Image.new("RGB", (32, 24), (60 * number, 0, 0)) for number in range(3)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=50)
    return tmp_path / "clip.gif"


@pytest.fixture
def evaluate(tiny_voc: Path, tiny_dense: Path) -> list[object]:
    return ["evaluate", "--weights", tiny_dense, "--data", tiny_voc, "--limit", 1, "--device", "cpu"]


def ran(arguments: list[object]) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def descriptor_1(file: int) -> Any:
    """The process's standard output goes to an open file for a while."""
    before = os.dup(1)
    try:
        os.dup2(file, 1)
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


# Links, devices, pipes, standard output


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, there: bool) -> None:
    target, middle, link = tmp_path / "below" / "real.txt", tmp_path / "middle.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    middle.symlink_to(Path("below", "real.txt"))
    link.symlink_to(middle)
    check_writable(link)
    write(link)
    assert link.is_symlink() and middle.is_symlink() and target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["real.txt"]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    refusal(lambda: check_writable(tmp_path / "one"), "one", "link")
    refusal(lambda: write(tmp_path / "one"), "one", "link")
    assert (tmp_path / "one").is_symlink()
    (tmp_path / "out").symlink_to("absent")
    refusal(lambda: check_folder(tmp_path / "out", "--out"), "--out", "absent", "link")


@posix
def test_a_device_is_written_into(tmp_path: Path) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # the same as /dev/null
    except OSError as error:
        pytest.skip(f"no device can be made here ({error})")
    check_writable(node)
    write(node)
    assert stat.S_ISCHR(node.stat().st_mode)
    assert list(tmp_path.iterdir()) == [node]


@posix
def test_devices_are_no_matter_of_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path("/dev") and real(path, mode))
    check_writable(Path("/dev/null"))  # its folder is closed to most


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_takes_nothing_is_named() -> None:
    refusal(lambda: write(Path("/dev/full")), "/dev/full", "No space left")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@posix
def test_a_pipe_is_written_into(tmp_path: Path, evaluate: list[object]) -> None:
    pipe, came = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: came.append(pipe.read_text()), daemon=True)
    reader.start()
    ran([*evaluate, "--json", pipe])
    reader.join(timeout=60)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and json.loads(came[0])["images"] == 1


@posix
def test_every_output_goes_the_same_way(
    tmp_path: Path, tiny_voc: Path, tiny_dense: Path, photo: Path, clip: Path
) -> None:
    """Label maps, overlays, animations, packs and exported graphs: each is written through a link, into its target."""
    out, real = tmp_path / "out", tmp_path / "real"
    out.mkdir()
    real.mkdir()
    names = ["photo-overlay.png", "photo-labels.png", "photo.gif", "clip.gif", "data.pack"]
    for name in names:
        (out / name).symlink_to(real / name)
    weights: list[object] = ["--weights", tiny_dense, "--device", "cpu"]
    ran(["predict", photo, *weights, "--out", out, "--gif"])
    ran(["video", clip, *weights, "--out", out / "clip.gif"])
    ran(["data", "pack", "--data", tiny_voc, "--size", 16, "--out", out / "data.pack"])
    for name in names:
        assert (out / name).is_symlink() and (real / name).stat().st_size > 0, name


@posix
def test_standard_output_by_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is a regular file, which is written on, not replaced."""
    with open(tmp_path / "shown.txt", "wb") as shown, descriptor_1(shown.fileno()), open(1, "w", closefd=False) as out:
        monkeypatch.setattr(sys, "stdout", out)
        out.write("before ")
        write(Path("/dev/stdout"), "one ")
        write(Path("/dev/fd/1"), "two ")
        write(tmp_path / "shown.txt", "three ")
        out.write("after")
    assert (tmp_path / "shown.txt").read_text() == "before one two three after"
    assert STDOUT.is_symlink()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_dash_is_standard_output(
    command: str, evaluate: list[object], tiny_dense: Path, photo: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The report alone stands there; what the command says beside it goes to standard error."""
    monkeypatch.chdir(tmp_path)
    predict = ["predict", photo, "--weights", tiny_dense, "--out", tmp_path / "out", "--device", "cpu"]
    arguments = {"evaluate": evaluate, "predict": predict}[command]
    ran([*arguments, "--json", "-"])
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["images"] == 1 if command == "evaluate" else report[0]["file"] == str(photo)
    assert ("mIoU" if command == "evaluate" else "photo-labels.png") in shown.err
    assert not (tmp_path / "-").exists()
    ran([*arguments, "--json", "./-"])  # as one names a file that is called so
    assert json.loads((tmp_path / "-").read_text()) and capsys.readouterr().out


def test_a_folder_is_not_called_dash(tiny_voc: Path, tiny_dense: Path, photo: Path, refuses: Refuses) -> None:
    refuses(["predict", photo, "--weights", tiny_dense, "--out", "-"], "--out", "folder", "./-")
    refuses(["train", "--data", tiny_voc, "--out", "-"], "--out", "folder", "./-")


def test_a_name_that_must_be_new_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def new(path: Path, text: str) -> None:
        with atomic_write(path, new=True) as temporary:
            temporary.write_text(text)

    def no_links(*_: object) -> None:
        raise PermissionError("a file system without hard links")

    for name in ("linked", "created"):
        new(tmp_path / name, "first")
        with pytest.raises(FileExistsError):
            new(tmp_path / name, "second")
        assert (tmp_path / name).read_text() == "first"
        monkeypatch.setattr(os, "link", no_links)
    assert {path.name for path in tmp_path.iterdir()} == {"linked", "created"}


# Outputs that are inputs

SPELLINGS: dict[str, Callable[[Path], Path]] = {
    "as it is": lambda path: path,
    "by a detour": lambda path: path.parent / "detour" / ".." / path.name,
    "by a link": lambda path: path.with_name("link" + path.suffix),
    "by another name": lambda path: path.with_name("twin" + path.suffix),
}


@pytest.fixture(params=SPELLINGS)
def spelled(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """The same file under another name."""

    def spell(path: Path) -> Path:
        path.parent.joinpath("detour").mkdir(exist_ok=True)
        other = SPELLINGS[request.param](path)
        if request.param == "by a link":
            other.symlink_to(path)
        elif request.param == "by another name":
            os.link(path, other)
        return other

    return spell


def test_a_video_keeps_its_source(
    clip: Path, tiny_dense: Path, spelled: Callable[[Path], Path], refuses: Refuses
) -> None:
    out = spelled(clip)
    refuses(["video", clip, "--weights", tiny_dense, "--out", out], out.name, "read from")
    refusal(lambda: segment_video(str(clip), load(tiny_dense), out), out.name, "read from")
    film = clip.with_suffix(".mp4")
    film.write_bytes(b"of a camera")
    refuses(["video", film, "--weights", tiny_dense, "--out", film], "clip.mp4", "read from")


def test_a_report_keeps_what_was_scored(
    evaluate: list[object], tiny_voc: Path, tiny_dense: Path, tmp_path: Path, spelled: Callable[[Path], Path],
    refuses: Refuses,
) -> None:  # fmt: skip
    (tiny_voc / "classes.txt").write_text("".join(f"{number}\n" for number in range(21)))
    read = [
        tiny_dense, tiny_voc / "classes.txt", tiny_voc / "ImageSets" / "Segmentation" / "val.txt",
        tiny_voc / "JPEGImages" / "tiny_3.jpg", tiny_voc / "SegmentationClass" / "tiny_2.png",
    ]  # fmt: skip
    for path in read:
        out = spelled(path)
        refuses([*evaluate, "--json", out], out.name, "read from")
    pack = write_pack(SegmentationFolder(tiny_voc, "val"), tmp_path / "val.pack", 16, progress=False)
    start = ["evaluate", "--weights", tiny_dense, "--data", pack]
    out = spelled(pack)
    refuses([*start, "--json", out], out.name, "read from")
    run = tmp_path / "run"
    run.mkdir()
    (run / "weights.safetensors").write_bytes(tiny_dense.read_bytes())
    out = spelled(run / "weights.safetensors")
    refuses(["evaluate", "--weights", run, "--data", tiny_voc, "--json", out], out.name, "read from")


def test_predictions_keep_images_and_weights(
    photo: Path, tiny_dense: Path, tmp_path: Path, spelled: Callable[[Path], Path], refuses: Refuses
) -> None:
    start = ["predict", photo, "--weights", tiny_dense, "--out", tmp_path / "out"]
    for path in (photo, tiny_dense):
        report = spelled(path)
        refuses([*start, "--json", report], report.name, "read from")
    out = tmp_path / "other"
    out.mkdir()
    (out / "photo-labels.png").symlink_to(photo)
    refuses(["predict", photo, "--weights", tiny_dense, "--out", out], "photo-labels.png", "read from")


def test_two_outputs_are_not_one_file(photo: Path, tiny_dense: Path, tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "out"
    start = ["predict", photo, "--weights", tiny_dense, "--out", out]
    refuses([*start, "--json", out / "x" / ".." / "photo-labels.png"], "photo-labels.png", "two")


def test_an_export_keeps_the_weights(tiny_dense: Path, tiny_voc: Path, tmp_path: Path, refuses: Refuses) -> None:
    for name in ("a.onnx", "b.step.onnx"):
        (tmp_path / name).symlink_to(tiny_dense)
    refuses(["export", "--weights", tiny_dense, "--onnx", tmp_path / "a.onnx"], "a.onnx", "read from")
    refuses(["export", "--weights", tiny_dense, "--onnx", tmp_path / "b.onnx"], "b.step.onnx", "read from")
    (tmp_path / "c.onnx").symlink_to(tiny_voc / "SegmentationClass" / "tiny_0.png")
    calibrated = ["--int8", "--calibrate", tiny_voc]
    refuses(["export", "--weights", tiny_dense, "--onnx", tmp_path / "c.onnx", *calibrated], "c.onnx", "read from")


def test_a_pack_keeps_what_it_is_made_of(tiny_voc: Path, tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "data.pack").symlink_to(tiny_voc / "SegmentationClass" / "tiny_0.png")
    refuses(["data", "pack", "--data", tiny_voc, "--size", 16, "--out", tmp_path / "data.pack"], "data.pack", "read")


def test_a_benchmark_keeps_its_reference(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "network.tflite").write_bytes(b"of others")
    same = tmp_path / "x" / ".." / "network.tflite"
    (tmp_path / "x").mkdir()
    refuses(["benchmark", "--reference", tmp_path / "network.tflite", "--json", same], "network.tflite", "read from")


def test_a_comparison_keeps_the_weights_that_it_reads(tmp_path: Path, refuses: Refuses) -> None:
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(b"of a run")
    words = ["compare", "--group", "one", weights, "--data", "pictograms", "--json"]
    refuses([*words, weights], "a.safetensors", "read from")
    refuses([*words, "-"], "--json -", "two files")
