"""Checks of long trajectories: shares of the regimes, what happens late, and how many saturate.

Nothing is promised about them: they describe the space of operators that a configuration chose.
Everything comes from the stored features, except the share of saturated fields, which is counted on
the stored fields where there are any.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError
from spinlock.checks.field_statistics import SATURATED_VALUE, FieldStatistics
from spinlock.checks.trajectory_histories import NEEDS, read_histories, sample_regimes
from spinlock.checks.trajectory_regimes import REGIMES, late_share
from spinlock.runtime.ordered_map import row_blocks
from spinlock.storage import schema

#: Shorter trajectories have no quarters, and no claims.
FEWEST_TIMESTEPS = 8
#: Samples whose regimes are determined, and whose features are ranked, in bounded memory.
MAX_SAMPLES, MAX_RANKED = 5_000, 1_000
#: A sample is saturated if more than this share of u_T is.
SATURATED_PIXELS = 0.1
_TARGET = "reported only"


def trajectory_claims(source: CheckSource, fields: FieldStatistics) -> Iterator[Claim]:
    """Yield the claims of the group; there are none if T < 8.

    Args:
        source: File under check.
        fields: Statistics of the stored fields.
    """
    if source.config.num_timesteps < FEWEST_TIMESTEPS:
        return
    yield Claim(
        "regimes",
        "share of each regime of trajectories (docs/dynamics.md)",
        partial(_shares, source),
        (*NEEDS, *schema.value_names(source.config)),
        _TARGET,
    )
    yield Claim(
        "second half",
        "share of the features' variance that is variance over time after T/2",
        partial(_late, source),
        (schema.PER_TIMESTEP,),
        _TARGET,
    )
    yield Claim(
        "saturated",
        f"share of samples with |u| > {SATURATED_VALUE:g} at more than {SATURATED_PIXELS:.0%} of "
        "the pixels of the last timestep",
        partial(_saturated, source, fields),
        (),
        _TARGET,
    )


def _shares(source: CheckSource) -> Measurement:
    found = sample_regimes(source, MAX_SAMPLES)
    counts = np.bincount(found, minlength=len(REGIMES))
    order = np.argsort(-counts, kind="stable")
    text = ", ".join(f"{REGIMES[k]} {counts[k] / len(found):.1%}" for k in order if counts[k])
    common = float((counts[:-1] > 0.1 * len(found)).sum())
    return Measurement(f"{text} ({len(found)} samples)", common, True)


def _late(source: CheckSource) -> Measurement:
    rows = source.rows[:MAX_RANKED]
    shares = late_share(source.column(schema.PER_TIMESTEP, rows))
    if np.isnan(shares).all():
        raise NotMeasurableError("no feature varies")
    value = float(np.nanmean(shares))
    return Measurement(f"{value:.1%} ({len(rows)} samples)", value, True)


def _saturated(source: CheckSource, fields: FieldStatistics) -> Measurement:
    shares = fields.numbers["saturated"]
    shares = shares[~np.isnan(shares)]
    if len(shares):
        value = float((shares > SATURATED_PIXELS).mean())
        largest = float(np.nanmax(fields.numbers["largest"]))
        text = f"{value:.1%} ({len(shares)} samples; largest stored |u| {largest:.3g})"
        return Measurement(text, value, True)
    if reason := source.lacks(*NEEDS):
        raise NotMeasurableError(reason)
    # Markov's inequality: the share of pixels with |u| > v is at most <u²> / v².
    limit = np.sqrt(SATURATED_PIXELS) * SATURATED_VALUE
    rows = source.rows[:MAX_SAMPLES]
    last = np.concatenate([read_histories(source, part).rms[:, -1] for part in row_blocks(rows)])
    value = float((last > limit).mean())
    return Measurement(f"at most {value:.1%} (from <u²>, {len(rows)} samples)", value, True)
