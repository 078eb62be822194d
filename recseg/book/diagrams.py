"""Diagrams drawn by code: the networks, from their configurations, and one step of a recurrent cell."""

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
BOX = 1.45  # width of the boxes of a step
EXAMPLE = (("person", 15, 0.97), ("dog", 12, 0.91))  # what the network finds in the example image


def u_net(config: UNetConfig | None = None, *, side: int = 80) -> "Figure":
    """The U-Net, drawn from its configuration, with the shape of each map for an image of side × side pixels.

    Args:
        config: of the network.
        side: a multiple of the deepest stride.
    """
    config = config or UNetConfig()
    with torch.device("meta"):  # only shapes are needed: no weights, no memory
        encoder = Encoder(config.encoder, config.encoder_widths)
    deepest = len(encoder.channels) - 1
    figure = new_figure(8.8, 0.78 * (deepest + 2))
    pen = _Pen(figure.subplots())

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
    """The recurrent U-Net, drawn from its configuration: encoder, decoder, unrolled recurrence, outputs of each step.

    The example image has two classes, so two steps emit a mask, the third stops, and later ones do not run.
    """
    config = config or RecurrentUNetConfig()
    with torch.device("meta"):  # only shapes are needed: no weights, no memory
        encoder = Encoder(config.encoder, config.encoder_widths)
    blocks = len(config.decoder_widths)
    levels = len(encoder.channels)
    finest = levels - 1 - blocks
    heights = [1.3 * (levels - 1 - level) + 2.4 for level in range(levels)]  # y of each level, deepest at the bottom
    top = heights[finest]
    wide = [max(1.75, 3.2 * 0.76**level) for level in range(levels)]  # of each level's boxes
    live = min(len(EXAMPLE), config.max_steps)
    shown, apart = min(live + 2, config.max_steps), 2.12  # one step that stops, one that is not run
    figure = new_figure(0.56 * (8.2 + apart * shown), 0.56 * (heights[0] + 1.5))
    pen = _Pen(figure.subplots())

    pen.scene(2.0, heights[0] + 1.15, 0.55, [index for _, index, _ in EXAMPLE])
    pen.arrow(2.0, heights[0] + 0.6, 2.0, heights[0] + 0.27)
    for level, (channels, stride) in enumerate(zip(encoder.channels, encoder.strides, strict=True)):
        pen.box(2.0, heights[level], wide[level], 0.5, f"{channels} at 1/{stride}", BLUE)
        if level:
            pen.arrow(2.0, heights[level - 1] - 0.25, 2.0, heights[level] + 0.27)
    pen.note(2.15, heights[0] + 0.43, f"encoder: {config.encoder}", "left")

    first = 8.4
    for block, channels in enumerate(config.decoder_widths):
        level = levels - 2 - block
        pen.box(5.6, heights[level], wide[level], 0.5, f"{channels} at 1/{encoder.strides[level]}", GREEN)
        pen.arrow(2.0 + wide[level] / 2, heights[level], 5.6 - wide[level] / 2, heights[level], FAINT)
        pen.arrow(5.6, heights[level + 1] + 0.25, 5.6, heights[level] - 0.27)
    pen.line([(2.0 + wide[-1] / 2, heights[-1]), (5.6, heights[-1]), (5.6, heights[-1] + 0.25)])
    pen.note(5.6, top + 0.42, "decoder, once: pixel embedding E", "center")
    pen.line([(5.6 + wide[finest] / 2, top), (first + apart * (live - 1), top)], GREEN)
    pen.note(first - 0.7, top - 0.25, "E", "center", GREEN)

    bus = heights[-1] - 1.0
    pen.axes.set_ylim(bottom=bus - 0.5)  # text does not extend the axes
    pen.line([(2.0, heights[-1] - 0.25), (2.0, bus), (first + apart * (min(live + 1, shown) - 1), bus)], BLUE)
    beside = 2.0 - wide[-2] / 2
    pen.line([(beside, heights[-2]), (0.8, heights[-2]), (0.8, bus), (2.0, bus)], BLUE)
    words = f"x: the two deepest maps, reduced to {config.reduced} channels at 1/{encoder.strides[-2]}"
    pen.note(2.2, bus - 0.28, f"{words}; their part of the gates is computed once", "left")
    for step in range(shown):
        x = first + apart * step
        run = step <= live  # one step after the last mask, which stops
        name = f"steps {shown}–{config.max_steps}" if step + 1 == shown < config.max_steps else f"step {step + 1}"
        pen.box(x, heights[-1], BOX, 0.72, f"ConvLSTM\n{name}", ORANGE if run else FAINT, dashed=not run)
        if step:
            pen.arrow(x - apart + BOX / 2, heights[-1], x - BOX / 2, heights[-1], ORANGE if run else FAINT)
            pen.note(x - apart / 2, heights[-1] + 0.22, "h, c", "center", INK if run else FAINT)
        if not run:
            pen.note(x, heights[-1] + 0.6, "not run", "center", FAINT)
            continue
        pen.arrow(x, bus, x, heights[-1] - 0.38, BLUE)
        pen.arrow(x, heights[-1] + 0.36, x, heights[-1] + 0.78)
        pen.box(x, heights[-1] + 1.0, BOX, 0.4, "stop 96 %" if step == live else "stop 2 %", VERMILION)
        if step < live:
            _step_outputs(pen, x, heights[-1] + 1.2, top, config, *EXAMPLE[step])
            if step + 1 < config.max_steps:  # covered by the masks so far
                beside, above = x + 0.92, heights[-1] + 0.62
                pen.line([(x + 0.55, top + 0.85), (beside, top + 0.85), (beside, above)], FAINT, dashed=True)
                pen.arrow(beside, above, x + apart - 0.35, heights[-1] + 0.38, FAINT, dashed=True)
                if step == live - 1:
                    pen.note(beside + 0.1, heights[-1] + 1.86, "coverage", "left", FAINT)
    if config.max_steps > live:
        x = first + apart * live + 0.2
        pen.arrow(x - 1.65, top + 1.1, x - 0.65, top + 1.1)
        pen.scene(x, top + 1.1, 0.55, [label for _, label, _ in EXAMPLE[:live]], mask=True)
        pen.note(x, top + 1.85, "label map", "center")
    return figure


def _step_outputs(
    pen: "_Pen", x: float, y: float, top: float, config: RecurrentUNetConfig, name: str, label: int, probability: float
) -> None:
    """What a live step emits, above its stop: query, mask, class."""
    pen.arrow(x, y, x, y + 0.38)
    pen.box(x, y + 0.6, BOX, 0.4, f"query, {config.decoder_widths[-1]}", GREEN)
    pen.arrow(x, y + 0.8, x, top - 0.17)
    pen.dot(x, top)
    pen.arrow(x, top + 0.15, x, top + 0.55)
    pen.scene(x, top + 1.1, 0.55, [label], mask=True)
    pen.note(x, top + 1.85, f"{name} {probability:.0%}", "center")


def recurrent_cell(gates: str | None = "ifo") -> "Figure":
    """One step of a recurrent cell, from left to right: the figures of chapter 2.

    Args:
        gates: the gates of an LSTM to draw, of "i", "f" and "o"; with an empty string, each step just adds to the cell
            state. None draws a plain recurrent cell, which has no cell state.
    """
    figure = new_figure(6.4, 0.7 if gates is None else 2.6)
    pen = _Pen(figure.subplots())
    if gates is None:
        pen.box(2.5, 0, 4.4, 0.5, "$W_x * x_t + W_h * h_{t-1} + b$", BLUE)
        pen.box(5.9, 0, 0.9, 0.5, "tanh", ORANGE)
        pen.arrow(4.7, 0, 5.42, 0)
        pen.arrow(6.35, 0, 7.3, 0)
        pen.note(7.4, 0, "$h_t$", "left")
    else:
        pen.box(3.3, 0, 6.0, 0.5, "convolutions of $x_t$ and $h_{t-1}$", BLUE)
        _cell_state(pen, gates)
    for y, name in ((0.12, "$x_t$"), (-0.12, "$h_{t-1}$")):
        pen.arrow(-0.35, y, 0.28, y)
        pen.note(-0.45, 2.2 * y, name, "right")
    pen.axes.set(xlim=(-1.4, 8.1), ylim=(-0.45, 0.45 if gates is None else 3.35))  # arrows and text do not extend them
    return figure


def _cell_state(pen: "_Pen", gates: str) -> None:
    """The rest of an LSTM cell: the cell state along the top, the hidden state at the right."""
    top, middle = 3.0, 2.0
    pen.note(-0.45, top, "$c_{t-1}$", "right")
    pen.arrow(-0.35, top, 7.3, top, ORANGE)
    pen.note(7.4, top, "$c_t$", "left")
    pen.box(3.6, 1.0, 0.9, 0.5, "$g_t$: tanh", ORANGE)  # the candidate
    pen.arrow(3.6, 0.25, 3.6, 0.73)
    pen.arrow(3.6, 1.25, 3.6, top - 0.2)
    pen.operation(3.6, top, "+")
    pen.box(5.7, middle, 0.9, 0.5, "tanh", ORANGE)
    pen.line([(5.7, top), (5.7, middle + 0.25)])
    pen.line([(5.7, middle - 0.25), (5.7, 1.0)])
    pen.arrow(5.7, 1.0, 7.3, 1.0)
    pen.note(7.4, 1.0, "$h_t$", "left")
    for gate, x, (to_x, to_y) in (("i", 2.3, (3.6, middle)), ("f", 1.0, (1.0, top)), ("o", 4.7, (5.7, 1.0))):
        if gate not in gates:
            continue
        pen.box(x, 1.0, 0.9, 0.5, f"${gate}_t$: σ", VERMILION)
        pen.arrow(x, 0.25, x, 0.73)
        if gate == "o":
            pen.line([(x + 0.45, 1.0), (to_x, to_y)])
        else:
            pen.line([(x, 1.25), (x, to_y), (to_x, to_y)])
        pen.operation(to_x, to_y, "×")


class _Pen:
    """Drawing primitives for the diagrams, in data units."""

    def __init__(self, axes: "Axes", size: float = 10) -> None:
        self.axes, self.size = axes, size  # of the text, in points
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.margins(0.012)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str,
        colour: str,
        *,
        dashed: bool = False,
    ) -> None:
        """A rounded box centred at (x, y): tinted, with an outline in its colour and dark text."""
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
        """Text at (x, y)."""
        self.axes.text(x, y, words, ha=align, va="center", fontsize=self.size, color=colour, linespacing=1.1)

    def operation(self, x: float, y: float, sign: str) -> None:
        """A sum or a product of maps, entry by entry."""
        self.axes.plot(x, y, marker="o", markersize=13, color="white", markeredgecolor=INK, markeredgewidth=1.2)
        self.note(x, y, sign, "center")

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
