"""Checks of long trajectories: shares of the regimes, what happens late, and how many saturate.

Nothing is promised about them: they describe the space of operators that a configuration chose.
Everything comes from the stored features, except the share of saturated fields, which is counted on
the stored fields where there are any.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.checks.claims import Claim, Measurement, NotMeasurableError
from spinlock.checks.field_statistics import FieldStatistics
from spinlock.checks.trajectory_histories import (
    NEEDS,
    Trajectories,
    read_trajectories,
    stores_last,
)
from spinlock.checks.trajectory_regimes import (
    REGIMES,
    SATURATED_PIXELS,
    SATURATED_RMS,
    SATURATED_VALUE,
    late_share,
)
from spinlock.storage import schema

#: Shorter trajectories have no claims: chaos has no time to show.
FEWEST_TIMESTEPS = 32
#: Samples whose regimes are determined, and whose features are ranked, in bounded memory.
MAX_SAMPLES, MAX_RANKED = 5_000, 1_000
#: Regimes of trajectories that rest; what their features still do is due to the forcing.
RESTING = ("near-initial", "frozen")
_TARGET = "reported only"
_Read = Callable[[], Trajectories]


def trajectory_claims(source: CheckSource, fields: FieldStatistics) -> Iterator[Claim]:
    """Yield the claims of the group; there are none if T < `FEWEST_TIMESTEPS`.

    Args:
        source: File under check.
        fields: Statistics of the stored fields.
    """
    if source.config.num_timesteps < FEWEST_TIMESTEPS:
        return
    read = cache(partial(read_trajectories, source, MAX_SAMPLES))
    needs = (*NEEDS, *schema.value_names(source.config))
    yield Claim(
        "regimes",
        "regimes: share of the trajectories in each (docs/dynamics.md)",
        partial(_shares, read),
        needs,
        _TARGET,
    )
    yield Claim(
        "second half",
        "second half: share of the features' variance that is variance over time after T/2",
        partial(_late, source, read),
        (schema.PER_TIMESTEP,),
        _TARGET,
    )
    yield Claim(
        "saturated",
        f"saturated: share of samples with |u| > {SATURATED_VALUE:g} at more than "
        f"{SATURATED_PIXELS:.0%} of the pixels of the last timestep",
        partial(_saturated, source, read, fields),
        needs,
        _TARGET,
    )


def _shares(read: _Read) -> Measurement:
    found = read().regimes
    counts = np.bincount(found, minlength=len(REGIMES))
    order = np.argsort(-counts, kind="stable")
    text = ", ".join(f"{REGIMES[k]} {counts[k] / len(found):.1%}" for k in order if counts[k])
    common = float((counts[:-1] > 0.1 * len(found)).sum())
    return Measurement(f"{text} ({len(found)} samples)", common, True)


def resting(regimes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which trajectories are at rest, given their positions in `REGIMES`."""
    return np.isin(regimes, [REGIMES.index(name) for name in RESTING])


def _late(source: CheckSource, read: _Read) -> Measurement:
    values = source.column(schema.PER_TIMESTEP, source.rows[:MAX_RANKED])
    value = _mean_share(values)
    if value is None:
        raise NotMeasurableError("no feature varies")
    text = f"{value:.1%} ({len(values)} samples)"
    if not source.lacks(*NEEDS, *schema.value_names(source.config)):
        moving = ~resting(read().regimes[: len(values)])
        if (part := _mean_share(values[moving])) is not None:
            text += f"; {part:.1%} without near-initial and frozen ones ({moving.sum()} samples)"
    return Measurement(text, value, True)


def _mean_share(values: NDArray[np.floating]) -> float | None:
    """Return the mean of the late shares of features; None if no feature varies."""
    shares = late_share(values) if len(values) else np.array([np.nan])
    return None if np.isnan(shares).all() else float(np.nanmean(shares))


def _saturated(source: CheckSource, read: _Read, fields: FieldStatistics) -> Measurement:
    found = read()
    value, number = float(found.saturated.mean()), len(found.saturated)
    if stores_last(source):
        largest = fields.numbers["largest"]
        text = f"{value:.1%} ({number} samples"
        if not np.isnan(largest).all():
            text += f"; largest |u| that was read: {np.nanmax(largest):.3g}"
        return Measurement(f"{text})", value, True)
    text = f"at most {found.possible.mean():.1%}; by the rms about {value:.1%}"
    text += f" ({number} samples, rms >= {SATURATED_RMS:g}, since u_T is not stored)"
    return Measurement(text, value, True)
