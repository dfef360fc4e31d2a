"""Figures of features: a histogram of each, and how they go together."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from spinlock.plots.plot_style import new_figure

_COLUMNS = 6


def feature_histograms(values: NDArray[np.floating], names: Sequence[str], *, title: str) -> Figure:
    """A histogram of each feature.

    Args:
        values: [n, F] features; values that are not finite are left out.
        names: Names of the F features.
        title: Title of the figure.
    """
    rows = -(-len(names) // _COLUMNS)
    figure = new_figure(1.75 * _COLUMNS, 1.3 * rows + 0.5)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis, name, column in zip(axes, names, values.T, strict=False):
        finite = column[np.isfinite(column)]
        if len(finite):
            # The outermost half percent on each side would squeeze the rest into one bar.
            low, high = np.quantile(finite, [0.005, 0.995])
            span = (low, high) if high > low else (low - 0.5, low + 0.5)
            axis.hist(finite, bins=30, range=span, color="#4c86c6")
        axis.set_title(name, fontsize=7)
        axis.set_yticks([])
        axis.tick_params(axis="x", labelsize=6)
        axis.locator_params(axis="x", nbins=3)
        axis.xaxis.get_offset_text().set_fontsize(6)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    figure.suptitle(f"{title}: number of samples by value (0.5 % on either side not shown)")
    return figure


def correlation_map(values: NDArray[np.floating], names: Sequence[str], *, title: str) -> Figure:
    """Rank correlations of all pairs of features (Spearman).

    Args:
        values: [n, F] features; samples with a value that is not finite are left out.
        names: Names of the F features.
        title: Title of the figure.
    """
    finite = values[np.isfinite(values).all(axis=1)]
    figure = new_figure(0.17 * len(names) + 2.9, 0.17 * len(names) + 1.9)
    axis = figure.subplots()
    image = axis.imshow(rank_correlations(finite), cmap="RdBu_r", vmin=-1, vmax=1)
    ticks = np.arange(len(names))
    axis.set_xticks(ticks, names, rotation=90, fontsize=6)
    axis.set_yticks(ticks, names, fontsize=6)
    figure.suptitle(f"{title}: rank correlations ({len(finite)} samples)")
    figure.colorbar(image, ax=axis, label="Spearman rank correlation", shrink=0.6, pad=0.02)
    return figure


def rank_correlations(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman correlations [F, F] of columns [n, F]; 0 with a column that does not vary."""
    if len(values) < 2:
        return np.zeros((values.shape[1], values.shape[1]))
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    norm = np.sqrt(np.square(ranks).sum(axis=0))
    ranks /= np.where(norm > 0, norm, 1)
    return np.asarray(ranks.T @ ranks)
