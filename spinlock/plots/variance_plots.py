"""Plot of the variance of columns by operator and variant."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spinlock.metrics import VarianceShares
from spinlock.plots.plot_style import new_plot

_COLORS = {"operator": "#4c86c6", "variant": "#e0883a", "rest": "#d9d9d9"}
_BAR_HEIGHT = 0.155
# Bars' worth of room for the title and the ticks of a panel.
_HEADING = 4


def variance_bars(
    groups: Mapping[str, tuple[Sequence[str], VarianceShares]], *, title: str
) -> Figure:
    """Plot the shares of variance of columns as stacked bars, a panel for each group.

    Bars are sorted by the share of the operator, whose confidence interval is drawn as a line.
    Estimates below 0 are drawn as 0.

    Args:
        groups: Names of columns and their shares, by title; the first group is on the left.
        title: Title of the plot.
    """
    first, *others = (len(names) + _HEADING for names, _ in groups.values())
    columns = 2 if others else 1
    plot = new_plot(5.25 * columns, _BAR_HEIGHT * max(first, sum(others)) + 0.9)
    grid = plot.add_gridspec(1, columns)
    places = [grid[0]]
    if others:
        right = grid[1].subgridspec(len(others), 1, height_ratios=others)
        places += [right[row] for row in range(len(others))]
    for place, (name, (columns_of_group, shares)) in zip(places, groups.items(), strict=True):
        axes = plot.add_subplot(place)
        _stacked(axes, columns_of_group, shares)
        axes.set_title(name)
    legend = plot.axes[0].get_legend_handles_labels()
    plot.legend(*legend, loc="outside lower center", ncols=len(_COLORS))
    plot.suptitle(title)
    return plot


def _stacked(axes: Axes, names: Sequence[str], shares: VarianceShares) -> None:
    order = np.argsort(-shares.operator.numpy(), kind="stable")
    position, left = np.arange(len(order)), np.zeros(len(order))
    for part, color in _COLORS.items():
        width = np.clip(getattr(shares, part).numpy()[order], 0, 1 - left)
        axes.barh(position, width, left=left, color=color, height=0.8, label=part)
        left = left + width
    low, high = np.clip(shares.operator_interval.numpy()[order].T, 0, 1)
    axes.hlines(position, low, high, color="black", lw=0.9)
    axes.set_yticks(position, [names[place] for place in order], fontsize=6)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of variance", fontsize=7)
    axes.tick_params(axis="x", labelsize=6)
