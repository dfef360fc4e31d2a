"""Plots of fields: one sample, galleries of variants and of tokens, and trajectories over time.

Fields are dimensionless. Panels of one plot that show fields share a color scale, which is
symmetric about 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from spinlock.plots.plot_style import FIELD_COLORS, MAGNITUDE_COLORS, new_plot

Array = NDArray[np.float32]
# Largest number of timesteps in a film strip.
_STRIP_COLUMNS = 8


def sample_plot(
    initial: Array, final: Array, *, step: int, title: str, realizations: int = 4
) -> Figure:
    """Plot the initial condition of a sample, realizations and their standard deviation.

    The plot has one row per channel. It has no standard deviation if there is one realization.

    Args:
        initial: (C, H, W) initial condition u_0.
        final: (M, C, H, W) realizations at one timestep.
        step: Timestep of the realizations.
        title: Title of the plot.
        realizations: Largest number of realizations to plot, default: 4.
    """
    shown = final[:realizations]
    several = len(final) > 1
    columns = 1 + len(shown) + several
    plot = new_plot(1.2 * columns + 1, 1.1 * len(initial) + 0.75)
    panels = plot.subplots(len(initial), columns, squeeze=False)
    heads = ["$u_0$", *(f"$u_{{{step}}}$, realization {m + 1}" for m in range(len(shown)))]
    limit = _limit(initial, shown)
    for channel, row in enumerate(panels):
        row[0].set_ylabel(f"channel {channel}")
        for axes, field in zip(row, [initial[channel], *shown[:, channel]], strict=False):
            image = _field(axes, field, limit)
    if several:
        spread = final.std(axis=0, ddof=1)
        for axes, field in zip(panels[:, -1], spread, strict=True):
            deviation = _field(axes, field, _positive(spread.max()), low=0, cmap=MAGNITUDE_COLORS)
        heads.append("standard deviation\nover realizations")
    for axes, head in zip(panels[0], heads, strict=True):
        axes.set_title(head)
    fields = panels[:, : len(shown) + 1]
    plot.colorbar(image, ax=fields, label="u (dimensionless)", pad=0.01)
    if several:
        plot.colorbar(deviation, ax=panels[:, -1], pad=0.02)
    plot.suptitle(title)
    return plot


def gallery(initial: Array, final: Array, names: Sequence[str], *, step: int, title: str) -> Figure:
    """Plot initial conditions above the fields after some timesteps, a column per variant.

    Args:
        initial: (V, H, W) one channel of an initial condition of each variant.
        final: (V, H, W) the same channel of one realization at a timestep.
        names: Names of the V variants.
        step: Timestep of the realizations.
        title: Title of the plot.
    """
    plot = new_plot(1.1 * len(names) + 0.3, 3.1)
    panels = plot.subplots(2, len(names), squeeze=False)
    for column, name in enumerate(names):
        # Each column has its own scale, because variances differ by a factor of 16.
        limit = _limit(initial[column], final[column])
        _field(panels[0, column], initial[column], limit)
        _field(panels[1, column], final[column], limit)
        panels[0, column].set_title(name.replace("_", "\n"), fontsize=8)
    panels[0, 0].set_ylabel("$u_0$")
    panels[1, 0].set_ylabel(f"$u_{{{step}}}$")
    plot.suptitle(title)
    return plot


def token_rows(
    initial: Array, fields: Mapping[str, Array], names: Sequence[str], *, step: int, title: str
) -> Figure:
    """Plot initial conditions, and below them a row for each token: the fields of its prototype.

    To the right are the changes from the initial conditions, with a color scale for each row. All
    fields share one.

    Args:
        initial: (F, H, W) one channel of F initial conditions.
        fields: (F, H, W) the same channel after some timesteps, by label of the token.
        names: Names of the initial conditions.
        step: Timestep of the fields.
        title: Title of the plot.
    """
    count, limit = len(names), _limit(initial, *fields.values())
    plot = new_plot(1.7 * count + 1.9, 0.85 * (len(fields) + 1) + 0.4)
    # A narrow empty column separates fields and changes.
    ratios = [1.0] * count + [0.15] + [1.0] * count
    panels = plot.subplots(
        len(fields) + 1, len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios}
    )
    for axes in (*panels[:, count], *panels[0, count:]):
        axes.axis("off")
    for row, (label, shown) in zip(panels, {"$u_0$": initial, **fields}.items(), strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axes, field in zip(row, shown, strict=False):
            _field(axes, field, limit)
    for row, shown in zip(panels[1:], fields.values(), strict=True):
        changes = shown - initial
        for axes, field in zip(row[count + 1 :], changes, strict=True):
            _field(axes, field, _limit(changes))
    for axes, name in zip(panels[0], names, strict=False):
        axes.set_title(name.replace("_", "\n"))
    panels[1 if fields else 0, count + 1].set_title(f"change $u_{{{step}}} - u_0$", loc="left")
    plot.suptitle(title)
    return plot


def film_strip(trajectory: Array, steps: Sequence[int], *, title: str) -> Figure:
    """Plot a trajectory as a strip of up to eight timesteps, a row for each of two realizations.

    Args:
        trajectory: (M, T', H, W) one channel at the stored timesteps.
        steps: The T' timesteps.
        title: Title of the plot.
    """
    chosen = np.linspace(0, len(steps) - 1, min(_STRIP_COLUMNS, len(steps))).round().astype(int)
    shown = trajectory[:2, chosen]
    plot = new_plot(1.15 * len(chosen) + 1.0, 1.25 * len(shown) + 0.5)
    panels = plot.subplots(len(shown), len(chosen), squeeze=False)
    limit = _limit(shown)
    for axes, field in zip(panels.flat, shown.reshape(-1, *shown.shape[2:]), strict=True):
        image = _field(axes, field, limit)
    for axes, position in zip(panels[0], chosen, strict=True):
        axes.set_title(f"t = {steps[position]}")
    for realization, axes in enumerate(panels[:, 0]):
        axes.set_ylabel(f"realization {realization + 1}")
    plot.colorbar(image, ax=panels, label="u (dimensionless)", pad=0.01)
    plot.suptitle(title)
    return plot


def _field(
    axes: Axes, field: Array, limit: float, *, low: float | None = None, cmap: str = FIELD_COLORS
) -> AxesImage:
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(field, cmap=cmap, vmin=-limit if low is None else low, vmax=limit)


def _limit(*fields: Array) -> float:
    """Return the value at which colors saturate: 99.5 % of the absolute values are below it."""
    values = np.abs(np.concatenate([field.ravel() for field in fields]))
    return _positive(float(np.quantile(values, 0.995)))


def _positive(value: float) -> float:
    """Return the limit of a color scale, which must not be empty."""
    return float(value) if value > 0 else 1.0
