"""Plot of measured dynamics against true values."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.plots.plot_style import MAGNITUDE_COLORS, new_plot

Values = NDArray[np.floating]


def measured_against_true(
    pairs: Mapping[str, tuple[Values, Values]],
    color: Values,
    *,
    color_label: str,
    title: str,
) -> Figure:
    """Plot measured values of operators against true ones, a panel for each quantity.

    The line marks equality. Measured values far outside the range of the true ones are drawn at the
    edge.

    Args:
        pairs: (n,) measured and (n,) true values, by name.
        color: (n,) numbers in 0..1 that color the points.
        color_label: Label of the colors.
        title: Title of the plot.
    """
    plot = new_plot(2.6 * len(pairs) + 0.8, 3.1)
    panels = plot.subplots(1, len(pairs), squeeze=False)[0]
    size = float(np.clip(2500 / len(color), 2, 14))
    points = None
    for axes, (name, (measured, true)) in zip(panels, pairs.items(), strict=True):
        low, high = float(true.min()), float(true.max())
        room = 0.5 * (high - low) or 0.5
        bounded = np.clip(measured, low - room, high + room)
        axes.plot([low, high], [low, high], color="gray", lw=1, zorder=1)
        points = axes.scatter(
            true, bounded, s=size, c=color, cmap=MAGNITUDE_COLORS, vmin=0, vmax=1, lw=0, zorder=2
        )
        axes.set(title=name, xlabel="true", ylim=(low - 1.08 * room, high + 1.08 * room))
        axes.tick_params(labelsize=6)
        axes.grid(visible=True, lw=0.4)
    panels[0].set_ylabel("measured")
    if points is not None:
        plot.colorbar(points, ax=panels[-1], label=color_label)
    plot.suptitle(title)
    return plot
