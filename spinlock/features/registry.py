"""Lists the 59 features of SDF v1.0 in the order of the stored columns.

Symbols in the formulas: field u with n pixels, mean μ, variance s² and quantiles Q; z = (u − μ)/s;
mean over pixels ⟨·⟩; central-difference gradient g and five-point Laplacian L; power S of a Fourier
bin (without the DC bin) with frequency f and direction θ, p = S/ΣS. For a trajectory u_t: energy
E_t = ⟨u_t²⟩, variance V_t of u_t, Δ_t = u_{t+1} − u_t, D_t = √⟨Δ_t²⟩, X = √max E; r_t = u_t minus
its mean over time, with variance σ², power Π_k at the frequency k/T and autocorrelation ρ(h);
ℓ(A) = ln max(A, 1e-12·max A, 1e-30); time τ counted from the middle.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

Group = Literal["spatial", "spectral", "temporal", "response", "transport", "noise", "divergence"]

BANDS = 5


@dataclass(frozen=True)
class Feature:
    """Description of one feature.

    Attributes:
        name: Name of the column.
        group: Kind of the feature: of a field, of its spectrum, of a trajectory, of the response to
            a field, of the noise, or of the divergence of realizations.
        formula: Definition, in the symbols of this module's docstring.
        unit: Unit, where "u" is the unit of the field and "1" none. Lengths are in pixels, times in
            steps.
        range: Interval of possible values.
        exponent: Exponent e in feature(a·u) = aᵉ·feature(u) for a > 0; in feature(a·u) =
            feature(u) + e·lg a if the feature is a logarithm.
        shifts: Whether adding c to the field adds c to the feature; if not, it changes nothing.
        min_timesteps: Length of the shortest trajectory that it is defined for (NaN below); None
            unless temporal.
        static: Value for a trajectory that does not change, "T" for its length; None unless
            temporal.
        reference: Source of the formula; empty if it is elementary.
        logarithmic: Whether the feature is a decimal logarithm, which scaling the field shifts.

    Example:
        >>> from spinlock.features import FEATURES
        >>> [feature.name for feature in FEATURES if feature.unit == "cycles/step"]
        ['temporal_freq_dominant']
    """

    name: str
    group: Group
    formula: str
    unit: str
    range: str
    exponent: int
    shifts: bool = False
    min_timesteps: int | None = None
    static: float | Literal["T"] | None = None
    reference: str = ""
    logarithmic: bool = False


def names(group: Group) -> tuple[str, ...]:
    """Return the names of the columns of one group, in stored order."""
    return tuple(feature.name for feature in FEATURES if feature.group == group)


def _of_field(
    group: Group, name: str, formula: str, unit: str, range: str, exponent: int, reference: str = ""
) -> Feature:
    shifts = name in ("spatial_mean", "spatial_min", "spatial_max")
    return Feature(name, group, formula, unit, range, exponent, shifts, reference=reference)


_spatial, _spectral = partial(_of_field, "spatial"), partial(_of_field, "spectral")


def _temporal(
    name: str,
    formula: str,
    unit: str,
    range: str,
    exponent: int,
    min_timesteps: int,
    static: float | Literal["T"] = 0.0,
    reference: str = "",
) -> Feature:
    return Feature(
        name, "temporal", formula, unit, range, exponent, False, min_timesteps, static, reference
    )


_MOMENT = "Joanes & Gill 1998"
_QUANTILE = "Hyndman & Fan 1996, type 7"
_COHERENCE = "Bigün & Granlund 1987; Jähne, Digital Image Processing"
_PERIODOGRAM = "Percival & Walden 1993"
_PEETERS = "Peeters 2004 (CUIDADO report)"
_PERIOD = "mean period m₀/m₁: Longuet-Higgins 1975; Holthuijsen 2007"
_DECORRELATION = "von Storch & Zwiers 1999"
_DIVERGENCE = "divergence slope: Wolf et al. 1985; Rosenstein et al. 1993"

_SPATIAL = (
    _spatial("spatial_mean", "μ = ⟨u⟩", "u", "ℝ", 1),
    _spatial("spatial_variance", "s² = ⟨(u − μ)²⟩", "u²", "[0, ∞)", 2),
    _spatial("spatial_std", "s", "u", "[0, ∞)", 1),
    _spatial("spatial_skewness", "⟨z³⟩", "1", "[−√n, √n]", 0, _MOMENT),
    _spatial("spatial_kurtosis", "⟨z⁴⟩ − 3", "1", "[−2, n)", 0, _MOMENT),
    _spatial("spatial_min", "min u", "u", "ℝ", 1),
    _spatial("spatial_max", "max u", "u", "ℝ", 1),
    _spatial("spatial_range", "max u − min u", "u", "[0, ∞)", 1),
    _spatial("spatial_iqr", "Q(¾) − Q(¼)", "u", "[0, ∞)", 1, _QUANTILE),
    _spatial("spatial_mad", "median|u − Q(½)|", "u", "[0, ∞)", 1, "Rousseeuw & Croux 1993"),
    _spatial("gradient_magnitude_mean", "⟨|g|⟩", "u/pixel", "[0, ∞)", 1),
    _spatial("gradient_magnitude_std", "√⟨(|g| − ⟨|g|⟩)²⟩", "u/pixel", "[0, ∞)", 1),
    _spatial("gradient_magnitude_max", "max |g|", "u/pixel", "[0, ∞)", 1),
    _spatial("gradient_x_mean", "⟨|gx|⟩", "u/pixel", "[0, ∞)", 1),
    _spatial("gradient_y_mean", "⟨|gy|⟩", "u/pixel", "[0, ∞)", 1),
    _spatial(
        "gradient_anisotropy",
        "√((Jxx − Jyy)² + 4Jxy²)/(Jxx + Jyy), J = ⟨g gᵀ⟩; 0 if Jxx + Jyy ≤ 1e-12·s²",
        "1",
        "[0, 1]",
        0,
        _COHERENCE,
    ),
    _spatial("laplacian_mean", "⟨|L|⟩", "u/pixel²", "[0, ∞)", 1),
    _spatial("laplacian_std", "√⟨L²⟩", "u/pixel²", "[0, ∞)", 1),
    _spatial("laplacian_energy", "⟨L²⟩", "u²/pixel⁴", "[0, ∞)", 2),
)

_BAND_STATISTICS = (("mean", "mean"), ("max", "max"), ("std", "population std"))

_SPECTRAL = (
    *(
        _spectral(
            f"fft_power_scale_{band}_{statistic}",
            f"{formula} of S over the bins of band {band}; 0 if it has none",
            "u²",
            "[0, ∞)",
            2,
            _PERIODOGRAM,
        )
        for band in range(BANDS)
        for statistic, formula in _BAND_STATISTICS
    ),
    _spectral("dominant_freq_x", "mean |fx| over S ≥ 0.999·max S", "cycles/pixel", "[0, ½]", 0),
    _spectral("dominant_freq_y", "mean |fy| over S ≥ 0.999·max S", "cycles/pixel", "[0, ½]", 0),
    _spectral("dominant_freq_magnitude", "2·√(max S / n)", "u", "[0, ∞)", 1),
    _spectral("spectral_centroid_x", "Σ p·|fx|", "cycles/pixel", "[0, ½]", 0, _PEETERS),
    _spectral("spectral_centroid_y", "Σ p·|fy|", "cycles/pixel", "[0, ½]", 0, _PEETERS),
    _spectral("spectral_bandwidth", "√Σ p·(f − Σ p·f)²", "cycles/pixel", "[0, 0.36)", 0, _PEETERS),
    _spectral("low_freq_ratio", "Σ p over 0 < f < 1/16", "1", "[0, 1]", 0),
    _spectral("mid_freq_ratio", "Σ p over 1/16 ≤ f < 1/4", "1", "[0, 1]", 0),
    _spectral("high_freq_ratio", "Σ p over f ≥ 1/4", "1", "[0, 1]", 0),
    _spectral(
        "spectral_flatness",
        "exp⟨ln[(S/S̄ + ε)/(1 + ε)]⟩ over bins, S̄ their mean, ε = 1e-8",
        "1",
        "(0, 1], 0 if flat",
        0,
        "Gray & Markel 1974",
    ),
    _spectral(
        "spectral_rolloff",
        "smallest f with Σ S over frequencies ≤ f at least 0.85·ΣS",
        "cycles/pixel",
        "(0, 0.7071], 0 if flat",
        0,
        "Peeters 2004; Tzanetakis & Cook 2002",
    ),
    _spectral(
        "spectral_anisotropy",
        "√((Σ p·cos 2θ)² + (Σ p·sin 2θ)²)",
        "1",
        "[0, 1]",
        0,
        "Mardia & Jupp 2000",
    ),
)

_TEMPORAL = (
    _temporal("energy_growth_rate", "slope of ℓ(E)", "1/step", "[−28, 28]", 0, 2),
    _temporal("energy_growth_accel", "2·Σ q·ℓ(E)/Σ q², q = τ² − (T² − 1)/12", "1/step²", "ℝ", 0, 3),
    _temporal("variance_growth_rate", "slope of ℓ(V)", "1/step", "[−28, 28]", 0, 2),
    _temporal(
        "temporal_freq_dominant",
        "mean k/T over Π_k ≥ 0.999·max Π",
        "cycles/step",
        "[1/T, ½], 0 if static",
        0,
        4,
    ),
    _temporal("oscillation_amplitude", "√(2·max Π)", "u", "[0, ∞)", 1, 4),
    _temporal("oscillation_period", "ΣΠ/Σ (k/T)·Π", "steps", "[2, T]", 0, 4, "T", _PERIOD),
    _temporal(
        "autocorr_decay_time",
        "first crossing of 1/e by ρ(h), h ≥ 1, linearly interpolated",
        "steps",
        "(0.3, T]",
        0,
        4,
        "T",
        _DECORRELATION,
    ),
    _temporal(
        "lyapunov_approx",
        "slope of ln max(D_t, 1e-6·X, 1e-15)",
        "1/step",
        "[−15, 15]",
        0,
        3,
        0.0,
        _DIVERGENCE,
    ),
    _temporal(
        "trajectory_smoothness", "½ + Σ⟨Δ_t·Δ_{t+1}⟩/Σ(D_t² + D_{t+1}²)", "1", "[0, 1]", 0, 3, 1.0
    ),
    _temporal(
        "regime_switches",
        "sign changes of ℓ(E)_{t+1} − ℓ(E)_t, moduli ≤ 1e-4 deleted, over T − 2",
        "1",
        "[0, 1]",
        0,
        3,
        0.0,
        "turning points: Brockwell & Davis 2002",
    ),
    _temporal("final_to_initial_ratio", "√(E_{T−1}/E_0), floored", "1", "[1e-6, 1e6]", 0, 2, 1.0),
    _temporal("trend_strength", "1 − detrended_variance/σ²", "1", "[0, 1]", 0, 3),
    _temporal(
        "detrended_variance",
        "mean over t of ⟨(r_t − τ·b)²⟩, b the least-squares slope of each pixel",
        "u²",
        "[0, ∞)",
        2,
        3,
    ),
)

FEATURES: tuple[Feature, ...] = (*_SPATIAL, *_SPECTRAL, *_TEMPORAL)
