"""Draw masks on moving images: a GIF, a video file or a camera in, a GIF or an MP4 out.

GIFs need only Pillow. Video files and cameras need imageio and its ffmpeg, the extra `recseg[video]`. Each frame is
segmented independently: no state is carried from one frame to the next.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageSequence

from recseg.classes import palette
from recseg.data.images import as_rgb
from recseg.errors import RecsegError
from recseg.files import atomic_write, check_writable
from recseg.inference.predict import predict
from recseg.inference.prediction import Prediction
from recseg.models.model import SegmentationModel
from recseg.viz.plotting import INK, overlay, text, text_width, write_gif

CAMERA_FRAMES = 150  # a camera never ends by itself
KEPT = [(255, 255, 255), *palette(21)[1:].tolist()]  # colours that a GIF keeps exactly: VOC's classes, white
GIF_FRAMES, GIF_SIDE = 300, 640  # a GIF is assembled in memory


@dataclass(frozen=True)
class Clip:
    """A stream of frames, each with its duration in milliseconds."""

    frames: Iterator[tuple[Image.Image, float]]
    name: str


def open_clip(source: str | int) -> Clip:
    """Open a GIF (through Pillow), a video file or a camera (through imageio).

    Args:
        source: path of a file, or the number of a camera, 0 for the first (also as digits, if no file has that name).

    Raises:
        RecsegError: no such file or camera, not a video, or the extra is not installed.
    """
    if isinstance(source, int) or (source.isdigit() and not Path(source).exists()):
        return Clip(_imageio_frames(f"<video{int(source)}>", f"camera {source}"), f"camera {source}")
    path = Path(source)
    if not path.is_file():
        raise RecsegError(f"{source}: {'is a folder' if path.is_dir() else 'no such file'}, expected a GIF or a video")
    with path.open("rb") as stream:
        is_gif = stream.read(3) == b"GIF"
    return Clip(_gif_frames(path) if is_gif else _imageio_frames(str(path), str(path)), str(path))


def _gif_frames(path: Path) -> Iterator[tuple[Image.Image, float]]:
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                # 0 means "as fast as possible", which viewers show as 100 ms.
                yield as_rgb(frame.copy(), str(path)), float(frame.info.get("duration") or 100)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise RecsegError(f"{path}: damaged, cut short or too large ({error})") from error


def _imageio() -> Any:
    try:
        import imageio.v2

        import_module("imageio_ffmpeg")  # imageio itself would fail later, with a long message
    except ImportError as error:
        raise RecsegError("video files and cameras need an extra: pip install 'recseg[video]'") from error
    return imageio.v2


def _imageio_frames(uri: str, name: str) -> Iterator[tuple[Image.Image, float]]:
    imageio = _imageio()
    try:
        # With the plug-in named, so that an image does not pass for a video of one frame.
        with imageio.get_reader(uri, format="FFMPEG") as reader:
            duration = 1000 / (reader.get_meta_data().get("fps") or 25)
            for frame in reader:
                yield Image.fromarray(np.asarray(frame)), duration
    except RecsegError:
        raise
    # imageio raises ffmpeg's errors as various types, with ffmpeg's whole log as the message.
    except Exception as error:
        if uri.startswith("<"):
            raise RecsegError(f"{name}: no such camera, or another program is using it") from error
        raise RecsegError(f"{name}: not a video that ffmpeg can read") from error


def draw(image: Image.Image, prediction: Prediction) -> Image.Image:
    """The frame with its masks overlaid and the steps listed in a corner."""
    frame = overlay(image, prediction.labels, prediction.palette)
    if not prediction.steps:
        return frame
    size = max(13, min(22, image.height // 22))  # letters of 11 pixels at least
    canvas = ImageDraw.Draw(frame)
    for row, step in enumerate(prediction.steps):
        top = 4 + row * (size + 6)
        words = f"{step.name} {step.probability:.0%}"
        width = size + 12 + text_width(words, size * 0.85)
        canvas.rounded_rectangle((4, top, 4 + width, top + size + 3), radius=4, fill="white")
        colour = tuple(prediction.palette[step.class_id])
        canvas.rectangle((8, top + 4, 4 + size, top + size - 1), fill=colour, outline=INK)
        text(canvas, (size + 10, top + size / 2 + 1), words, size=size * 0.85)
    return frame


def segment_video(
    source: str | int,
    model: SegmentationModel,
    out: Path | str,
    *,
    every: int = 1,
    max_frames: int | None = None,
    device: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Segment a video frame by frame and write it with the masks drawn.

    Args:
        source: GIF, video file or camera number.
        model: the network.
        out: `.gif` or `.mp4`.
        every: take every k-th frame, shown k times as long, so that the speed stays the same.
        max_frames: stop after this many frames. By default a file is read to its end and a camera for 150 frames; a GIF
            holds at most 300 frames, of at most 640 pixels a side.
        device: where to run; by default where the model is.
        progress: called with the number of frames done.

    Returns:
        Number of frames written. Ctrl-C ends a camera recording; the frames recorded so far are written.
    """
    out = Path(out)
    if out.suffix.lower() not in (".gif", ".mp4"):
        raise RecsegError(f"{out}: expected a name that ends in .gif or .mp4")
    check_writable(out, reads=[Path(str(source))])
    if every < 1 or (max_frames is not None and max_frames < 1):
        raise RecsegError(f"every {every}, max_frames {max_frames}: expected 1 or more")
    if out.suffix.lower() == ".mp4":
        _imageio()  # before the work, not after it
    clip = open_clip(source)
    camera = clip.name.startswith("camera ")
    limit = max_frames or (CAMERA_FRAMES if camera else None)
    small = out.suffix.lower() == ".gif"
    if small:
        limit = min(limit or GIF_FRAMES, GIF_FRAMES)

    def drawn() -> Iterator[tuple[Image.Image, float]]:
        done = 0
        try:
            for number, (frame, duration) in enumerate(clip.frames):
                if number % every:
                    continue
                if small:
                    frame.thumbnail((GIF_SIDE, GIF_SIDE))
                yield draw(frame, predict(frame, model, device=device)), duration * every
                done += 1
                if progress is not None:
                    progress(done)
                if done == limit:
                    break
        except KeyboardInterrupt:
            if not camera:
                raise

    return _write_gif(drawn(), out, clip.name) if small else _write_mp4(drawn(), out, clip.name)


def _write_gif(frames: Iterator[tuple[Image.Image, float]], out: Path, name: str) -> int:
    taken = list(frames)
    if not taken:
        raise RecsegError(f"{name}: has no frames")
    write_gif([frame for frame, _ in taken], out, [max(20, round(duration)) for _, duration in taken], KEPT)
    return len(taken)


def _write_mp4(frames: Iterator[tuple[Image.Image, float]], out: Path, name: str) -> int:
    first = next(frames, None)
    if first is None:
        raise RecsegError(f"{name}: has no frames")
    frame, duration = first
    count = 0
    with atomic_write(out) as temporary:
        try:
            writer = _imageio().get_writer(
                str(temporary), format="FFMPEG", fps=1000 / duration, macro_block_size=1, codec="libx264"
            )
            with contextlib.closing(writer):
                for frame, _ in itertools.chain([first], frames):
                    pixels = np.asarray(frame)
                    # H.264 needs even sides: an odd last row or column is duplicated, not scaled.
                    pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
                    writer.append_data(pixels)
                    count += 1
        except BrokenPipeError as error:
            raise RecsegError(f"{out}: ffmpeg stopped while writing (disk full?)") from error
    return count
