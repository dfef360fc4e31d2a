"""Plots of features: histograms and rank correlations."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from spinlock.plots.plot_style import new_plot

_COLUMNS = 6


def feature_histograms(
    values: NDArray[np.floating], names: Sequence[str], *, title: str, over: str = "samples"
) -> Figure:
    """Plot a histogram of each feature.

    Args:
        values: (n, F) features; NaN and infinite values are ignored.
        names: Names of the F features.
        title: Title of the plot.
        over: Plural noun for the n rows; default: ``samples``.
    """
    rows = -(-len(names) // _COLUMNS)
    plot = new_plot(1.75 * _COLUMNS, 1.3 * rows + 0.5)
    panels = plot.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, name, column in zip(panels, names, values.T, strict=False):
        finite = column[np.isfinite(column)]
        if len(finite):
            # The outermost half percent on each side would squeeze the rest into one bar.
            low, high = np.quantile(finite, [0.005, 0.995])
            span = (low, high) if high > low else (low - 0.5, low + 0.5)
            axes.hist(finite, bins=30, range=span, color="#4c86c6")
        axes.set_title(name, fontsize=7)
        axes.set_yticks([])
        axes.tick_params(axis="x", labelsize=6)
        axes.locator_params(axis="x", nbins=3)
        axes.xaxis.get_offset_text().set_fontsize(6)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    plot.suptitle(f"{title}: histograms over {over} (without 0.5 % on either side)")
    return plot


def correlation_map(values: NDArray[np.floating], names: Sequence[str], *, title: str) -> Figure:
    """Plot the rank correlation of each pair of features (Spearman).

    Args:
        values: (n, F) features; samples with NaN or infinite values are ignored.
        names: Names of the F features.
        title: Title of the plot.
    """
    finite = values[np.isfinite(values).all(axis=1)]
    plot = new_plot(0.17 * len(names) + 2.9, 0.17 * len(names) + 1.9)
    axes = plot.subplots()
    image = axes.imshow(rank_correlations(finite), cmap="RdBu_r", vmin=-1, vmax=1)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, rotation=90, fontsize=6)
    axes.set_yticks(ticks, names, fontsize=6)
    plot.suptitle(f"{title}: rank correlations ({len(finite)} samples)")
    plot.colorbar(image, ax=axes, label="Spearman rank correlation", shrink=0.6, pad=0.02)
    return plot


def rank_correlations(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Spearman correlations of columns.

    Args:
        values: (n, F) columns.

    Returns:
        (F, F) correlations; 0 for columns that are constant.
    """
    if len(values) < 2:
        return np.zeros((values.shape[1], values.shape[1]))
    with np.errstate(invalid="ignore"):
        correlations = np.corrcoef(rankdata(values, axis=0), rowvar=False)
    return np.asarray(np.nan_to_num(np.atleast_2d(correlations)))
