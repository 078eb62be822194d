"""Show intermediate results of a network as images: maps, masks, label maps and probabilities in one grid."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recseg.classes import palette as voc_palette
from recseg.errors import RecsegError
from recseg.viz.plotting import FAINT, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Tensor | NDArray[Any] | Image.Image | Mapping[str, float]
BAR = "#0072b2"


def panel_grid(rows: Sequence[Sequence[tuple[str, Panel] | None]], *, side: float = 1.75) -> "Figure":
    """A grid of titled panels, each drawn according to its content.

    - an image: Pillow image, (H, W, 3), or (3, H, W) tensor: as it is;
    - a label map, (H, W) integers: each label in VOC's colour;
    - a mask, (H, W) booleans: white on black;
    - a map of logits, (H, W) floats: red above 0, blue below, with its range beneath;
    - a map of probabilities, (H, W) floats all in [0, 1]: from dark (0) to bright (1);
    - probabilities by name: bars.

    Args:
        rows: rows of (title, panel); None leaves a cell empty.
        side: width of a panel in inches.
    """
    columns = max(len(row) for row in rows)
    heights = [_height(row, side) for row in rows]
    figure = new_figure(side * columns, sum(heights))
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    panels = [panel for row in rows for panel in [*row, *[None] * (columns - len(row))]]
    for axes, panel in zip(grid.flat, panels, strict=True):
        axes.set_axis_off()
        if panel is None:
            continue
        title, content = panel
        axes.set_title(title)
        if isinstance(content, Mapping):
            _bars(axes, content)
        else:
            _map(axes, _as_array(content), title)
    return figure


def _height(row: Sequence[tuple[str, Panel] | None], side: float) -> float:
    """Height of a row in inches: its tallest map, its titles, and a range beneath if there is one."""
    panels = [panel for panel in row if panel]
    arrays = [_as_array(content) for _, content in panels if not isinstance(content, Mapping)]
    tallest = max((array.shape[0] / array.shape[1] for array in arrays if array.ndim > 1), default=1.0)
    lines = 1 + max((title.count("\n") for title, _ in panels), default=0)
    return side * tallest + 0.15 + 0.17 * lines + 0.2 * any(map(_has_range, arrays))


def _as_array(content: Tensor | NDArray[Any] | Image.Image) -> NDArray[Any]:
    """Convert to an array (H, W) or (H, W, 3)."""
    array = content.detach().cpu().numpy() if isinstance(content, Tensor) else np.asarray(content)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, -1)  # (3, H, W) → (H, W, 3)
    return array


def _has_range(array: NDArray[Any]) -> bool:
    """Whether a map holds logits, and not labels, a mask or probabilities."""
    floats = array.ndim == 2 and np.issubdtype(array.dtype, np.floating)
    return floats and not (array.min() >= 0 and array.max() <= 1)


def _map(axes: "Axes", array: NDArray[Any], title: str) -> None:
    if array.ndim == 3 and array.shape[2] == 3:
        axes.imshow(array)
    elif array.ndim != 2:
        raise RecsegError(f"panel {title!r} of shape {array.shape}: expected (H, W) or (H, W, 3)")
    elif array.dtype == bool:
        axes.imshow(array, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    elif np.issubdtype(array.dtype, np.integer):
        axes.imshow(voc_palette()[array], interpolation="nearest")
    elif not _has_range(array):
        axes.imshow(array, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    else:
        bound = float(np.abs(array).max())
        axes.imshow(array, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
        span = f"{array.min():.3g} … {array.max():.3g}".replace("-", "−")
        axes.text(0.5, -0.04, span, transform=axes.transAxes, ha="center", va="top", color=FAINT)


def _bars(axes: "Axes", values: Mapping[str, float]) -> None:
    for row, (name, value) in enumerate(values.items()):
        axes.barh(row, value, height=0.42, color=BAR, alpha=0.85)
        axes.plot([0, 1], [row + 0.21] * 2, color=FAINT, linewidth=0.5)
        axes.text(0, row - 0.27, f"{name}  {value:.0%}", va="bottom", color=INK)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(max(3, len(values)) - 0.3, -0.75)
