"""The plots of trajectories in the report: shares of their regimes, and examples over time."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spinlock.checks.trajectory_checks import FEWEST_TIMESTEPS, MAX_SAMPLES
from spinlock.checks.trajectory_histories import NEEDS, read_trajectories
from spinlock.checks.trajectory_regimes import REGIMES, RULES
from spinlock.plots.field_plots import film_strip
from spinlock.plots.regime_plots import regime_bars
from spinlock.report.plot_data import ReportSource
from spinlock.report.report_plot import ReportPlot

_SECTION = "Trajectories"


def trajectory_plots(source: ReportSource) -> Iterator[ReportPlot]:
    """Yield the plots of trajectories of several timesteps.

    Long trajectories have a plot of their regimes, and an example of each regime if their fields
    are stored; short ones have one example.
    """
    config = source.config
    several = len(config.stored_steps) > 1
    if config.num_timesteps >= FEWEST_TIMESTEPS and all(name in source.specs for name in NEEDS):
        regimes = read_trajectories(source, MAX_SAMPLES).regimes
        yield _shares(source, regimes)
        if several:
            yield from _examples(source, regimes)
    elif several:
        row = source.example(source.present[-1], update_policy="convex")
        yield ReportPlot(
            _SECTION,
            "One sample over time: two noise realizations of the same operator and initial "
            "condition.",
            partial(_strip, source, row, ""),
        )


def _shares(source: ReportSource, regimes: NDArray[np.int64]) -> ReportPlot:
    values = source.parameter_values(source.rows[: len(regimes)])
    groups = {"all": _counts(regimes)}
    for axis in ("update_policy", "normalization"):
        for choice in np.unique(values[axis]):
            groups[choice.decode()] = _counts(regimes[values[axis] == choice])
    return ReportPlot(
        _SECTION,
        f"Regimes of up to {MAX_SAMPLES:,} trajectories, by update policy and normalization. The "
        "first of the rules below that holds applies; docs/dynamics.md explains them.",
        partial(
            regime_bars,
            groups,
            REGIMES,
            title=f"Regimes of trajectories of {source.config.num_timesteps} timesteps",
        ),
        terms=tuple(RULES.items()),
    )


def _counts(regimes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(regimes, minlength=len(REGIMES))


def _examples(source: ReportSource, regimes: NDArray[np.int64]) -> Iterator[ReportPlot]:
    for place, name in enumerate(REGIMES):
        rows = np.flatnonzero(regimes == place)
        if len(rows):
            yield ReportPlot(
                _SECTION,
                "The first trajectory of each regime: two noise realizations of the same operator "
                "and initial condition.",
                partial(_strip, source, int(rows[0]), f"{name}: "),
            )


def _strip(source: ReportSource, row: int, head: str) -> Figure:
    title = f"{head}{source.variants[row]}, channel 0, {source.describe(row)}"
    steps = source.config.stored_steps
    return film_strip(source.trajectory(row)[:, :, 0], steps, title=title)
