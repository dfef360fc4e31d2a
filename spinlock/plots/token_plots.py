"""Plots of tokens: usage of codes, variants by token, errors by group, transitions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from spinlock.plots.plot_style import new_plot

# Largest number of tokens with a row of their own; more rows would be thinner than pixels.
_MOST_TOKENS = 128
# Largest numbers of readable labels, and the height of one in inches.
_MOST_LABELS, _MOST_TRANSITION_LABELS, _LABEL = 64, 32, 0.115


def heatmap(
    contingency: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    kind: str = "variant",
    title: str = "Samples by token and variant",
) -> Figure:
    """Plot the shares of variants, or of other classes, among the samples of each token.

    Args:
        contingency: ``[tokens, classes]`` counts. Tokens without samples are left out; of more than
            128 tokens, the most frequent are plotted, in order of decreasing frequency.
        class_names: Names of the classes, default: their indices.
        kind: Name of the kind of classes, default: ``variant``.
        title: Title of the plot.
    """
    counts = contingency.cpu().double().numpy()
    order = _most_frequent(counts.sum(1))
    rows = max(0.045 * max(len(order), 40), _LABEL * min(len(order), _MOST_LABELS))
    plot = new_plot(2.5 + 0.5 * counts.shape[1], 2.5 + rows)
    axes = _shares(plot, counts, order, slice(None), "viridis", "share of the token's samples")
    axes.set_yticks(*_token_ticks(order, _MOST_LABELS), fontsize="x-small")
    names = class_names if class_names is not None else range(counts.shape[1])
    axes.set_aspect("auto")
    axes.set_xticks(range(counts.shape[1]), [str(n) for n in names], rotation=90)
    cut = "" if len(order) == (counts.sum(1) > 0).sum() else f" ({len(order)} most frequent)"
    axes.set(title=title, xlabel=kind, ylabel=f"token, by frequency{cut}")
    return plot


def transition_matrix(transitions: Tensor, *, title: str = "Token transitions") -> Figure:
    """Plot the probabilities of the next token, from one timestep to the next.

    Args:
        transitions: ``[tokens, tokens]`` counts of transitions from row to column; of more than 128
            tokens, the most frequent are plotted.
        title: Title of the plot.
    """
    counts = transitions.cpu().double().numpy()
    order = _most_frequent(counts.sum(0) + counts.sum(1))
    plot = new_plot(6.4, 5.6)
    axes = _shares(plot, counts, order, order, "magma", "probability of the next token")
    ticks = _token_ticks(order, _MOST_TRANSITION_LABELS)
    axes.set_xticks(*ticks, fontsize="x-small")
    axes.set_yticks(*ticks, fontsize="x-small")
    axes.set(title=title, xlabel="token at t + 1", ylabel="token at t")
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
    """Return the tokens to plot: those in use, at most 128, by decreasing frequency."""
    order = np.argsort(-frequency, kind="stable")
    return np.asarray(order[frequency[order] > 0][:_MOST_TOKENS])


def _shares(
    plot: Figure,
    counts: NDArray[np.float64],
    tokens: NDArray[np.int64],
    columns: NDArray[np.int64] | slice,
    cmap: str,
    label: str,
) -> Axes:
    """Plot the counts of some tokens, divided by their sums over all columns."""
    axes = plot.subplots()
    rows = counts[tokens] / np.maximum(counts[tokens].sum(1, keepdims=True), 1)
    image = axes.imshow(rows[:, columns], vmin=0, vmax=1, cmap=cmap, interpolation="none")
    plot.colorbar(image, ax=axes, label=label)
    return axes


def _token_ticks(tokens: NDArray[np.int64], most: int) -> tuple[range, list[str]]:
    every = max(1, -(-len(tokens) // most))
    return range(0, len(tokens), every), [str(token) for token in tokens[::every]]
