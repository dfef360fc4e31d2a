"""The oracle's transforms agree with the sums that features.md states."""

import numpy as np
import pytest

from . import oracle
from .implementations import band_bins


@pytest.mark.parametrize(("H", "W"), [(8, 8), (5, 6), (7, 4)])
def test_oracle_power_is_the_sum_as_written(H, W):
    """np.fft.fft2 against the double sum of section 3, x along columns and y along rows."""
    u = np.random.default_rng(1).standard_normal((H, W))
    fx, fy = oracle.frequencies(H, W)
    d = u - u.mean()
    expected = np.zeros((H, W))
    for row, column in np.ndindex(H, W):
        total = 0.0
        for i, j in np.ndindex(H, W):
            angle = -2 * np.pi * (fx[row, column] * j + fy[row, column] * i)
            total += d[i, j] * np.exp(1j * angle)
        expected[row, column] = abs(total) ** 2 / (H * W)
    np.testing.assert_allclose(oracle.power_spectrum(u), expected, atol=1e-12)


@pytest.mark.parametrize("T", [4, 7, 8])
def test_oracle_temporal_identities(T):
    """Σ Π = σ² and Σ_{h≥1} ρ(h) = −½, as section 4 states."""
    u = np.random.default_rng(2).standard_normal((T, 6, 5))
    r = u - u.mean(axis=0)
    _, power = oracle.temporal_spectrum(r)
    assert power.sum() == pytest.approx(np.mean(r**2), rel=1e-12)
    assert oracle.autocorrelation(r)[1:].sum() == pytest.approx(-0.5, rel=1e-12)


def test_bins_of_each_band():
    """The table of section 3, and the empty bands it announces for small grids."""
    assert band_bins(128, 128) == [44, 148, 600, 2412, 13179]
    assert band_bins(32, 32)[0] == 0
    assert band_bins(16, 16)[:2] == [0, 0]
    assert band_bins(33, 20)[0] > 0
