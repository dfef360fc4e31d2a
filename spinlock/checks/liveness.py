"""Liveness: the operator does something, and the noise does what its scale says."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from spinlock.checks.check_results import CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.simulation.forcing import schedule
from spinlock.simulation.parameter_space import typed_row
from spinlock.storage import schema

GROUP = "liveness"
# Ten times the rounding of float32.
MIN_CHANGE = 1e-6
MIN_RANK_CORRELATION = 0.95
# Later than one step, the operator amplifies or forgets what the noise did.
MIN_LATE_RANK_CORRELATION = 0.0
# Below this the spread is rounding: float32 holds fields of order 1 to 6e-8.
_RESOLVED_SPREAD = 1e-5
_MIN_SAMPLES = 8


def liveness_rows(source: CheckSource, fields: FieldStatistics) -> Iterator[CheckRow]:
    """The rows of the group, for the samples whose outputs were read."""
    steps = source.config.stored_steps
    step = steps[0] if steps else 1
    change = Claim(
        GROUP,
        "outputs change",
        f"least RMS(u_{step} - u_0) / RMS(u_0) of a realization",
        f">= {MIN_CHANGE:g}",
    )
    differ = Claim(
        GROUP,
        "realizations differ",
        f"least share of values of u_{step} in which two realizations differ",
        "> 0",
    )
    yield _least(change, source.lacks(schema.INPUTS, schema.OUTPUTS), fields.change, MIN_CHANGE)
    reason = source.lacks(schema.OUTPUTS) or _single(source)
    yield _least(differ, reason, fields.differing, math.nextafter(0.0, 1.0))
    yield from _spread_rows(source, fields, step)


def _single(source: CheckSource) -> str:
    return "there is one realization" if source.config.num_realizations == 1 else ""


def _least(claim: Claim, reason: str, values: NDArray[np.float64], least: float) -> CheckRow:
    read = np.flatnonzero(~np.isnan(values))
    if reason or not len(read):
        return claim.not_measurable(reason or "no sample could be read")
    worst = read[values[read].argmin()]
    text = f"{values[worst]:.3g} (sample {worst}, of {len(read)})"
    return claim.result(text, float(values[worst]), values[worst] >= least)


def expected_spread(source: CheckSource, rows: NDArray[np.int64], step: int) -> NDArray[np.float64]:
    """Standard deviation over realizations that the forcing alone gives a field at a timestep.

    The schedule's s(t) times what the update policy lets through: 1, dt or 1 - alpha. At t = 1 it
    is exact, since the realizations share F(u_0).

    Args:
        source: The file.
        rows: (n,) samples.
        step: Timestep t.
    """
    expected = []
    for row in source.column(schema.VALUES)[rows]:
        values = typed_row(row)
        through = {"autoregressive": 1.0, "residual": values.dt, "convex": 1 - values.alpha}
        scale = schedule(values, step, source.config.num_timesteps)
        expected.append(scale * through[values.update_policy])
    return np.array(expected)


def _spread_rows(source: CheckSource, fields: FieldStatistics, step: int) -> Iterator[CheckRow]:
    least = MIN_RANK_CORRELATION if step == 1 else MIN_LATE_RANK_CORRELATION
    rank = Claim(
        GROUP,
        "spread tracks noise_scale",
        f"rank correlation of the spread of u_{step} with its prediction from noise_scale",
        f">= {least:g}" if step == 1 else f"> {least:g}",
    )
    amplitude = Claim(
        GROUP,
        "noise amplitude",
        "mean of (spread of u_1 / its prediction)^2",
        "1 ± 5 standard errors, at most ± 0.5",
    )
    read = np.flatnonzero(~np.isnan(fields.spread))
    reason = source.lacks(schema.OUTPUTS, schema.VALUES) or _single(source)
    if not reason and len(read) < _MIN_SAMPLES:
        reason = f"{len(read)} samples were read, {_MIN_SAMPLES} are needed"
    if reason:
        yield rank.not_measurable(reason)
        yield amplitude.not_measurable(reason)
        return
    expected, spread = expected_spread(source, read, step), fields.spread[read]
    yield _rank_row(rank, expected, spread, least)
    if step > 1:
        yield amplitude.not_measurable("the first timestep is not stored")
    else:
        yield _amplitude_row(amplitude, expected, spread)


def _rank_row(
    claim: Claim, expected: NDArray[np.float64], spread: NDArray[np.float64], least: float
) -> CheckRow:
    if np.ptp(expected) == 0:
        return claim.not_measurable("all samples have the same noise")
    if np.ptp(spread) == 0:
        return claim.result("the spread does not vary", 0.0, False)
    value = float(spearmanr(expected, spread).statistic)
    holds = value >= least if least else value > 0
    return claim.result(f"{value:.4f} ({len(spread)} samples)", value, holds)


def _amplitude_row(
    claim: Claim, expected: NDArray[np.float64], spread: NDArray[np.float64]
) -> CheckRow:
    resolved = expected > _RESOLVED_SPREAD
    if resolved.sum() < _MIN_SAMPLES:
        return claim.not_measurable(
            f"only {resolved.sum()} samples have noise above float32 rounding"
        )
    ratios = np.square(spread[resolved] / expected[resolved])
    mean, error = float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))
    holds = abs(mean - 1) <= min(0.5, max(5 * error, 1e-3))
    return claim.result(f"{mean:.4f} ± {error:.4f} ({len(ratios)} samples)", mean, holds)
