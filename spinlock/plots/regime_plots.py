"""Plot of the shares of regimes of trajectories."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.plots.plot_style import new_plot

_COLORS = ("#b9dcea", "#e8696b", "#b07cc0", "#7fa6dd", "#f0a94a", "#5cc4a0", "#d9d9d9")
# Shares below this have no room for their number.
_LABELED = 0.06


def regime_bars(
    groups: Mapping[str, NDArray[np.integer]], regimes: Sequence[str], *, title: str
) -> Figure:
    """Plot the shares of regimes as stacked bars, a bar for each group of samples.

    Args:
        groups: Numbers of samples of each regime, by the name of the group.
        regimes: Names of the regimes, at most seven.
        title: Title of the plot.
    """
    plot = new_plot(7.5, 0.32 * len(groups) + 1.3)
    axes = plot.subplots()
    position = np.arange(len(groups))
    shares = np.array([counts / max(int(counts.sum()), 1) for counts in groups.values()])
    left = np.zeros(len(groups))
    for place, (regime, color) in enumerate(zip(regimes, _COLORS, strict=False)):
        width = shares[:, place]
        axes.barh(position, width, left=left, color=color, height=0.75, label=regime)
        for y, start, part in zip(range(len(groups)), left, width, strict=True):
            if part >= _LABELED:
                label = f"{100 * part:.0f} %"
                axes.text(start + part / 2, y, label, va="center", ha="center", fontsize=7)
        left = left + width
    axes.set_yticks(position, [f"{n} ({int(counts.sum())})" for n, counts in groups.items()])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of samples")
    plot.legend(loc="outside lower center", ncols=len(regimes), fontsize=7, handlelength=1)
    plot.suptitle(title)
    return plot
