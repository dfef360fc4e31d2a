"""Checks of the design: how evenly operators fill the unit cube, independence of the variants.

The targets are stated for 10,000 operators and 15 axes. For other numbers they are scaled as
measured on scrambled Sobol sequences (16 dimensions, N = 4 to 10,000, several seeds; 18 to 24
dimensions, N = 2,000 and 10,000, four seeds).
"""

import json
import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
from scipy.stats import chi2_contingency
from scipy.stats.contingency import crosstab

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError, count_samples
from spinlock.simulation.sobol_design import design_quality
from spinlock.storage import schema
from spinlock.storage.columns import encoded

PROMISED_AT = 10_000
PROMISED_AXES = 15
DISCREPANCY, CORRELATION = 0.00052, 0.0025
# Growth of the discrepancy with each further axis; other allowances double for more axes.
DISCREPANCY_GROWTH = 1.56
# Allowed shortfall of the counts in a third of an axis, and in a ninth of a pair of axes.
STRATUM_ALLOWANCE, PAIR_ALLOWANCE = 5, 25
# From this number of samples on, all pairs of the 16 coordinates are balanced. Below it, some are
# less balanced than random points, so that only strong dependence can be detected.
BALANCED_AT = 2_000
# Limit on chi-squared per degree of freedom below BALANCED_AT; the largest over 31 seeds was 8.9.
GROSS = 10.0
SIGNIFICANCE = 1e-3
_STRATA = 3
# With fewer points, the expectations for independent points do not apply.
_MIN_POINTS = 4
_QUALITY = {
    "centered_l2_discrepancy": "squared centered L2 discrepancy of {} operators",
    "max_abs_correlation": "largest |correlation| between two axes of {} operators",
    "min_stratum_count": "smallest count in a third of an axis of {} operators",
    "min_pair_stratum_count": "smallest count in a ninth of two axes of {} operators",
}


def design_claims(source: CheckSource) -> Iterator[Claim]:
    """Yield the claims of the group."""
    yield Claim(
        "points",
        "parameters/params equals the design of the stored configuration",
        lambda: count_samples((source.column(schema.PARAMS) != source.design.params).any(axis=1)),
        (schema.PARAMS,),
    )
    yield Claim(
        "assignment",
        "variants equal those of the design of the stored configuration",
        partial(_assignment, source),
        (schema.IC_TYPES,),
    )
    points = len(source.samples[:: source.config.probes_per_operator])
    measured = cache(partial(_measured_quality, source))
    targets = quality_targets(points, len(source.config.space.names))
    for name, text in _QUALITY.items():
        measure = partial(_quality, measured, name, targets[name])
        target = f"{'>=' if name.startswith('min_') else '<='} {targets[name]:.3g}"
        yield Claim(name, text.format(points), measure, (schema.PARAMS,), target)
    yield Claim(
        "stored quality",
        "the attribute design_quality equals the measured values",
        partial(_stored_quality, source, measured),
        (schema.PARAMS,),
        "equal",
    )
    balanced = source.num_samples >= BALANCED_AT
    yield Claim(
        "independence",
        "variants are independent of the thirds of each axis (chi-squared test)",
        partial(_independence, source, balanced),
        (schema.PARAMS, schema.IC_TYPES),
        f"p >= {SIGNIFICANCE:g}"
        if balanced
        else f"chi-squared per degree of freedom <= {GROSS:g} (N < {BALANCED_AT})",
    )


def _assignment(source: CheckSource) -> Measurement:
    expected = encoded(source.config.mixture.names)[source.design.variant]
    return count_samples(source.column(schema.IC_TYPES) != expected)


def quality_targets(points: int, dim: int) -> dict[str, float]:
    """Return the values that `design_quality` must reach.

    The squared centered L2 discrepancy falls as N^-1.3, capped at its expectation for independent
    uniform points, ((5/4)^d - (13/12)^d) / N (Hickernell 1998). The largest correlation falls as
    N^-1.2. Counts in strata stay within a constant of N/3 and N/9.

    Args:
        points: Number of points N.
        dim: Number of axes d.
    """
    scale = PROMISED_AT / points
    more = max(0, dim - PROMISED_AXES)
    discrepancy = DISCREPANCY * DISCREPANCY_GROWTH**more * scale ** (1.3 if scale > 1 else 1.0)
    slack = 2 if more else 1
    random = ((5 / 4) ** dim - (13 / 12) ** dim) / points
    return {
        "centered_l2_discrepancy": min(random, discrepancy),
        "max_abs_correlation": min(1.0, slack * CORRELATION * max(scale, 1.0) ** 1.2),
        "min_stratum_count": max(0.0, points / 3 - slack * STRATUM_ALLOWANCE),
        "min_pair_stratum_count": max(0.0, points / 9 - slack * PAIR_ALLOWANCE),
    }


def _measured_quality(source: CheckSource) -> dict[str, float]:
    points = source.column(schema.PARAMS)[:: source.config.probes_per_operator]
    if len(points) < _MIN_POINTS:
        raise NotMeasurableError(
            f"the file has {len(points)} operators, at least {_MIN_POINTS} needed"
        )
    if not np.isfinite(points).all():
        raise NotMeasurableError("parameters/params contains NaN or infinity")
    return design_quality(points)


def _quality(measured: Callable[[], dict[str, float]], name: str, target: float) -> Measurement:
    value = measured()[name]
    holds = value >= target if name.startswith("min_") else value <= target
    return Measurement(f"{value:.4g}", value, holds)


def _stored_quality(source: CheckSource, measured: Callable[[], dict[str, float]]) -> Measurement:
    stored = json.loads(source.text("design_quality"))
    different = [
        name
        for name, value in measured().items()
        if not math.isclose(float(stored.get(name, math.nan)), value)
    ]
    return Measurement(", ".join(different) or "equal", float(len(different)), not different)


def _independence(source: CheckSource, balanced: bool) -> Measurement:
    labels = np.unique(source.variants, return_inverse=True)[1]
    points = np.nan_to_num(source.column(schema.PARAMS).astype(np.float64), nan=0.0)
    strata = np.clip(np.floor(points * _STRATA), 0, _STRATA - 1).astype(np.int64)
    found = [
        (chi2_contingency(crosstab(labels, strata[:, axis]).count, correction=False), name)
        for axis, name in enumerate(source.config.space.names)
    ]
    test, axis = max(found, key=lambda one: one[0].statistic - one[0].dof)
    statistic, freedom, p = float(test.statistic), int(test.dof), float(test.pvalue)
    if not freedom:
        raise NotMeasurableError("the samples have one variant, or lie in one third of each axis")
    # Sobol points are more even than random ones: p is close to 1 where they are balanced.
    holds = p >= SIGNIFICANCE if balanced else statistic <= GROSS * freedom
    text = f"largest for {axis}: chi-squared {statistic:.1f}, {freedom} degrees of freedom, "
    return Measurement(f"{text}p = {p:.2g}", p, holds)
