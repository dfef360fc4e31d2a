"""Plots of tokens: usage of codes, classes by code, errors by group, transitions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from spinlock.plots.plot_style import new_plot

# Largest number of codes with a row of their own; more rows would be thinner than pixels.
_MOST_CODES = 128
# Largest number of readable labels.
_MOST_LABELS = 32


def heatmap(
    contingency: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "Samples by code and class",
) -> Figure:
    """Plot the distribution over classes of the samples of each code.

    Args:
        contingency: ``[codes, classes]`` counts. Codes without samples are left out; of more than
            128 codes, the most frequent are plotted, in order of decreasing frequency.
        class_names: Names of the classes, default: their indices.
        title: Title of the plot.
    """
    counts = contingency.cpu().double().numpy()
    order = _most_frequent(counts.sum(1))
    plot = new_plot(2.5 + 0.5 * counts.shape[1], 2.5 + 0.045 * max(len(order), 40))
    axes = _shares(plot, counts, order, slice(None), "viridis", "fraction of the code's samples")
    names = class_names if class_names is not None else range(counts.shape[1])
    axes.set_aspect("auto")
    axes.set_xticks(range(counts.shape[1]), [str(n) for n in names], rotation=90)
    cut = "" if len(order) == (counts.sum(1) > 0).sum() else f" ({len(order)} most frequent)"
    axes.set(title=title, xlabel="class", ylabel=f"code, by frequency{cut}")
    return plot


def transition_matrix(transitions: Tensor, *, title: str = "Token transitions") -> Figure:
    """Plot the probabilities of the next code, from one timestep to the next.

    Args:
        transitions: ``[codes, codes]`` counts of transitions from row to column; of more than 128
            codes, the most frequent are plotted.
        title: Title of the plot.
    """
    counts = transitions.cpu().double().numpy()
    order = _most_frequent(counts.sum(0) + counts.sum(1))
    plot = new_plot(6.4, 5.6)
    axes = _shares(plot, counts, order, order, "magma", "probability of the next code")
    axes.set_xticks(*_code_ticks(order), fontsize="x-small")
    axes.set(title=title, xlabel="code at t + 1", ylabel="code at t")
    return plot


def usage_bars(counts: Tensor, *, title: str = "Codebook usage") -> Figure:
    """Plot the number of samples of each code, in decreasing order.

    Args:
        counts: ``[codes]`` numbers of samples.
        title: Title of the plot.
    """
    values = np.sort(counts.cpu().double().numpy())[::-1]
    plot = new_plot(6.4, 4.8)
    axes = plot.subplots()
    # Steps, because bars of 1,024 codes are a thousand artists.
    axes.stairs(values, np.arange(len(values) + 1), fill=True)
    even = values.sum() / max(len(values), 1)
    axes.axhline(even, color="black", linestyle="--", linewidth=1, label=f"even use ({even:.1f})")
    dead = int((values == 0).sum())
    axes.set(title=title, xlabel=f"codes by frequency ({dead} dead)", ylabel="samples")
    axes.legend()
    return plot


def error_bars(errors: Mapping[str, Mapping[str, float]], *, title: str) -> Figure:
    """Plot errors by group, a panel for each grouping.

    Args:
        errors: Mean error, by grouping and group.
        title: Title of the plot.
    """
    plot = new_plot(3.2 * len(errors), 4.8)
    plot.suptitle(title)
    panels = plot.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for axes, (grouping, groups) in zip(panels, errors.items(), strict=True):
        axes.bar(range(len(groups)), list(groups.values()))
        axes.set_xticks(range(len(groups)), list(groups), rotation=90)
        axes.set_xlabel(grouping)
    panels[0].set_ylabel("mean squared error (scaled features)")
    return plot


def _most_frequent(frequency: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the codes to plot: those in use, at most 128, by decreasing frequency."""
    order = np.argsort(-frequency, kind="stable")
    return np.asarray(order[frequency[order] > 0][:_MOST_CODES])


def _shares(
    plot: Figure,
    counts: NDArray[np.float64],
    codes: NDArray[np.int64],
    columns: NDArray[np.int64] | slice,
    cmap: str,
    label: str,
) -> Axes:
    """Plot the counts of some codes, divided by their sums over all columns."""
    axes = plot.subplots()
    rows = counts[codes] / np.maximum(counts[codes].sum(1, keepdims=True), 1)
    image = axes.imshow(rows[:, columns], vmin=0, vmax=1, cmap=cmap, interpolation="none")
    plot.colorbar(image, ax=axes, label=label)
    axes.set_yticks(*_code_ticks(codes), fontsize="x-small")
    return axes


def _code_ticks(codes: NDArray[np.int64]) -> tuple[range, list[str]]:
    every = max(1, -(-len(codes) // _MOST_LABELS))
    return range(0, len(codes), every), [str(code) for code in codes[::every]]
