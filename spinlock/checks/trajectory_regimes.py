"""Tells what trajectories do in the long run: their regimes, from the features that a file stores.

The features give four histories of a sample, which are roots of mean squares over channels and
pixels: the field, the change of a step, the forcing of a step, and the spread of the realizations.
Only whether u_T is saturated is counted on the field, if it is stored. The rules that `classify`
applies are stated in `RULES`. "Second half" means the timesteps T // 2 + 1 to T.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from spinlock.simulation.convolutional_operator import OUTPUT_BOUND

Values = NDArray[np.float64]

#: Largest length of the path of a near-initial trajectory, relative to the initial condition.
NEAR_INITIAL_PATH = 0.5
#: Smallest factor by which the rms of a diverging field grows from the third quarter to the last.
DIVERGING_FACTOR = 1.1
#: Smallest rate of its growth within the last quarter, relative to the rate between the two.
GROWING_RATE = 0.5
#: Magnitude above which a value is regarded as saturated.
SATURATED_VALUE = 0.9 * OUTPUT_BOUND
#: A field is saturated if more than this share of its values is.
SATURATED_PIXELS = 0.1
#: The rms at which a Gaussian field is saturated, the criterion for a field that is not stored.
SATURATED_RMS = round(SATURATED_VALUE / float(ndtri(1 - SATURATED_PIXELS / 2)), 1)
#: Largest length of the path of a frozen trajectory in the second half, relative to the field.
FROZEN_PATH = 0.25
#: Smallest length of that path of chaotic and periodic trajectories.
CHANGING_PATH = 1.0
#: A step may be as large as so many times its forcing without counting as a change.
FORCED_STEP = 2.0
#: A field is regarded as zero below this share of the largest field of the trajectory.
NEGLIGIBLE = 0.05
#: Smallest factor by which the spread of chaotic realizations exceeds the accumulated forcing, and
#: largest one of periodic trajectories.
CHAOTIC_GAIN = 3.0
#: Smallest spread of chaotic realizations, relative to a step.
SEPARATED = 0.25
#: Largest spread of periodic realizations relative to a step, and of frozen ones to the field.
APART = 0.5
#: Largest change of a periodic trajectory's statistics from the third quarter to the last.
STATIONARY = 0.2

#: Rule of each regime, in the order of precedence: the first that holds applies.
RULES: dict[str, str] = {
    "near-initial": "all steps without forcing, added up, and the accumulated forcing together are "
    f"at most {NEAR_INITIAL_PATH:g} of the initial rms",
    "diverging": f"the rms of the last quarter is at least {DIVERGING_FACTOR:g} times that of the "
    f"third, and it still grows at {GROWING_RATE:g} of that rate or faster within the last quarter",
    "saturated": f"|u| > {SATURATED_VALUE:g} at more than {SATURATED_PIXELS:.0%} of the pixels of "
    "the last timestep, without growth as that of a diverging field; if that field is not stored, "
    f"its rms is at least {SATURATED_RMS:g}, from which on this holds for a Gaussian field",
    "frozen": "the steps of the second half, without what the forcing explains, add up to at most "
    f"{FROZEN_PATH:g} of the rms, and the spread and the forcing are at most {APART:g} of it",
    "chaotic": f"the same sum is at least {CHANGING_PATH:g} times the rms, and the spread of "
    f"realizations is at least {CHAOTIC_GAIN:g} times the accumulated forcing and {SEPARATED:g} of "
    "a step",
    "periodic": f"the same sum is at least {CHANGING_PATH:g} times the rms, the spread is below "
    f"{CHAOTIC_GAIN:g} times the accumulated forcing and below {APART:g} of a step, and statistics "
    f"of the fields change by less than {STATIONARY:.0%} from the third quarter to the last",
    "other": "none of these: slow, transient, dominated by the forcing, or realizations that "
    "separate without being far apart at T",
}
REGIMES: tuple[str, ...] = tuple(RULES)


class Histories(NamedTuple):
    """Histories of N samples over T timesteps.

    Attributes:
        rms: Root mean square of u_0 ... u_T, (N, T + 1).
        step: The same of u_t - u_{t-1}, (N, T).
        forcing: The same of the forcing that timestep t adds, (N, T).
        spread: Standard deviation over realizations of u_t, (N, T); NaN with one realization.
        statistics: Logarithms of K positive statistics of u_t, among them its rms, (N, T, K).
        saturated: Whether u_T is saturated, bool (N,).
    """

    rms: Values
    step: Values
    forcing: Values
    spread: Values
    statistics: Values
    saturated: NDArray[np.bool_]


def classify(histories: Histories) -> NDArray[np.int64]:
    """Return the regime of each sample, (N,) positions in `REGIMES`.

    Args:
        histories: Histories of the samples over four or more timesteps.

    Example:
        >>> import numpy as np
        >>> ones, zeros = np.ones((1, 9)), np.zeros((1, 8))
        >>> still = Histories(ones, zeros, zeros, zeros, np.zeros((1, 8, 1)), np.zeros(1, bool))
        >>> REGIMES[classify(still)[0]]
        'near-initial'
    """
    rms, step, forcing, spread, statistics, saturated = histories
    half = step.shape[1] // 2
    accumulated = np.sqrt(np.square(forcing).sum(axis=1))
    path = _excess(step, forcing).sum(axis=1)
    late = _mean(rms[:, half + 1 :])
    least = NEGLIGIBLE * rms.max(axis=1)
    size = np.maximum(late, least)
    late_path = _excess(step[:, half:], FORCED_STEP * forcing[:, half:]).sum(axis=1)
    late_step, noise = _mean(step[:, half:]), _mean(forcing[:, half:])
    changing = late_path >= CHANGING_PATH * size
    # Comparisons with NaN are false: with one realization no trajectory is chaotic or periodic.
    last = spread[:, -1]
    holds = {
        "near-initial": path + accumulated <= NEAR_INITIAL_PATH * rms[:, 0],
        "diverging": _growing(rms[:, half + 1 :], least),
        "saturated": saturated,
        "frozen": (late_path <= FROZEN_PATH * size) & ~(np.fmax(last, noise) > APART * size),
        "chaotic": changing
        & (last >= CHAOTIC_GAIN * accumulated)
        & (last >= SEPARATED * late_step),
        "periodic": changing
        & (last < np.minimum(APART * late_step, CHAOTIC_GAIN * accumulated))
        & (_drift(statistics[:, half:]) < STATIONARY),
        "other": np.ones(len(rms), dtype=bool),
    }
    return np.asarray(np.argmax([holds[name] for name in REGIMES], axis=0))


def _mean(values: Values) -> Values:
    """Return the root mean square over timesteps."""
    return np.asarray(np.sqrt(np.square(values).mean(axis=1)))


def _growing(rms: Values, least: Values) -> NDArray[np.bool_]:
    """Return whether the rms of the second half, (N, T'), still grows at its end."""

    def growth(values: Values) -> Values:
        early, late = np.array_split(values, 2, axis=1)
        return np.asarray(np.log(np.maximum(_mean(late), least) / np.maximum(_mean(early), least)))

    quarters, eighths = growth(rms), growth(rms[:, -(rms.shape[1] // 2) :])
    # The eighths of T lie half as far apart as the quarters.
    slow = GROWING_RATE * quarters / 2
    return np.asarray((quarters >= np.log(DIVERGING_FACTOR)) & (eighths >= slow))


def _excess(step: Values, explained: Values) -> Values:
    """Return the part of steps that is not explained, of which it is independent."""
    return np.asarray(np.sqrt(np.clip(np.square(step) - np.square(explained), 0.0, None)))


def _drift(statistics: Values) -> Values:
    """Return the largest change of a logarithm's mean from the first half of rows to the second."""
    middle = -(-statistics.shape[1] // 2)
    early, late = statistics[:, :middle].mean(axis=1), statistics[:, -middle:].mean(axis=1)
    return np.asarray(np.abs(late - early).max(axis=1))


def late_share(values: NDArray[np.floating]) -> Values:
    """Return the share of the variance of features that is variance over time after T/2.

    A feature is mapped to the normal quantiles of its ranks among all samples and timesteps, so
    that outliers do not decide. The share is the variance over the timesteps of the second half
    about the sample's own mean there, averaged over samples, relative to the variance over all
    samples and timesteps. It is 0 if nothing happens after T/2, and 1 if samples differ in nothing
    but their timing.

    Args:
        values: Features, (N, T, F), T >= 2.

    Returns:
        Shares, (F,); NaN for a feature that is constant.

    Example:
        >>> import numpy as np
        >>> late_share(np.array([[[1.0], [3.0], [2.0], [2.0]]]))
        array([0.])
        >>> late_share(np.array([[[1.0], [3.0], [1.0], [3.0]]]))
        array([1.])
    """
    half = values.shape[1] // 2
    shares = np.full(values.shape[2], np.nan)
    for place, column in enumerate(np.moveaxis(values, -1, 0)):
        ranks = rankdata(column, axis=None).reshape(column.shape)
        normal = ndtri((ranks - 0.5) / column.size)
        if (total := normal.var()) > 0:
            shares[place] = normal[:, half:].var(axis=1).mean() / total
    return shares
