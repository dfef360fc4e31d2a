"""Plots of the design: shares of initial conditions, and operators in the unit cube."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.plots.plot_style import label_colors, new_plot


def distribution_bars(
    names: Sequence[str],
    shares: Sequence[float],
    targets: Sequence[float],
    tolerance: float,
    *,
    title: str,
) -> Figure:
    """Plot shares of samples as bars, with their targets.

    Args:
        names: Names of the classes.
        shares: Measured share of each class, in 0..1.
        targets: Target share of each class, in 0..1.
        tolerance: Allowed deviation of a share from its target, in 0..1.
        title: Title of the plot.
    """
    plot = new_plot(6.4, 1.2 + 0.27 * len(names))
    axes = plot.subplots()
    position = np.arange(len(names))
    percent, goal = 100 * np.asarray(shares), 100 * np.asarray(targets)
    axes.barh(position, percent, color=list(label_colors(names).values()), height=0.7)
    axes.errorbar(
        goal,
        position,
        xerr=100 * tolerance,
        fmt="|",
        ms=13,
        mew=2,
        color="gray",
        capsize=3,
        label="target and tolerance",
    )
    right = np.maximum(percent, goal + 100 * tolerance)
    for y, end, value in zip(position, right, percent, strict=True):
        axes.text(float(end), float(y), f"  {value:.2f} %", va="center", ha="left")
    axes.set_yticks(position, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * float(right.max()))
    axes.set_xlabel("share of samples (%)")
    plot.suptitle(title)
    plot.legend(loc="outside lower right")
    return plot


def sobol_pairs(
    points: NDArray[np.floating],
    names: Sequence[str],
    families: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> Figure:
    """Plot operators in pairs of axes of the unit cube, colored by the family of their probe.

    Args:
        points: (n, d) points in the unit cube.
        names: Names of the d axes.
        families: Family of each point's initial condition.
        pairs: Pairs of axes to plot, in rows of three.
    """
    plot = new_plot(7.5, 2.5 * -(-len(pairs) // 3) + 0.7)
    panels = plot.subplots(-(-len(pairs) // 3), 3, squeeze=False).ravel()
    size = float(np.clip(2500 / len(points), 1.5, 14))
    ticks = [0, 1 / 3, 2 / 3, 1], ["0", "⅓", "⅔", "1"]
    labels = np.asarray(families)
    for axes, (x, y) in zip(panels, pairs, strict=False):
        for label, color in label_colors(list(dict.fromkeys(families))).items():
            chosen = points[labels == label]
            xy = chosen[:, names.index(x)], chosen[:, names.index(y)]
            axes.scatter(*xy, s=size, color=color, lw=0, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x, ylabel=y, aspect="equal")
        axes.set_xticks(*ticks)
        axes.set_yticks(*ticks)
        axes.grid(visible=True, lw=0.5)
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    legend = panels[0].get_legend_handles_labels()
    plot.legend(*legend, loc="outside lower center", ncols=4, markerscale=14 / size)
    plot.suptitle(f"{len(points)} operators in the unit cube, by family of the initial condition")
    return plot
