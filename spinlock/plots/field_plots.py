"""Figures of fields: one sample, the gallery of a variant, and trajectories over time.

Fields are dimensionless. Every panel of a figure that shows fields has the same colour scale,
symmetric about 0.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from spinlock.plots.plot_style import FIELD_COLORS, MAGNITUDE_COLORS, new_figure

Array = NDArray[np.float32]
# Pictures of fields are not drawn smaller than this, nor is a row of them wider, in inches.
_PANEL = 1.35


def sample_figure(initial: Array, final: Array, *, step: int, title: str) -> Figure:
    """One sample: its initial condition, realizations and their spread, a row for each channel.

    Args:
        initial: [C, H, W] initial condition u_0.
        final: [M, C, H, W] realizations at one timestep; the first four are shown.
        step: That timestep.
        title: Title of the figure.
    """
    shown = final[:4]
    spread = final.std(axis=0, ddof=1) if len(final) > 1 else np.zeros_like(final[0])
    columns = len(shown) + 2
    figure = new_figure(_PANEL * columns + 1.3, _PANEL * len(initial) + 0.7)
    axes = figure.subplots(len(initial), columns, squeeze=False)
    limit = _limit(initial, shown)
    for channel, row in enumerate(axes):
        panels = [initial[channel], *shown[:, channel]]
        images = [_field(axis, panel, limit) for axis, panel in zip(row, panels, strict=False)]
        deviation = row[-1].imshow(
            spread[channel], cmap=MAGNITUDE_COLORS, vmin=0, vmax=_positive(spread.max())
        )
        _bare(row[-1])
        row[0].set_ylabel(f"channel {channel}")
    heads = ["$u_0$", *(f"$u_{{{step}}}$, realization {m + 1}" for m in range(len(shown)))]
    for axis, head in zip(axes[0], [*heads, "std over\nrealizations"], strict=True):
        axis.set_title(head)
    figure.colorbar(images[0], ax=axes[:, :-1], label="u (dimensionless)", shrink=0.9, pad=0.01)
    figure.colorbar(deviation, ax=axes[:, -1], label="std", shrink=0.9, pad=0.02)
    figure.suptitle(title)
    return figure


def gallery_row(initial: Array, final: Array, *, step: int, title: str) -> Figure:
    """The first channel of a sample in four small panels, for a gallery.

    Args:
        initial: [H, W] initial condition.
        final: [M, H, W] realizations at one timestep.
        step: That timestep.
        title: Title of the figure.
    """
    figure = new_figure(5.4, 2.05)
    several = len(final) > 1
    axes = figure.subplots(1, 4 if several else 2, squeeze=False)[0]
    limit = _limit(initial, final[:2])
    heads = ["$u_0$", *(f"$u_{{{step}}}$, realization {m + 1}" for m in range(min(2, len(final))))]
    panels = [initial, *final[:2]]
    for axis, panel, head in zip(axes, panels, heads, strict=False):
        image = _field(axis, panel, limit)
        axis.set_title(head, fontsize=8)
    figure.colorbar(image, ax=axes[: len(panels)], pad=0.01, shrink=0.8).ax.set_title("u")
    if several:
        spread = final.std(axis=0, ddof=1)
        shown = axes[3].imshow(spread, cmap=MAGNITUDE_COLORS, vmin=0, vmax=_positive(spread.max()))
        _bare(axes[3])
        axes[3].set_title("std over\nrealizations", fontsize=8)
        figure.colorbar(shown, ax=axes[3], pad=0.03, shrink=0.8)
    figure.suptitle(title, fontsize=9)
    return figure


def gallery(initial: Array, final: Array, names: Sequence[str], *, step: int, title: str) -> Figure:
    """Initial conditions above what became of them, a column for each variant.

    Args:
        initial: [V, H, W] one channel of an initial condition of each variant.
        final: [V, H, W] the same channel of one realization at a timestep.
        names: Names of the V variants.
        step: That timestep.
        title: Title of the figure.
    """
    figure = new_figure(_PANEL * len(names) * 0.82 + 0.3, 3.1)
    axes = figure.subplots(2, len(names), squeeze=False)
    for column, name in enumerate(names):
        # Each column has its own scale: variances differ by a factor of 16.
        limit = _limit(initial[column], final[column])
        _field(axes[0, column], initial[column], limit)
        _field(axes[1, column], final[column], limit)
        axes[0, column].set_title(name.replace("_", "\n", name.count("_")), fontsize=8)
    axes[0, 0].set_ylabel("$u_0$")
    axes[1, 0].set_ylabel(f"$u_{{{step}}}$")
    figure.suptitle(title)
    return figure


def _evenly_chosen(available: int, most: int) -> NDArray[np.int64]:
    """Positions among ``available``, at most ``most``, the first and the last among them."""
    positions = np.linspace(0, available - 1, min(most, available))
    return np.unique(positions.round().astype(np.int64))


def film_strip(trajectory: Array, steps: Sequence[int], *, title: str, columns: int = 8) -> Figure:
    """A trajectory as a strip of pictures, a row for each realization.

    Args:
        trajectory: [M, T', H, W] one channel at the stored timesteps; two realizations are shown.
        steps: The T' timesteps.
        title: Title of the figure.
        columns: Largest number of timesteps shown, evenly chosen.
    """
    chosen = _evenly_chosen(len(steps), columns)
    shown = trajectory[:2]
    figure = new_figure(1.15 * len(chosen) + 1.0, 1.25 * len(shown) + 0.5)
    axes = figure.subplots(len(shown), len(chosen), squeeze=False)
    limit = _limit(shown)
    for realization, row in enumerate(axes):
        for axis, position in zip(row, chosen, strict=True):
            image = _field(axis, shown[realization, position], limit)
            if realization == 0:
                axis.set_title(f"t = {steps[position]}")
        row[0].set_ylabel(f"realization {realization + 1}")
    figure.colorbar(image, ax=axes, label="u (dimensionless)", pad=0.01)
    figure.suptitle(title)
    return figure


def animation(trajectory: Array, steps: Sequence[int], *, title: str, frames: int = 40) -> bytes:
    """A trajectory as an animated GIF, its realizations side by side.

    Args:
        trajectory: [M, T', H, W] one channel at the stored timesteps; two realizations are shown.
        steps: The T' timesteps.
        title: Title of the figure.
        frames: Largest number of timesteps shown, evenly chosen.
    """
    chosen = _evenly_chosen(len(steps), frames)
    shown = trajectory[:2]
    figure = new_figure(2.1 * len(shown) + 0.7, 2.5)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    limit = _limit(shown)
    images = [_field(axis, fields[0], limit) for axis, fields in zip(axes, shown, strict=True)]
    for realization, axis in enumerate(axes):
        axis.set_title(f"realization {realization + 1}")
    figure.colorbar(images[0], ax=axes, label="u (dimensionless)", pad=0.02)
    heading = figure.suptitle(title)

    def draw(position: int) -> list[AxesImage]:
        for image, fields in zip(images, shown, strict=True):
            image.set_data(fields[position])
        heading.set_text(f"{title}, t = {steps[position]}")
        return images

    film = FuncAnimation(figure, draw, frames=[int(one) for one in chosen])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.gif"
        film.save(path, writer=PillowWriter(fps=6), dpi=90)
        return path.read_bytes()


def _field(axis: Axes, field: Array, limit: float) -> AxesImage:
    image = axis.imshow(field, cmap=FIELD_COLORS, vmin=-limit, vmax=limit)
    _bare(axis)
    return image


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def _limit(*fields: Array) -> float:
    """Where colours saturate: all but the largest half percent of the values lie inside."""
    values = np.abs(np.concatenate([field.ravel() for field in fields]))
    return _positive(float(np.quantile(values, 0.995)))


def _positive(value: float) -> float:
    """A scale cannot be empty."""
    return float(value) if value > 0 else 1.0
