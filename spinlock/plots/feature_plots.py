"""Plots of features: histograms and rank correlations."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata

from spinlock.plots.plot_style import new_plot

_COLUMNS, _BARS = 6, 30
# Values span decades if the largest magnitude is as many times the median one.
DECADES_RATIO = 10.0
# Largest number of decades that the axis of such values resolves on each side of 0.
_MOST_DECADES = 6
# Smallest distance of two ticks, relative to the length of the axis.
_TICK_ROOM = 0.17
_BAR_COLOR = "#4c86c6"


def feature_histograms(
    values: NDArray[np.floating], names: Sequence[str], *, title: str, over: str = "samples"
) -> Figure:
    """Plot a histogram of each feature.

    The axis of values that span decades is logarithmic on both sides of 0, see `linear_width`.

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
            low, high = (float(end) for end in np.quantile(finite, [0.005, 0.995]))
            _histogram(axes, finite[(finite >= low) & (finite <= high)])
        axes.set_title(name, fontsize=7)
        axes.set_yticks([])
        axes.tick_params(axis="x", labelsize=6)
        axes.xaxis.get_offset_text().set_fontsize(6)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    plot.suptitle(f"{title}: histograms over {over} (without 0.5 % on either side)")
    return plot


def linear_width(values: NDArray[np.floating]) -> float | None:
    """Return the width about 0 in which the axis of values is linear; None if all of it is.

    Values span decades if the largest magnitude is at least ten times the median magnitude of the
    values other than 0. Beyond the width, their axis is logarithmic: it is proportional to
    asinh(x / width). The width is the twentieth part of the magnitudes in order of size, or a
    millionth of the largest one if that is more.

    Args:
        values: (n,) finite values.

    Example:
        >>> import numpy as np
        >>> linear_width(np.linspace(-1, 1, 101)) is None
        True
        >>> round(linear_width(np.geomspace(1e-3, 1, 101)), 5)
        0.00141
    """
    magnitudes = np.abs(values[values != 0]).astype(np.float64)
    if not len(magnitudes):
        return None
    largest = float(magnitudes.max())
    if largest < DECADES_RATIO * float(np.median(magnitudes)):
        return None
    return max(float(np.quantile(magnitudes, 0.05)), largest * 10.0**-_MOST_DECADES)


def _histogram(axes: Axes, values: NDArray[np.floating]) -> None:
    """Plot a histogram of finite values."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        low, high = low - 0.5, low + 0.5
    width = linear_width(values)
    if width is None:
        axes.hist(values, bins=_BARS, range=(low, high), color=_BAR_COLOR)
        axes.locator_params(axis="x", nbins=3)
        return
    edges = width * np.sinh(
        np.linspace(np.arcsinh(low / width), np.arcsinh(high / width), _BARS + 1)
    )
    # Rounding must not exclude the extremes.
    edges[0], edges[-1] = low, high
    axes.hist(values, bins=edges.tolist(), color=_BAR_COLOR)
    axes.set_xscale("asinh", linear_width=width)
    ticks = decade_ticks(low, high, width)
    axes.set_xticks(ticks, [_power(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def decade_ticks(low: float, high: float, width: float) -> list[float]:
    """Return up to five ticks of an axis that is logarithmic beyond a width: 0 and powers of ten.

    Args:
        low: Smallest value on the axis.
        high: Largest value on the axis.
        width: Width about 0 in which the axis is linear, positive.

    Example:
        >>> decade_ticks(-0.5, 2000.0, 0.01)
        [0.0, 1.0, 1000.0]
    """
    top = math.floor(math.log10(max(-low, high)))
    bottom = math.ceil(math.log10(width))
    most = 2 if low < -width and high > width else 3
    step = max(1, -(-(top - bottom + 1) // most))
    powers = [10.0**power for power in range(top, bottom - 1, -step)]
    ticks = [0.0, *powers, *(-power for power in powers)]
    # Labels must not overlap: 0 is kept, and of other ticks that are close the larger.
    room = _TICK_ROOM * (np.arcsinh(high / width) - np.arcsinh(low / width))
    kept: list[float] = []
    for tick in ticks:
        place = np.arcsinh(tick / width)
        free = all(abs(place - np.arcsinh(other / width)) >= room for other in kept)
        if low <= tick <= high and free:
            kept.append(tick)
    return sorted(kept)


def _power(tick: float) -> str:
    """Return the label of a tick."""
    if tick == 0:
        return "0"
    return f"${'-' * (tick < 0)}10^{{{round(math.log10(abs(tick)))}}}$"


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
