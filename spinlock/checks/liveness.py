"""Checks of the dynamics: operators change the fields, noise has the amplitude of its scale."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.configuration.parameter_space import typed_row
from spinlock.simulation.forcing import schedule
from spinlock.storage import schema

# Ten times the rounding of float32.
MIN_CHANGE = 1e-6
MIN_RANK_CORRELATION = 0.95
# After the first timestep, the operator amplifies or dampens the noise of earlier timesteps.
MIN_LATE_RANK_CORRELATION = math.nextafter(0.0, 1.0)
# Below this the spread is rounding: float32 resolves fields of order 1 to 6e-8.
_RESOLVED_SPREAD = 1e-5
_MIN_SAMPLES = 8


def liveness_claims(source: CheckSource, fields: FieldStatistics) -> Iterator[Claim]:
    """Yield the claims of the group, for the samples whose outputs were read."""
    steps = source.config.stored_steps
    step = steps[0] if steps else 1
    yield Claim(
        "outputs change",
        f"smallest RMS(u_{step} - u_0) / RMS(u_0) over realizations",
        partial(_smallest, fields.numbers["change"], MIN_CHANGE),
        (schema.INPUTS, schema.OUTPUTS),
        f">= {MIN_CHANGE:g}",
    )
    yield Claim(
        "realizations differ",
        f"smallest share of values of u_{step} that differ between two realizations",
        partial(_differing, source, fields),
        (schema.OUTPUTS,),
        "> 0",
    )
    yield Claim(
        "spread tracks noise_scale",
        f"rank correlation between the spread of u_{step} and its prediction from noise_scale",
        partial(_rank_correlation, source, fields, step),
        (schema.OUTPUTS, *schema.value_names(source.config)),
        f">= {MIN_RANK_CORRELATION:g}" if step == 1 else "> 0",
    )
    yield Claim(
        "noise amplitude",
        "mean of (spread of u_1 / its prediction)^2",
        partial(_amplitude, source, fields, step),
        (schema.OUTPUTS, *schema.value_names(source.config)),
        "1 ± 5 standard errors, at most ± 0.5",
    )


def _require_realizations(source: CheckSource) -> None:
    if source.config.num_realizations == 1:
        raise NotMeasurableError("the dataset has one realization per sample")


def _differing(source: CheckSource, fields: FieldStatistics) -> Measurement:
    _require_realizations(source)
    return _smallest(fields.numbers["differing"], math.nextafter(0.0, 1.0))


def _smallest(values: NDArray[np.float64], least: float) -> Measurement:
    read = np.flatnonzero(~np.isnan(values))
    if not len(read):
        raise NotMeasurableError("no sample could be read")
    worst = read[values[read].argmin()]
    text = f"{values[worst]:.3g} (sample {worst}, of {len(read)})"
    return Measurement(text, float(values[worst]), bool(values[worst] >= least))


def expected_spread(source: CheckSource, rows: NDArray[np.int64], step: int) -> NDArray[np.float64]:
    """Return the standard deviation over realizations that the forcing of one timestep causes.

    This is the schedule s(t) times the factor of the update policy: 1, dt or 1 - alpha. It is exact
    at t = 1, because realizations share F(u_0).

    Args:
        source: File under check.
        rows: (n,) sample indices.
        step: Timestep t.
    """
    expected = []
    for row in source.parameter_values()[rows]:
        values = typed_row(row)
        factor = {"autoregressive": 1.0, "residual": values.dt, "convex": 1 - values.alpha}
        scale = schedule(values, step, source.config.num_timesteps)
        expected.append(scale * factor[values.update_policy])
    return np.array(expected)


def _spreads(
    source: CheckSource, fields: FieldStatistics, step: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the expected and the measured spread of the samples read."""
    _require_realizations(source)
    read = np.flatnonzero(~np.isnan(fields.numbers["spread"]))
    if len(read) < _MIN_SAMPLES:
        raise NotMeasurableError(
            f"{len(read)} samples were read, at least {_MIN_SAMPLES} are needed"
        )
    return expected_spread(source, read, step), fields.numbers["spread"][read]


def _rank_correlation(source: CheckSource, fields: FieldStatistics, step: int) -> Measurement:
    expected, spread = _spreads(source, fields, step)
    if np.ptp(expected) == 0:
        raise NotMeasurableError("all samples have the same noise")
    if np.ptp(spread) == 0:
        return Measurement("the spread does not vary", 0.0, False)
    value = float(spearmanr(expected, spread).statistic)
    least = MIN_RANK_CORRELATION if step == 1 else MIN_LATE_RANK_CORRELATION
    return Measurement(f"{value:.4f} ({len(spread)} samples)", value, value >= least)


def _amplitude(source: CheckSource, fields: FieldStatistics, step: int) -> Measurement:
    expected, spread = _spreads(source, fields, step)
    if step > 1:
        raise NotMeasurableError("the first timestep is not stored")
    resolved = expected > _RESOLVED_SPREAD
    if resolved.sum() < _MIN_SAMPLES:
        raise NotMeasurableError(f"only {resolved.sum()} samples have noise above float32 rounding")
    ratios = np.square(spread[resolved] / expected[resolved])
    mean, error = float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios)))
    holds = abs(mean - 1) <= min(0.5, max(5 * error, 1e-3))
    return Measurement(f"{mean:.4f} ± {error:.4f} ({len(ratios)} samples)", mean, holds)
