"""Directions, tied peaks, rolloff and passbands of fields of known spectrum."""

import numpy as np
import pytest

from . import oracle


def test_nyquist_stripes_have_a_direction(implementation):
    """(−1)^j varies along x alone: spectrally fully anisotropic, though every central gx is 0."""
    j = np.arange(16)
    actual = implementation.one_field(np.tile((-1.0) ** j, (12, 1)))
    expected = {
        "gradient_anisotropy": 0.0,
        "spectral_anisotropy": 1.0,
        "dominant_freq_x": 0.5,
        "dominant_freq_y": 0.0,
        "dominant_freq_magnitude": 2.0,
        "laplacian_std": 4.0,
    }
    implementation.check(actual, expected)


def test_two_tied_peaks_share_the_dominant_frequency(implementation):
    """cos along x plus an equal cos along y: neither peak is preferred, and no direction is."""
    i, j = np.mgrid[:32, :32]
    u = np.cos(2 * np.pi * 3 * j / 32) + np.cos(2 * np.pi * 5 * i / 32)
    expected = {
        "dominant_freq_x": 3 / 64,
        "dominant_freq_y": 5 / 64,
        "dominant_freq_magnitude": 1.0,
        "spectral_anisotropy": 0.0,
        "spectral_centroid_x": 3 / 64,
        "spectral_centroid_y": 5 / 64,
        "spectral_bandwidth": 1 / 32,
        "spectral_rolloff": 5 / 32,
    }
    implementation.check(implementation.one_field(u), expected)


@pytest.mark.parametrize(
    ("amplitude", "rolloff"), [(0.41, 3 / 64), (0.43, 17 / 64)], ids=["share 0.856", "share 0.844"]
)
def test_rolloff_is_where_the_cumulative_power_reaches_85_percent(
    implementation, amplitude, rolloff
):
    """A strong low and a weak high sinusoid: the low one holds 1/(1 + amplitude²) of the power."""
    i, j = np.mgrid[:64, :64]
    u = np.cos(2 * np.pi * 3 * j / 64) + amplitude * np.cos(2 * np.pi * 17 * i / 64)
    implementation.check(implementation.one_field(u), {"spectral_rolloff": rolloff})


@pytest.mark.parametrize("grid", [64, 128])
@pytest.mark.parametrize(
    ("ratio", "inner", "outer"),
    [
        ("low_freq_ratio", 1 / 128, 3 / 64),
        ("mid_freq_ratio", 5 / 64, 3 / 16),
        ("high_freq_ratio", 5 / 16, 15 / 32),
    ],
)
def test_recommended_passbands_are_pure(implementation, grid, ratio, inner, outer):
    """Band-limited initial conditions of section 3: the matching ratio is 1 to 1e-6."""
    fx, fy = oracle.frequencies(grid, grid)
    f2 = fx**2 + fy**2
    keep = (f2 >= inner**2) & (f2 <= outer**2)
    noise = np.random.default_rng(4).standard_normal((grid, grid))
    u = np.fft.ifft2(np.fft.fft2(noise) * keep).real
    actual = implementation.one_field(u / u.std())
    assert actual[ratio] == pytest.approx(1.0, abs=1e-6)
