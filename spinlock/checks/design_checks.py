"""The design: how evenly operators fill their space, and that initial conditions ignore them.

The promises are made at N = 10,000 operators and 15 axes. For other numbers the targets scale as
scrambled Sobol sequences were measured to (16 dimensions, N = 4..10,000, several seeds).
"""

import json
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from spinlock.checks.check_results import CheckRow, Claim
from spinlock.checks.checked_file import CheckSource
from spinlock.simulation.parameter_space import PARAMETER_NAMES
from spinlock.simulation.sobol_design import design_quality
from spinlock.storage import schema
from spinlock.storage.layout import text_attribute

GROUP = "design"
PROMISED_AT = 10_000
DISCREPANCY, CORRELATION = 0.00052, 0.0025
# Counts that a third of an axis, and a ninth of a pair of axes, may have less than its share.
STRATUM_ALLOWANCE, PAIR_ALLOWANCE = 5, 25
# From this many samples on, all pairs of the design's 16 coordinates are balanced; before, some
# are worse than random ones, and only gross dependence can be told.
BALANCED_AT = 2_000
# Largest chi-squared, in degrees of freedom, before that; 8.9 is the most that 31 seeds gave.
GROSS = 10.0
SIGNIFICANCE = 1e-3
_STRATA = 3
# Fewer points are not even on average what independent ones are.
_MIN_POINTS = 4


def design_rows(source: CheckSource) -> Iterator[CheckRow]:
    """The rows of the group."""
    yield from _row_rows(source)
    yield from _quality_rows(source)
    yield _independence_row(source)


def _row_rows(source: CheckSource) -> Iterator[CheckRow]:
    """Each row of the file against the design that its configuration amounts to."""
    text = "is row i of the configuration's design"
    claim = Claim(GROUP, "points", f"parameters/params of sample i {text}", "0 samples differ")
    if reason := source.lacks(schema.PARAMS):
        yield claim.not_measurable(reason)
    else:
        differ = (source.column(schema.PARAMS) != source.design.params).any(axis=1)
        yield claim.count([f"sample {row}" for row in np.flatnonzero(differ)])
    claim = Claim(GROUP, "assignment", f"the variant of sample i {text}", "0 samples differ")
    if reason := source.lacks(schema.IC_TYPES):
        yield claim.not_measurable(reason)
    else:
        names = np.array([name.encode() for name in source.mixture.names])
        differ = source.column(schema.IC_TYPES) != names[source.design.variant]
        yield claim.count([f"sample {row}" for row in np.flatnonzero(differ)])


def quality_targets(points: int, dim: int = len(PARAMETER_NAMES)) -> dict[str, float]:
    """The values that `design_quality` must reach for a design of so many points.

    The squared centered L2 discrepancy falls as N^-1.3, capped at the expectation for independent
    uniform points, ((5/4)^d - (13/12)^d) / N (Hickernell 1998); the largest correlation as N^-1.2;
    counts of strata lie below N/3 and N/9 by a number that does not grow.
    """
    scale = PROMISED_AT / points
    random = ((5 / 4) ** dim - (13 / 12) ** dim) / points
    return {
        "centered_l2_discrepancy": min(random, DISCREPANCY * scale ** (1.3 if scale > 1 else 1.0)),
        "max_abs_correlation": min(1.0, CORRELATION * max(scale, 1.0) ** 1.2),
        "min_stratum_count": max(0.0, points / 3 - STRATUM_ALLOWANCE),
        "min_pair_stratum_count": max(0.0, points / 9 - PAIR_ALLOWANCE),
    }


_QUALITY = {
    "centered_l2_discrepancy": "squared centered L2 discrepancy of the operators",
    "max_abs_correlation": "largest |correlation| of two axes",
    "min_stratum_count": "smallest count in a third of an axis",
    "min_pair_stratum_count": "smallest count in a ninth of a pair of axes",
}


def _quality_rows(source: CheckSource) -> Iterator[CheckRow]:
    probes = source.config.probes_per_operator
    num = -(-source.num_samples // probes)
    targets = quality_targets(num)
    reason = source.lacks(schema.PARAMS)
    if num < _MIN_POINTS:
        reason = f"there are {num} operators, {_MIN_POINTS} are needed"
    elif not reason and not np.isfinite(params := source.column(schema.PARAMS)).all():
        reason = "parameters/params holds NaN or infinity"
    measured = {} if reason else design_quality(params[::probes])
    for name, text in _QUALITY.items():
        least = name.startswith("min_")
        sign, target = (">=", targets[name]) if least else ("<=", targets[name])
        claim = Claim(GROUP, name, f"{text} ({num})", f"{sign} {target:.3g}")
        if reason:
            yield claim.not_measurable(reason)
            continue
        value = measured[name]
        holds = value >= target if least else value <= target
        yield claim.result(f"{value:.4g}", value, holds)
    claim = Claim(
        GROUP, "stored quality", "the attribute design_quality is what is measured", "equal"
    )
    if reason:
        yield claim.not_measurable(reason)
        return
    stored = _stored_quality(source)
    different = [n for n, v in measured.items() if not math.isclose(stored.get(n, math.nan), v)]
    yield claim.result(", ".join(different) or "equal", float(len(different)), not different)


def _stored_quality(source: CheckSource) -> dict[str, float]:
    try:
        held = json.loads(text_attribute(source.file, "design_quality"))
    except (KeyError, TypeError, json.JSONDecodeError):
        return {}
    return {name: float(value) for name, value in held.items()} if isinstance(held, dict) else {}


def _independence_row(source: CheckSource) -> CheckRow:
    num = source.num_samples
    balanced = num >= BALANCED_AT
    claim = Claim(
        GROUP,
        "independence",
        f"variant and thirds of each axis are independent (chi-squared, N = {num})",
        f"p >= {SIGNIFICANCE:g}"
        if balanced
        else f"chi-squared <= {GROSS:g} degrees of freedom (N < {BALANCED_AT})",
    )
    if reason := source.lacks(schema.PARAMS, schema.IC_TYPES):
        return claim.not_measurable(reason)
    labels = np.unique(source.variants, return_inverse=True)[1]
    points = np.nan_to_num(source.column(schema.PARAMS).astype(np.float64), nan=0.0)
    strata = np.clip(np.floor(points * _STRATA), 0, _STRATA - 1).astype(np.int64)
    found = [
        (*_chi_squared(labels, strata[:, axis]), name) for axis, name in enumerate(PARAMETER_NAMES)
    ]
    statistic, freedom, axis = max(found, key=lambda one: one[0] - one[1])
    if not freedom:
        return claim.not_measurable("there is one variant, or one third of each axis in use")
    p = float(chi2.sf(statistic, freedom))
    # Sobol points are more even than random ones: p is near 1 where they are balanced.
    holds = p >= SIGNIFICANCE if balanced else statistic <= GROSS * freedom
    text = f"largest for {axis}: chi-squared {statistic:.1f} of {freedom} degrees, p = {p:.2g}"
    return claim.result(text, p, holds)


def _chi_squared(labels: NDArray[np.int64], strata: NDArray[np.int64]) -> tuple[float, int]:
    """Pearson's statistic of two columns of classes, and its degrees of freedom."""
    table = np.zeros((labels.max() + 1, _STRATA))
    np.add.at(table, (labels, strata), 1)
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float((np.square(table - expected) / expected).sum())
    return statistic, (table.shape[0] - 1) * (table.shape[1] - 1)
