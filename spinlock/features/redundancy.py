"""Columns that tell (nearly) the same: known, kept, and named here so that nobody has to find out.

Averaging over realizations and channels comes last, so even where one feature of a field is a
function of another, the stored averages are not: the mean of squares is no square of a mean.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Redundancy:
    """Features of which some follow from the others.

    Attributes:
        names: The features.
        relation: What holds for a single field.
        pairwise: Whether it makes any two of them tell the same.
    """

    names: tuple[str, ...]
    relation: str
    pairwise: bool


_BANDS = range(5)

REDUNDANCIES: tuple[Redundancy, ...] = (
    Redundancy(("spatial_variance", "spatial_std"), "variance = std²", True),
    Redundancy(("spatial_range", "spatial_min", "spatial_max"), "range = max − min", False),
    Redundancy(("laplacian_energy", "laplacian_std"), "energy = std²", True),
    Redundancy(("low_freq_ratio", "mid_freq_ratio", "high_freq_ratio"), "they sum to 1", False),
    Redundancy(
        (
            "low_freq_ratio",
            "mid_freq_ratio",
            "high_freq_ratio",
            "spatial_variance",
            *(f"fft_power_scale_{band}_mean" for band in _BANDS),
        ),
        "each ratio is a sum of band means, weighted by their numbers of bins, over n·s²",
        False,
    ),
    Redundancy(
        ("spatial_std", "spatial_iqr", "spatial_mad"),
        "proportional for fields with Gaussian marginals",
        True,
    ),
    Redundancy(
        ("laplacian_mean", "laplacian_std"),
        "proportional for Gaussian fields, mean = √(2/π)·std; over 500 baseline samples the only "
        "columns that correlate above 0.9999 (at 0.99999)",
        True,
    ),
    *(
        Redundancy(
            (f"fft_power_scale_{band}_mean", f"fft_power_scale_{band}_std"),
            "nearly equal for Gaussian fields, whose power is exponentially distributed",
            True,
        )
        for band in _BANDS
    ),
)


def is_redundant(one: str, other: str) -> bool:
    """Whether two features are known to tell the same."""
    return any(known.pairwise and {one, other} <= set(known.names) for known in REDUNDANCIES)
