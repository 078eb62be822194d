"""Moving images: frames in, frames with masks out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import recurrent_model, uninstall
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from recseg.errors import RecsegError
from recseg.inference import video
from recseg.inference.predict import predict


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A GIF of six frames of 33×47 pixels, 80 ms each."""
    frames = [Image.new("RGB", (47, 33), (40 * k, 90, 200 - 30 * k)) for k in range(6)]
    path = tmp_path / "clip.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80)
    return path


def gif_facts(path: Path) -> tuple[int, list[int], tuple[int, int]]:
    with Image.open(path) as gif:
        assert isinstance(gif, GifImageFile)
        durations = []
        for number in range(gif.n_frames):
            gif.seek(number)
            durations.append(int(gif.info["duration"]))
        return gif.n_frames, durations, gif.size


def test_gif_in_gif_out_keeps_size_and_tempo(clip: Path, tmp_path: Path) -> None:
    done: list[int] = []
    assert video.segment_video(str(clip), recurrent_model(), tmp_path / "out.gif", progress=done.append) == 6
    assert gif_facts(tmp_path / "out.gif") == (6, [80] * 6, (47, 33))
    assert done == [1, 2, 3, 4, 5, 6]


def test_transparent_frames_are_laid_over_white_as_images_are(tmp_path: Path) -> None:
    frames = []
    for k in range(3):
        frames.append(Image.new("RGBA", (40, 30), (0, 0, 0, 0)))
        frames[-1].paste((200, 30 * k, 0, 255), (5 * k, 5, 5 * k + 10, 20))
    path = tmp_path / "clear.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], disposal=2, duration=50)
    found = [np.asarray(frame) for frame, _ in video.open_clip(str(path)).frames]
    assert len(found) == 3
    for k, frame in enumerate(found):
        inside = np.zeros((30, 40), dtype=bool)
        inside[5:20, 5 * k : 5 * k + 10] = True
        assert (frame[~inside] == 255).all() and (frame[inside][:, 0] == 200).all()


def test_every_second_frame_stands_twice_as_long(clip: Path, tmp_path: Path) -> None:
    assert video.segment_video(str(clip), recurrent_model(), tmp_path / "out.gif", every=2, max_frames=2) == 2
    assert gif_facts(tmp_path / "out.gif")[:2] == (2, [160, 160])


def test_mp4_out_and_in_again_with_odd_sides(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "out.mp4"
    assert video.segment_video(str(clip), recurrent_model(), out) == 6
    frames = list(video.open_clip(str(out)).frames)
    assert len(frames) == 6 and frames[0][0].size == (48, 34)  # an odd side grows by one
    assert frames[0][1] == pytest.approx(80, rel=0.01)
    assert video.segment_video(str(out), recurrent_model(), tmp_path / "again.gif", max_frames=3) == 3


def test_masks_and_names_are_drawn() -> None:
    image = Image.new("RGB", (120, 90), (90, 90, 90))
    found = predict(image, recurrent_model())
    drawn = np.asarray(video.draw(image, found))
    assert found.steps and (drawn != 90).any()
    assert (drawn[6:12, 20:40] == 255).any()  # the white label of the first step


def test_camera_stops_at_its_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def camera(uri: str, name: str) -> Iterator[tuple[Image.Image, float]]:
        assert uri == "<video0>"
        while True:
            yield Image.new("RGB", (32, 24)), 40.0

    monkeypatch.setattr(video, "_imageio_frames", camera)
    monkeypatch.setattr(video, "CAMERA_FRAMES", 4)
    assert video.segment_video("0", recurrent_model(), tmp_path / "out.gif") == 4


def test_ctrl_c_ends_a_recording_and_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def camera(uri: str, name: str) -> Iterator[tuple[Image.Image, float]]:
        for shade in (10, 200):
            yield Image.new("RGB", (32, 24), (shade, 0, 0)), 40.0
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "_imageio_frames", camera)
    assert video.segment_video(0, recurrent_model(), tmp_path / "out.gif") == 2
    assert gif_facts(tmp_path / "out.gif")[0] == 2


def test_no_camera_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(RecsegError, match="camera 97"):
        video.segment_video(97, recurrent_model(), tmp_path / "out.gif")
    assert not (tmp_path / "out.gif").exists()


@pytest.mark.parametrize("name", ["broken.mp4", "broken.gif"])
def test_broken_files_are_named_and_leave_nothing(tmp_path: Path, name: str) -> None:
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / name).write_bytes((b"GIF89a" if name.endswith("gif") else b"") + b"not a video at all")
    with pytest.raises(RecsegError, match=name):
        video.segment_video(str(tmp_path / name), recurrent_model(), tmp_path / "out.gif")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_older_file_survives_a_clip_that_breaks_off(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gif"
    out.write_bytes(b"older")
    clip.write_bytes(clip.read_bytes()[:-60])
    with pytest.raises(RecsegError, match=r"clip\.gif"):
        video.segment_video(str(clip), recurrent_model(), out)
    assert out.read_bytes() == b"older"


def test_other_endings_are_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RecsegError, match=r"\.gif or \.mp4"):
        video.segment_video(str(clip), recurrent_model(), tmp_path / "out.webm")


def test_without_the_extra_gifs_work_and_the_rest_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, clip: Path, tmp_path: Path
) -> None:
    uninstall("imageio", monkeypatch)
    assert video.segment_video(str(clip), recurrent_model(), tmp_path / "out.gif", max_frames=1) == 1
    with pytest.raises(RecsegError, match=r"recseg\[video\]"):
        video.segment_video(str(clip), recurrent_model(), tmp_path / "out.mp4")
