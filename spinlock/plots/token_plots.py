"""Figures of tokens: how often codes are used, together with what, and after which.

Each function makes a :class:`matplotlib.figure.Figure` of its own, without pyplot's global state,
or draws on the axes that it is given.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spinlock.plots.plot_style import new_figure

# More rows than pixels: beyond this, the most frequent codes are shown.
_MOST_CODES = 128
# Labels of single codes are readable up to this many.
_MOST_LABELS = 32


def new_axes(width: float = 6.4, height: float = 4.8) -> Axes:
    """Axes of a new figure of this size in inches."""
    return new_figure(width, height).add_subplot()


def heatmap(
    contingency: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "Samples by code and class",
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """How the samples of each code divide among the classes.

    Args:
        contingency: Counts ``[codes, classes]``. Codes without samples are left out; of more than
            128, the most frequent are shown, by falling frequency.
        class_names: Names of the classes.
        title: The title.
        ax: Where to draw; None: on a new figure.
    """
    counts = contingency.cpu().double().numpy()
    order = np.argsort(-counts.sum(1), kind="stable")
    order = order[counts[order].sum(1) > 0][:_MOST_CODES]
    rows = counts[order]
    if ax is None:
        ax = new_axes(2.5 + 0.5 * counts.shape[1], 2.5 + 0.045 * max(len(rows), 40))
    shares = rows / np.maximum(rows.sum(1, keepdims=True), 1)
    image = ax.imshow(shares, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="none")
    figure = figure_of(ax)
    figure.colorbar(image, ax=ax, label="fraction of the code's samples")
    _name_codes(ax, order, axis="y")
    names = class_names if class_names is not None else range(counts.shape[1])
    ax.set_xticks(range(counts.shape[1]), [str(n) for n in names], rotation=90)
    shown = "" if len(order) == (counts.sum(1) > 0).sum() else f" ({len(order)} most frequent)"
    ax.set(title=title, xlabel="class", ylabel=f"code, by frequency{shown}")
    return figure, ax


def usage_bars(counts: Tensor, *, title: str = "Codebook usage") -> Figure:
    """Samples of each code, sorted.

    Args:
        counts: Samples of each code ``[codes]``.
        title: The title.
    """
    ax = new_axes()
    values = np.sort(counts.cpu().double().numpy())[::-1]
    # Steps, since bars of 1,024 codes are a thousand artists.
    ax.stairs(values, np.arange(len(values) + 1), fill=True)
    even = values.sum() / max(len(values), 1)
    ax.axhline(even, color="black", linestyle="--", linewidth=1, label=f"even use ({even:.1f})")
    dead = int((values == 0).sum())
    ax.set(title=title, xlabel=f"codes by frequency ({dead} dead)", ylabel="samples")
    ax.legend()
    return figure_of(ax)


def error_bars(errors: Mapping[str, Mapping[str, float]], *, title: str) -> Figure:
    """Errors by group, a panel for each grouping.

    Args:
        errors: Grouping -> group -> mean error.
        title: The title.
    """
    figure = new_figure(3.2 * len(errors), 4.8)
    figure.suptitle(title)
    panels = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for ax, (grouping, groups) in zip(panels, errors.items(), strict=True):
        ax.bar(range(len(groups)), list(groups.values()))
        ax.set_xticks(range(len(groups)), list(groups), rotation=90)
        ax.set_xlabel(grouping)
    panels[0].set_ylabel("mean squared error (scaled features)")
    return figure


def transition_matrix(transitions: Tensor, *, title: str = "Token transitions") -> Figure:
    """Which code follows which, from one timestep to the next.

    Args:
        transitions: Counts ``[codes, codes]``, from row to column; of more than 128 codes, the most
            frequent are shown.
        title: The title.
    """
    counts = transitions.cpu().double().numpy()
    order = np.argsort(-(counts.sum(0) + counts.sum(1)), kind="stable")
    order = order[(counts.sum(0) + counts.sum(1))[order] > 0][:_MOST_CODES]
    rows = counts[order]
    ax = new_axes(6.4, 5.6)
    shares = rows[:, order] / np.maximum(rows.sum(1, keepdims=True), 1)
    image = ax.imshow(shares, vmin=0, vmax=1, cmap="magma", interpolation="none")
    figure_of(ax).colorbar(image, ax=ax, label="probability of the next code")
    _name_codes(ax, order, axis="y")
    _name_codes(ax, order, axis="x")
    ax.set(title=title, xlabel="code at t + 1", ylabel="code at t")
    return figure_of(ax)


def figure_of(ax: Axes) -> Figure:
    """The figure that axes belong to.

    Raises:
        ValueError: They belong to none, or to a part of one.
    """
    figure = ax.get_figure()
    if not isinstance(figure, Figure):
        raise ValueError(f"the axes must belong to a figure itself, not to {figure!r}")
    return figure


def _name_codes(ax: Axes, order: np.ndarray, *, axis: str) -> None:
    every = max(1, -(-len(order) // _MOST_LABELS))
    ticks, labels = range(0, len(order), every), [str(code) for code in order[::every]]
    (ax.set_yticks if axis == "y" else ax.set_xticks)(ticks, labels, fontsize="x-small")
