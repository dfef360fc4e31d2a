"""Lists the response features in the order of the stored columns.

Symbols in the formulas: a step leads from the field u to the field w; μ_c is the mean of channel c,
a prime marks a field minus its channel means, ⟨·⟩ is the mean over channels and pixels, P_x = ⟨x'²⟩
and lg the decimal logarithm. β = ⟨u'w'⟩/P_u is the projection of the output on the input and
e = w' − β·u' the innovation; n is the power of the forcing's noise in w'. S_x is the power of a
Fourier bin of frequency f, summed over channels, E5 the power of e that a linear 5×5 stencil of u'
explains. v is u' after the measured displacement and, if it is positive, the measured diffusion. r
are the deviations of realizations from their mean, V_tot and V their unbiased power with and
without channel means, p the power of a bin of r', and V_t is V_tot at timestep t. Floors are left
out of the formulas.
"""

from functools import partial
from typing import Literal

from spinlock.features.registry import Feature

_Group = Literal["response", "transport", "noise", "divergence"]


def _row(
    group: _Group,
    name: str,
    formula: str,
    unit: str,
    range: str,
    exponent: int = 0,
    logarithmic: bool = True,
    reference: str = "",
) -> Feature:
    return Feature(
        name, group, formula, unit, range, exponent, logarithmic=logarithmic, reference=reference
    )


_response, _noise, _divergence = (
    partial(_row, group) for group in ("response", "noise", "divergence")
)
_ratio = partial(_response, logarithmic=False)
_moving = partial(_row, "transport", logarithmic=False)
_PROJECTION = "least squares: Gauss 1809"
_RIDGE = "Hoerl & Kennard 1970"
_GROWTH = "Wolf et al. 1985"

_BEFORE_CHANNELS = (
    _ratio("persistence", "⟨u'w'⟩/√(P_u·P_w)", "1", "[−1, 1]", reference="Pearson 1895"),
    _ratio("beta", "β = ⟨u'w'⟩/P_u", "1", "ℝ", reference=_PROJECTION),
    _response("innovation", "½·lg((P_e − n)/P_w)", "1", "[−5, 0]"),
    _response("innovation_abs", "½·lg(P_e − n)", "lg u", "ℝ", 1),
    _response("increment", "½·lg((⟨(w − u)²⟩ − n)/⟨u²⟩)", "1", "ℝ"),
    *(
        _response(
            f"band_gain_{band}",
            f"½·lg(ΣS_e/ΣS_u) over band {band}; over all if u has < 1 % of its power there",
            "1",
            "ℝ",
        )
        for band in range(5)
    ),
    _ratio("mean_out", "√(⟨μ_w²⟩/⟨w²⟩)", "1", "[0, 1]"),
    _ratio("mean_signed", "⟨μ_w⟩/√⟨w²⟩", "1", "[−1, 1]"),
)
_CHANNEL = _ratio("channel_mean_c", "(μ_w,c − β·μ_u,c)/√⟨w²⟩, one column a channel", "1", "ℝ")
_AFTER_CHANNELS = (
    _response("nonlinear_share", "½·lg((P_e − n − E5)/P_w)", "1", "[−5, 0]", reference=_RIDGE),
)
_TRANSPORT = (
    _moving("transport_x", "displacement of w relative to u along x", "pixels/step", "ℝ"),
    _moving("transport_y", "displacement of w relative to u along y", "pixels/step", "ℝ"),
    _moving("transport_diffusion", "D in the gain exp(−D·|k|²) from u to w", "pixels²/step", "ℝ"),
    _moving("transport_gain", "β of the step from v to w", "1", "ℝ", reference=_PROJECTION),
    _row("transport", "transport_innovation", "band_gain_4 of the step from v to w", "1", "ℝ"),
)
_NOISE = (
    _noise("noise_abs", "½·lg V_tot", "lg u", "ℝ", 1),
    _noise("noise_rel", "½·lg(V_tot/⟨w²⟩)", "1", "ℝ"),
    _noise("noise_low", "Σp over f < 1/16, over Σp", "1", "[0, 1]", logarithmic=False),
    _noise("noise_centroid", "Σp·f/Σp", "cycles/pixel", "[0, 0.7071]", logarithmic=False),
    _noise("noise_uniform", "1 − V/V_tot", "1", "[0, 1]", logarithmic=False),
    _noise("noise_kurtosis", "⟨r'⁴⟩/⟨r'²⟩² − 3", "1", "[−2, ∞)", logarithmic=False),
)
_STEP = _divergence("divergence_t", "½·lg(V_{t+1}/V_t)", "1", "ℝ", reference=_GROWTH)
_SPREAD = _divergence("spread_rel", "½·lg(V_T/⟨u_T²⟩)", "1", "ℝ")

RESPONSE_FEATURES: tuple[Feature, ...] = (
    *_BEFORE_CHANNELS,
    _CHANNEL,
    *_AFTER_CHANNELS,
    *_TRANSPORT,
    *_NOISE,
    _STEP,
    _SPREAD,
)
TRANSPORT_NAMES: tuple[str, ...] = tuple(row.name for row in _TRANSPORT)
NOISE_NAMES: tuple[str, ...] = tuple(row.name for row in _NOISE)

#: Columns that the operator explains and the initial condition does not. A name that ends in an
#: underscore stands for all columns that begin with it. These are the columns with an operator
#: share of at least 0.82 and a variant share of at most 0.05 in their variance, among 400
#: convolutional operators with 4 probes each, which meet every family (64 x 64 pixels, 8-32
#: channels, 5 realizations, 1 timestep, seed 4242): their operator shares were 0.85-1.00.
#: band_gain_2 (variant 0.08) and noise_kurtosis (operator 0.62) failed. The transport group is not
#: in the list, as it describes operators that move or spread fields only.
INVARIANT_COLUMNS = (
    "persistence",
    "beta",
    "innovation",
    "innovation_abs",
    "increment",
    "band_gain_0",
    "band_gain_1",
    "band_gain_3",
    "band_gain_4",
    "mean_out",
    "mean_signed",
    "channel_mean_",
    "nonlinear_share",
    "noise_abs",
    "noise_rel",
    "noise_low",
    "noise_centroid",
    "noise_uniform",
)


def response_names(channels: int) -> tuple[str, ...]:
    """Return the names of the 13 + C response columns of a step.

    Args:
        channels: Number of channels C.

    Example:
        >>> from spinlock.features.response import response_names
        >>> response_names(2)[12:14]
        ('channel_mean_0', 'channel_mean_1')
    """
    means = (f"channel_mean_{channel}" for channel in range(channels))
    before, after = (
        tuple(row.name for row in rows) for rows in (_BEFORE_CHANNELS, _AFTER_CHANNELS)
    )
    return (*before, *means, *after)


def divergence_names(num_timesteps: int) -> tuple[str, ...]:
    """Return the names of the T divergence columns; there are none at T = 1.

    Args:
        num_timesteps: Number of timesteps T.

    Example:
        >>> from spinlock.features.response import divergence_names
        >>> divergence_names(3)
        ('divergence_1', 'divergence_2', 'spread_rel')
    """
    if num_timesteps < 2:
        return ()
    return (*(f"divergence_{step}" for step in range(1, num_timesteps)), _SPREAD.name)


def is_invariant(name: str) -> bool:
    """Return whether a column is one of `INVARIANT_COLUMNS`.

    Args:
        name: Name of a column of responses or of the noise group.

    Example:
        >>> from spinlock.features.response.response_names import is_invariant
        >>> is_invariant("channel_mean_2"), is_invariant("noise_kurtosis")
        (True, False)
    """
    return any(
        name.startswith(column) if column.endswith("_") else name == column
        for column in INVARIANT_COLUMNS
    )
