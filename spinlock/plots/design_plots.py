"""Figures of the design: shares of initial conditions, and how operators fill their space."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.plots.plot_style import label_colors, new_figure


def distribution_bars(
    names: Sequence[str],
    shares: Sequence[float],
    targets: Sequence[float],
    *,
    title: str,
    tolerances: Sequence[float] | None = None,
) -> Figure:
    """Shares of samples as bars, with what they should be.

    Args:
        names: The classes.
        shares: Measured share of each, in 0..1.
        targets: Share that each should have.
        title: Title of the figure.
        tolerances: What a share may differ from its target, in 0..1.
    """
    figure = new_figure(6.4, 1.2 + 0.27 * len(names))
    axis = figure.subplots()
    position = np.arange(len(names))
    colors = label_colors(list(names))
    percent = 100 * np.asarray(shares)
    axis.barh(position, percent, color=[colors[name] for name in names], height=0.7)
    goal = 100 * np.asarray(targets)
    width = None if tolerances is None else 100 * np.asarray(tolerances)
    label = "target" if tolerances is None else "target and tolerance"
    axis.errorbar(
        goal, position, xerr=width, fmt="|", ms=13, mew=2, color="gray", capsize=3, label=label
    )
    right = np.maximum(percent, goal if width is None else goal + width)
    for y, end, value in zip(position, right, percent, strict=True):
        axis.text(float(end), float(y), f"  {value:.2f} %", va="center", ha="left", fontsize=8)
    axis.set_yticks(position, names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.25 * max(float(right.max()), 1e-9))
    axis.set_xlabel("share of samples (%)")
    figure.suptitle(title)
    figure.legend(loc="outside lower right")
    return figure


def sobol_pairs(
    points: NDArray[np.floating],
    names: Sequence[str],
    families: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> Figure:
    """Operators in some pairs of axes of the unit cube, coloured by the family that probes them.

    Args:
        points: [n, d] points.
        names: Names of the d axes.
        families: Family of each point's initial condition.
        pairs: Pairs of axes to show.
    """
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(2.5 * columns, 2.5 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = np.asarray(families)
    colors = label_colors(list(dict.fromkeys(families)))
    size = float(np.clip(2500 / max(len(points), 1), 1.5, 14))
    for axis, (x, y) in zip(axes, pairs, strict=False):
        for label, color in colors.items():
            rows_of = labels == label
            axis.scatter(
                points[rows_of, names.index(x)],
                points[rows_of, names.index(y)],
                s=size,
                color=color,
                lw=0,
                label=label,
            )
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel=x, ylabel=y, aspect="equal")
        axis.set_xticks([0, 1 / 3, 2 / 3, 1], ["0", "⅓", "⅔", "1"])
        axis.set_yticks([0, 1 / 3, 2 / 3, 1], ["0", "⅓", "⅔", "1"])
        axis.grid(visible=True, lw=0.5)
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=4, markerscale=14 / size)
    figure.suptitle(f"{len(points)} operators in the unit cube, by family of the initial condition")
    return figure
