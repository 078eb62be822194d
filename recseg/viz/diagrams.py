"""The networks, drawn by code from their configurations: the figures of chapters 3 and 4 cannot fall behind them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from recseg.classes import palette as voc_palette
from recseg.models.config import RecurrentUNetConfig, UNetConfig
from recseg.models.encoders import Encoder
from recseg.viz.plotting import FAINT, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
EXAMPLE = (("person", 15, 0.97), ("dog", 12, 0.91))  # what the drawn network finds in the drawn image


def u_net(config: UNetConfig | None = None, *, side: int = 80) -> "Figure":
    """The U-Net, drawn from its configuration, with the shape of each map for an image of side × side pixels.

    Args:
        config: what it is made of.
        side: a multiple of the deepest stride.
    """
    config = config or UNetConfig()
    with torch.device("meta"):  # only its shape is asked for: no weights, no memory
        encoder = Encoder(config.encoder, config.encoder_widths)
    deepest = len(encoder.channels) - 1
    figure = new_figure(8.8, 0.78 * (deepest + 2))
    pen = _Pen(figure.subplots(), size=10)

    def shape(channels: int, stride: int) -> str:
        return f"{channels} × {side // stride} × {side // stride}"

    left, middle, right, width, half = 2.0, 5.2, 8.4, 2.3, 0.32
    pen.scene(left, deepest + 1.1, 0.5, [index for _, index, _ in EXAMPLE])
    pen.note(left - 0.7, deepest + 1.1, shape(3, 1), "right")
    for level, (channels, stride) in enumerate(zip(encoder.channels, encoder.strides, strict=True)):
        x, y = (middle if level == deepest else left), deepest - level
        pen.box(x, y, width, 2 * half, shape(channels, stride), BLUE)
        if level < deepest:
            pen.arrow(left, y + (0.6 if level == 0 else 1 - half), left, y + half)
    pen.line([(left, 1 - half), (left, 0)])
    pen.arrow(left, 0, middle - width / 2, 0)
    pen.line([(middle + width / 2, 0), (right, 0)])
    for block, channels in enumerate(config.decoder_widths):
        y, stride = block + 1, encoder.strides[deepest - 1 - block]
        pen.box(right, y, width, 2 * half, shape(channels, stride), GREEN)
        pen.arrow(left + width / 2, y, right - width / 2, y, FAINT)
        pen.note(middle, y + 0.2, "skip connection", "center", FAINT)
        pen.arrow(right, y - (1 if block == 0 else 1 - half), right, y - half)
    top = len(config.decoder_widths)
    pen.box(right, top + 1, width, 2 * half, shape(config.num_classes, encoder.strides[deepest - top]), VERMILION)
    pen.arrow(right, top + half, right, top + 1 - half)
    pen.arrow(right, top + 1 + half, right, top + 1.6)
    pen.scene(right, top + 2.1, 0.5, [index for _, index, _ in EXAMPLE], mask=True)
    pen.note(right + 0.7, top + 2.1, f"{side} × {side}", "left")
    return figure


def architecture(config: RecurrentUNetConfig | None = None) -> "Figure":
    """The recurrent U-Net, drawn from its configuration: encoder, decoder, recurrence unrolled, what each step emits.

    The drawn image has two classes, so two steps emit a mask, the third says stop, and later ones never run.
    """
    config = config or RecurrentUNetConfig()
    with torch.device("meta"):  # only its shape is asked for: no weights, no memory
        encoder = Encoder(config.encoder, config.encoder_widths)
    blocks = len(config.decoder_widths)
    levels = len(encoder.channels)
    finest = levels - 1 - blocks
    heights = [1.3 * (levels - 1 - level) + 2.4 for level in range(levels)]  # y of each level, deepest at the bottom
    top = heights[finest]
    figure = new_figure(0.56 * (8.0 + 1.75 * config.max_steps), 0.56 * (heights[0] + 1.1))
    pen = _Pen(figure.subplots())

    pen.scene(2.0, heights[0] + 1.15, 0.55, [index for _, index, _ in EXAMPLE])
    pen.arrow(2.0, heights[0] + 0.6, 2.0, heights[0] + 0.27)
    for level, (channels, stride) in enumerate(zip(encoder.channels, encoder.strides, strict=True)):
        pen.box(2.0, heights[level], max(1.1, 3.2 * 0.76**level), 0.5, f"{channels} at 1/{stride}", BLUE)
        if level:
            pen.arrow(2.0, heights[level - 1] - 0.25, 2.0, heights[level] + 0.27)
    pen.note(2.15, heights[0] + 0.43, f"encoder: {config.encoder}", "left")

    first = 8.4
    live = min(len(EXAMPLE), config.max_steps)
    for block, channels in enumerate(config.decoder_widths):
        level = levels - 2 - block
        width = max(1.1, 3.2 * 0.76**level)
        pen.box(5.6, heights[level], width, 0.5, f"{channels} at 1/{encoder.strides[level]}", GREEN)
        pen.arrow(2.0 + max(1.1, 3.2 * 0.76**level) / 2, heights[level], 5.6 - width / 2, heights[level], FAINT)
        pen.arrow(5.6, heights[level + 1] + 0.25, 5.6, heights[level] - 0.27)
    pen.line([(2.55, heights[-1]), (5.6, heights[-1]), (5.6, heights[-1] + 0.25)])
    pen.note(5.6, top + 0.42, "decoder, once: pixel embedding E", "center")
    pen.line([(5.6 + max(1.1, 3.2 * 0.76**finest) / 2, top), (first + 1.75 * (live - 1), top)], GREEN)
    pen.note(first - 0.7, top - 0.25, "E", "center", GREEN)

    bus = heights[-1] - 1.0
    pen.line([(2.0, heights[-1] - 0.25), (2.0, bus), (first + 1.75 * (min(live + 1, config.max_steps) - 1), bus)], BLUE)
    beside = 2.0 - max(1.1, 3.2 * 0.76 ** (levels - 2)) / 2
    pen.line([(beside, heights[-2]), (0.8, heights[-2]), (0.8, bus), (2.0, bus)], BLUE)
    words = f"x: the two deepest maps, reduced to {config.reduced} channels at 1/{encoder.strides[-2]}"
    pen.note(2.2, bus - 0.28, f"{words}; their part of the gates is computed once", "left")
    for step in range(config.max_steps):
        x = first + 1.75 * step
        run = step <= live  # one step after the last mask, to say stop
        pen.box(x, heights[-1], 1.15, 0.62, f"ConvLSTM\nstep {step + 1}", ORANGE if run else FAINT, dashed=not run)
        if step:
            pen.arrow(x - 1.17, heights[-1], x - 0.59, heights[-1], ORANGE if run else FAINT)
            pen.note(x - 0.875, heights[-1] + 0.2, "h, c", "center", INK if run else FAINT)
        if not run:
            pen.note(x, heights[-1] + 0.6, "not run", "center", FAINT)
            continue
        pen.arrow(x, bus, x, heights[-1] - 0.33, BLUE)
        pen.arrow(x, heights[-1] + 0.31, x, heights[-1] + 0.78)
        pen.box(x, heights[-1] + 1.0, 1.15, 0.4, "stop 96 %" if step == live else "stop 2 %", VERMILION)
        if step < live:
            _step_outputs(pen, x, heights[-1] + 1.2, top, config, *EXAMPLE[step])
            if step + 1 < config.max_steps:  # what the masks so far have covered
                beside, above = x + 0.82, heights[-1] + 0.52
                pen.line([(x + 0.55, top + 0.85), (beside, top + 0.85), (beside, above)], FAINT, dashed=True)
                pen.arrow(beside, above, x + 1.4, heights[-1] + 0.33, FAINT, dashed=True)
                if step == live - 1:
                    pen.note(beside + 0.1, heights[-1] + 1.86, "coverage", "left", FAINT)
    if config.max_steps > live:
        x = first + 1.75 * live + 0.3
        pen.arrow(x - 1.4, top + 1.1, x - 0.6, top + 1.1)
        pen.scene(x, top + 1.1, 0.55, [label for _, label, _ in EXAMPLE[:live]], mask=True)
        pen.note(x, top + 1.85, "label map", "center")
    return figure


def _step_outputs(
    pen: "_Pen", x: float, y: float, top: float, config: RecurrentUNetConfig, name: str, label: int, probability: float
) -> None:
    """What a live step emits, above its stop: query, mask, class."""
    pen.arrow(x, y, x, y + 0.38)
    pen.box(x, y + 0.6, 1.15, 0.4, f"query, {config.decoder_widths[-1]}", GREEN)
    pen.arrow(x, y + 0.8, x, top - 0.17)
    pen.dot(x, top)
    pen.arrow(x, top + 0.15, x, top + 0.55)
    pen.scene(x, top + 1.1, 0.55, [label], mask=True)
    pen.note(x, top + 1.85, f"{name} {probability:.0%}", "center")


class _Pen:
    """The few shapes that the architecture is made of, in data units."""

    def __init__(self, axes: "Axes", size: float = 7.5) -> None:
        self.axes, self.size = axes, size  # of the words, in points
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.margins(0.012)

    def box(
        self, x: float, y: float, width: float, height: float, words: str, colour: str, *, dashed: bool = False
    ) -> None:
        """A rounded box around (x, y): tinted, with a rim of its colour and dark words."""
        from matplotlib.colors import to_rgba
        from matplotlib.patches import FancyBboxPatch

        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=to_rgba(colour, 0.0 if dashed else 0.18), edgecolor=colour, linestyle="--" if dashed else "-",
                linewidth=1.2,
            )
        )  # fmt: skip
        self.note(x, y, words, "center", FAINT if dashed else INK)

    def note(self, x: float, y: float, words: str, align: str, colour: str = INK) -> None:
        """Words at (x, y)."""
        self.axes.text(x, y, words, ha=align, va="center", fontsize=self.size, color=colour, linespacing=1.1)

    def line(self, points: Sequence[tuple[float, float]], colour: str = INK, *, dashed: bool = False) -> None:
        """A line through points."""
        style = "--" if dashed else "-"
        self.axes.plot(
            *zip(*points, strict=True), color=colour, linewidth=1.3, linestyle=style, solid_joinstyle="round", zorder=0
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float, colour: str = INK, *, dashed: bool = False) -> None:
        """An arrow from (x, y) to (to_x, to_y)."""
        style = {
            "arrowstyle": "-|>",
            "color": colour,
            "linewidth": 1.2,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 9,
        }
        style["linestyle"] = "--" if dashed else "-"
        self.axes.annotate("", (to_x, to_y), (x, y), arrowprops=style)

    def dot(self, x: float, y: float) -> None:
        """An inner product."""
        self.axes.plot(x, y, marker="o", markersize=11, color="white", markeredgecolor=GREEN, markeredgewidth=1.3)
        self.axes.plot(x, y, marker="o", markersize=3, color=GREEN)

    def scene(self, x: float, y: float, half: float, labels: Sequence[int], *, mask: bool = False) -> None:
        """A square with a person, a dog, or both."""
        from matplotlib.patches import Ellipse, Rectangle

        ground = "#20242a" if mask else "#dfe7ee"
        self.axes.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, facecolor=ground, edgecolor=INK))
        shapes = {
            15: [
                (-0.35, 0.42, 0.34, 0.38),
                (-0.35, -0.2, 0.5, 0.95),
                (-0.47, -0.7, 0.17, 0.5),
                (-0.23, -0.7, 0.17, 0.5),
            ],
            12: [
                (0.3, -0.45, 0.75, 0.36),
                (0.68, -0.15, 0.34, 0.32),
                (0.05, -0.72, 0.12, 0.42),
                (0.55, -0.72, 0.12, 0.42),
            ],
        }
        colours = voc_palette() / 255
        for label in labels:
            for dx, dy, width, height in shapes[label]:
                centre = (x + dx * half, y + dy * half)
                patch = Ellipse(centre, width * half, height * half, facecolor=tuple(colours[label]))
                self.axes.add_patch(patch)
