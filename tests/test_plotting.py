"""Overlays, GIFs and figures: what they show, and that it can be seen."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import uninstall
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from recseg.book import diagrams as drawing
from recseg.classes import VOC_CLASSES, palette
from recseg.errors import RecsegError
from recseg.inference.prediction import Prediction, Step
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.viz import figures, plotting

GREY = Image.new("RGB", (60, 40), (120, 120, 120))


@pytest.fixture
def found() -> Prediction:
    steps = []
    labels = np.zeros((40, 60), dtype=np.uint8)
    for number, label in enumerate((15, 12)):
        mask = np.zeros((40, 60), dtype=bool)
        mask[5:35, 5 + 25 * number : 25 + 25 * number] = True
        labels[mask] = label
        steps.append(Step(label, VOC_CLASSES[label], 0.9, 0.05, mask, float(mask.mean())))
    return Prediction(steps, labels, palette(), 0.97)


def texts(figure: Any) -> list[str]:
    import matplotlib.text

    return [artist.get_text() for artist in figure.findobj(matplotlib.text.Text) if artist.get_text()]


def test_overlay_mixes_colours_and_leaves_background_alone(found: Prediction) -> None:
    pixels = np.asarray(plotting.overlay(GREY, found.labels, alpha=0.5)).astype(int)
    assert (pixels[found.labels == 0] == 120).all()
    inside = (120 + palette()[15].astype(int)) / 2
    assert np.abs(pixels[20, 15] - inside).max() <= 1
    assert (pixels[5, 10] == palette()[15]).all()  # the rim wears the full colour


def test_overlay_is_drawn_in_strips_that_nobody_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (50, 20, 3), dtype=np.uint8)
    labels = generator.integers(0, 3, (50, 20), dtype=np.uint8)
    whole = np.asarray(plotting.overlay(pixels, labels))
    for strip in (1, 7, 25):
        monkeypatch.setattr(plotting, "STRIP", strip)
        assert np.array_equal(np.asarray(plotting.overlay(pixels, labels)), whole)


def test_overlay_refuses_labels_of_another_size(found: Prediction) -> None:
    with pytest.raises(RecsegError, match="40×60.*40×50"):
        plotting.overlay(Image.new("RGB", (50, 40)), found.labels)


def test_outline_is_the_inner_rim() -> None:
    labels = np.zeros((6, 6), dtype=np.uint8)
    labels[1:5, 1:5] = 3
    expected = labels > 0
    expected[2:4, 2:4] = False
    assert np.array_equal(plotting.outline(labels), expected)


def test_gif_adds_a_mask_a_frame_and_ends_with_the_stop(tmp_path: Path, found: Prediction) -> None:
    path = tmp_path / "steps.gif"
    plotting.save_gif(found, GREY, path)
    with Image.open(path) as gif:
        assert isinstance(gif, GifImageFile) and gif.n_frames == 2 + len(found.steps) and gif.info["loop"] == 0
        durations, frames = [], []
        for number in range(gif.n_frames):
            gif.seek(number)
            durations.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert durations == [900, 1300, 1300, 2500]
    factor = 6  # 60 pixels wide, grown by a whole factor to at most 400
    spots = [(20 * factor, 15 * factor), (20 * factor, 40 * factor)]
    changed = [[bool(np.abs(frame[spot] - 120).max() > 10) for spot in spots] for frame in frames]
    assert changed == [[False, False], [True, False], [True, True], [True, True]]
    assert path.stat().st_size < 30_000


def test_gif_of_no_step_shows_picture_and_stop(tmp_path: Path) -> None:
    empty = Prediction([], np.zeros((40, 60), dtype=np.uint8), palette(), 0.99)
    plotting.save_gif(empty, GREY, tmp_path / "empty.gif")
    with Image.open(tmp_path / "empty.gif") as gif:
        assert isinstance(gif, GifImageFile) and gif.n_frames == 2


def test_gif_keeps_the_colour_of_a_class_that_comes_late(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.random.default_rng(k).integers(0, 80, (30, 30, 3), dtype=np.uint8)) for k in range(3)]
    frames.append(Image.new("RGB", (30, 30), (0, 192, 0)))
    plotting.write_gif(frames, tmp_path / "late.gif", [100] * 4)
    with Image.open(tmp_path / "late.gif") as gif:
        gif.seek(3)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - (0, 192, 0)).max() < 8


def test_step_strip_has_a_panel_for_picture_steps_and_label_map(found: Prediction) -> None:
    figure = plotting.step_strip(GREY, found)
    assert [axes.get_title() for axes in figure.axes] == ["image", "1  person 90%", "2  dog 90%", "fused (stop 97%)"]


def test_html_has_the_picture_and_its_alt_text(found: Prediction) -> None:
    markup = plotting.to_html(plotting.step_strip(GREY, found), 'two steps: "person" & dog')
    assert 'alt="two steps: &quot;person&quot; &amp; dog"' in markup
    data = re.search(r"base64,([^\"]+)", markup)
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as image:
        assert image.format == "PNG" and image.width > 500
    with pytest.raises(RecsegError, match="alt text"):
        plotting.to_html(GREY, "  ")


def test_html_has_the_smaller_of_two_drawings() -> None:
    lines, noise = plotting.new_figure(4, 3), plotting.new_figure(4, 3)
    lines.subplots().plot([0, 1])
    noise.subplots().scatter(*np.random.default_rng(0).random((2, 3000)))
    assert 'src="data:image/svg+xml;base64,' in plotting.to_html(lines, "a line")
    assert plotting.to_html(lines, "a line") == plotting.to_html(lines, "a line")
    assert 'src="data:image/png;base64,' in plotting.to_html(noise, "dots")


def test_html_of_a_gif_keeps_it_moving(tmp_path: Path, found: Prediction) -> None:
    plotting.save_gif(found, GREY, tmp_path / "steps.gif")
    assert 'src="data:image/gif;base64,R0lGOD' in plotting.to_html(tmp_path / "steps.gif", "the steps")
    with pytest.raises(RecsegError, match=r"absent\.gif"):
        plotting.to_html(tmp_path / "absent.gif", "nothing")


def test_show_displays_once_and_closes_a_pyplot_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    figure = pyplot.figure()
    plotting.show(figure, "an empty figure")
    assert len(shown) == 1 and "an empty figure" in shown[0].data
    assert not pyplot.fignum_exists(figure.number)


def test_bars_show_each_class_in_its_colour_and_say_where_there_is_none() -> None:
    scores: dict[str, dict[str, float | None]] = {
        "accuracy": {"cat": 0.5, "dog": 1.0},
        "IoU": {"cat": 0.25, "dog": None},
    }
    figure = figures.class_bars(scores)
    assert {"50", "100", "25", "none", "cat", "dog"} <= set(texts(figure))
    assert any("mean 75.0" in text for text in texts(figure))
    first = figure.axes[0].patches[0]
    assert np.allclose(first.get_facecolor()[:3], palette()[8] / 255)


def test_learning_curves_draw_each_run_and_skip_rows_without_the_value(tmp_path: Path) -> None:
    logs = {}
    for name in ("recurrent", "dense"):
        rows = [{"step": step, "loss": 1 / (1 + step)} for step in range(5)] + [{"step": 5, "miou": 0.3}]
        logs[name] = tmp_path / f"{name}.jsonl"
        logs[name].write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 6, "lo')  # cut off by an interruption
    figure = figures.learning_curves(logs)
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["recurrent", "dense"]
    assert all(np.shape(line.get_xdata()) == (5,) for line in lines)
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len({colour for colour, _ in looks}) == len({dash for _, dash in looks}) == 2
    smooth = figures.learning_curves(logs, smooth=5).axes[0].get_lines()[0]
    assert smooth.get_ydata() == pytest.approx([np.mean([1 / (1 + step) for step in range(5)])])


def test_logs_that_cannot_be_drawn_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(RecsegError, match=r"log\.jsonl"):
        figures.learning_curves({"run": log})
    log.write_text('{"step": 1}\n')
    with pytest.raises(RecsegError, match="'step' and 'loss'"):
        figures.learning_curves({"run": log})
    log.write_text('nonsense\n{"step": 1}\n')
    with pytest.raises(RecsegError, match="line 1"):
        figures.read_log(log)


def test_legend_names_every_label() -> None:
    words = " ".join(texts(figures.palette_legend()))
    assert all(f"{label} {name}" in words for label, name in enumerate(VOC_CLASSES)) and "255 void" in words


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        (UNetConfig(), ["16 × 64 × 64", "192 × 4 × 4", "96 × 8 × 8", "40 × 32 × 32", "21 × 32 × 32"]),
        (
            UNetConfig(num_classes=3, encoder="mobilenet_v2", decoder_widths=(9, 8)),
            ["16 × 32 × 32", "320 × 2 × 2", "9 × 4 × 4", "8 × 8 × 8", "3 × 8 × 8"],
        ),
    ],
    ids=["plain", "mobilenet_v2"],
)
def test_u_net_shows_the_shape_of_each_map(config: UNetConfig, shapes: list[str]) -> None:
    words = texts(drawing.u_net(config, side=64))
    assert set(shapes) <= set(words)
    assert words.count("skip connection") == len(config.decoder_widths)


@pytest.mark.parametrize(
    "options", [{}, {"max_steps": 1}, {"encoder": "mobilenet_v2", "reduced": 48}, {"max_steps": 4, "hidden": 7}]
)
def test_architecture_follows_its_configuration(options: dict[str, Any]) -> None:
    config = RecurrentUNetConfig(**options)
    words = texts(drawing.architecture(config))
    cells = [text for text in words if "ConvLSTM" in text]
    assert cells[0].endswith("step 1") and cells[-1].endswith(str(config.max_steps))
    assert f"encoder: {config.encoder}" in words
    assert any(text.startswith("decoder, once") for text in words)
    assert any(f"reduced to {config.reduced} channels" in text for text in words)


@pytest.mark.parametrize("gates", [None, "", "i", "if", "ifo"])
def test_a_recurrent_cell_shows_its_gates_and_no_others(gates: str | None) -> None:
    words = texts(drawing.recurrent_cell(gates))
    assert [gate for gate in "ifo" if f"${gate}_t$: σ" in words] == list(gates or "")
    assert ("$c_t$" in words) == (gates is not None)  # a plain cell has no cell state
    assert words.count("×") == len(gates or "")


def test_no_label_is_too_small_to_read() -> None:
    figure = plotting.new_figure(2, 2)
    axes = figure.subplots()
    small, large = axes.set_title("a", fontsize=4), axes.text(0, 0, "b", fontsize=14)
    axes.set_xticks([0, 1], ["c", "d"], fontsize=6)
    plotting.to_html(figure, "Labels.")
    assert small.get_fontsize() == axes.get_xticklabels()[0].get_fontsize() == plotting.SMALLEST
    assert large.get_fontsize() == 14


def test_without_matplotlib_figures_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch, found: Prediction) -> None:
    uninstall("matplotlib", monkeypatch)
    with pytest.raises(RecsegError, match="pip install"):
        plotting.step_strip(GREY, found)
    plotting.overlay(GREY, found.labels)  # Pillow will do


def test_describe_is_a_sentence(found: Prediction) -> None:
    assert plotting.describe(found).startswith("2 steps: person (90%")
