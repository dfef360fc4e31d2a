"""Reads the histories of trajectories from the features of a dataset file."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.trajectory_regimes import (
    SATURATED_PIXELS,
    SATURATED_RMS,
    SATURATED_VALUE,
    Histories,
    Values,
    classify,
)
from spinlock.configuration.parameter_space import typed_row
from spinlock.features import PER_TIMESTEP_NAMES
from spinlock.features.response import response_names
from spinlock.features.response.response_names import NOISE_NAMES
from spinlock.features.response.step_spectra import ABSOLUTE_FLOOR
from spinlock.runtime.ordered_map import row_blocks
from spinlock.simulation.forcing import schedule
from spinlock.simulation.rollout import update_weights
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile

#: Datasets of features that histories are computed from.
NEEDS = (
    schema.INITIAL_FEATURES,
    schema.PER_TIMESTEP,
    schema.RESPONSES,
    schema.NOISE_RESPONSES,
    schema.DIVERGENCE,
)
# Positive statistics of a field that, like its rms, must not drift in a periodic trajectory.
_STATISTICS = ("spatial_std", "spatial_iqr", "gradient_magnitude_mean", "laplacian_std")
# Logarithms have this floor.
_SMALLEST = 1e-12
# Fields with a larger share of their power in the channel means are flat up to rounding.
_FLAT = 0.9999
# The spread of realizations that are equal, in powers of ten, up to rounding.
_SILENT = 0.5 * np.log10(ABSOLUTE_FLOOR) + 1e-3


class Trajectories(NamedTuple):
    """What becomes of the trajectories of N samples.

    Attributes:
        regimes: Positions in `REGIMES`, (N,).
        saturated: Whether u_T is saturated, (N,).
        possible: Whether u_T can be saturated, given its rms, (N,).
    """

    regimes: NDArray[np.int64]
    saturated: NDArray[np.bool_]
    possible: NDArray[np.bool_]


def read_trajectories(source: DatasetFile, samples: int) -> Trajectories:
    """Determine what becomes of the trajectories of the first samples of a file.

    Args:
        source: Dataset file with four or more timesteps and the datasets `NEEDS`.
        samples: Largest number of samples.
    """
    parts = []
    for rows in row_blocks(source.rows[:samples]):
        histories = read_histories(source, rows)
        parts.append((classify(histories), histories.saturated, _possible(histories.rms[:, -1])))
    return Trajectories(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def stores_last(source: DatasetFile) -> bool:
    """Return whether a file stores u_T."""
    steps = source.config.stored_steps
    return bool(steps) and steps[-1] == source.config.num_timesteps


def _possible(rms: Values) -> NDArray[np.bool_]:
    """Return which fields can be saturated.

    By Markov's inequality the share of values with |u| > v is at most <u^2> / v^2.
    """
    return np.asarray(rms > np.sqrt(SATURATED_PIXELS) * SATURATED_VALUE)


def _saturated(source: DatasetFile, row: int) -> bool:
    """Return whether the stored u_T of a sample is saturated."""
    last = source.trajectory(row)[:, -1]
    return bool((np.abs(last) > SATURATED_VALUE).mean() > SATURATED_PIXELS)


def read_histories(source: DatasetFile, rows: range) -> Histories:
    """Read the histories of the samples in some rows of a dataset file.

    Args:
        source: Dataset file with two or more timesteps and the datasets `NEEDS`.
        rows: Rows of the file.
    """
    steps = range(1, source.config.num_timesteps + 1)
    forcing = []
    for row in source.parameter_values(rows):
        values = typed_row(row)
        weight = update_weights(values)[1]
        forcing.append([weight * schedule(values, step, len(steps)) for step in steps])
    arrays = {name: source.column(name, rows).astype(np.float64) for name in NEEDS}
    histories = feature_histories(arrays, np.array(forcing))
    if not stores_last(source):
        return histories
    saturated = np.zeros(len(rows), dtype=bool)
    # The rms from features has an error of rounding; a hundredth is far more.
    for place in np.flatnonzero(_possible(1.01 * histories.rms[:, -1])):
        saturated[place] = _saturated(source, rows[place])
    return histories._replace(saturated=saturated)


def feature_histories(arrays: dict[str, Values], forcing: Values) -> Histories:
    """Compute histories from features, which tell by the rms whether u_T is saturated.

    With two or more realizations the forcing is measured at u_1, after the flow of transport
    operators, and only its schedule is taken from ``forcing``.

    Args:
        arrays: Arrays of the datasets `NEEDS` by name.
        forcing: Standard deviation of the forcing that each timestep adds, (N, T).
    """
    fields, responses = arrays[schema.PER_TIMESTEP], arrays[schema.RESPONSES]
    named = _named(PER_TIMESTEP_NAMES, fields)
    initial = _named(PER_TIMESTEP_NAMES, arrays[schema.INITIAL_FEATURES])
    response = _named(response_names(responses.shape[-1] - len(response_names(0))), responses)
    noise = _named(NOISE_NAMES, arrays[schema.NOISE_RESPONSES])
    first = np.sqrt(initial["spatial_variance"] + np.square(initial["spatial_mean"]))
    rms = np.concatenate((first[:, None], _root_mean_square(named, response)), axis=1)
    step = 10 ** response["increment"] * rms[:, :-1]
    # Powers of ten of the logarithms, of which all but the last column are differences.
    growth = arrays[schema.DIVERGENCE][:, :-1].cumsum(axis=1)
    start = noise["noise_abs"][:, None]
    # Equal realizations tell as little as one.
    start = np.where(start > _SILENT, start, np.nan)
    spread = 10 ** np.concatenate((start, start + growth), axis=1)
    measured = np.isfinite(start)
    relative = np.divide(forcing, forcing[:, :1], out=np.ones_like(forcing), where=forcing > 0)
    forcing = np.where(measured, np.where(measured, spread[:, :1], 0.0) * relative, forcing)
    # The first increment is that of the mean of the realizations, without forcing.
    known = np.where(measured[:, 0], np.hypot(step[:, 0], forcing[:, 0]), step[:, 0])
    step = np.concatenate((known[:, None], step[:, 1:]), axis=1)
    statistics = np.stack([rms[:, 1:], *(named[name] for name in _STATISTICS)], axis=-1)
    logarithms = np.log(np.maximum(statistics, _SMALLEST))
    return Histories(rms, step, forcing, spread, logarithms, rms[:, -1] >= SATURATED_RMS)


def _named(names: Sequence[str], values: Values) -> dict[str, Values]:
    return dict(zip(names, np.moveaxis(values, -1, 0), strict=True))


def _root_mean_square(named: dict[str, Values], response: dict[str, Values]) -> Values:
    """Return the rms of u_1 ... u_T, (N, T).

    The variance within channels is a feature. The share of the channel means in the power is the
    square of ``mean_out``. The variance of flat fields vanishes, so their rms is the ratio of the
    mean over channels, in absolute and in relative units.
    """
    variance, mean = named["spatial_variance"], named["spatial_mean"]
    share = np.square(response["mean_out"])
    power = np.maximum(variance / (1 - np.minimum(share, _FLAT)), variance + np.square(mean))
    signed = np.abs(response["mean_signed"])
    usable = (share > _FLAT) & (signed > 0.01)
    ratio = np.divide(np.abs(mean), signed, out=np.zeros_like(mean), where=usable)
    return np.asarray(np.where(usable, ratio, np.sqrt(power)))
