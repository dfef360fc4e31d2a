"""Features of fields that vary by rounding errors only, or hardly more."""

import math

import numpy as np
import pytest


def test_a_gradient_of_rounding_size_has_no_direction(implementation):
    """A checkerboard whose column 4 is off by two units in the last place: Jxx is 1e-16·s²."""
    i, j = np.mgrid[:16, :24]
    u = (-1.0) ** (i + j)
    u[:, 4] += 2.0**-22
    assert implementation.one_field(u)["gradient_anisotropy"] == 0.0


@pytest.mark.parametrize(
    "u",
    [
        np.zeros((8, 8)),
        np.full((9, 12), 3.7),
        np.full((9, 12), -1e4),
        np.full((16, 16), 1e-13),
        1e-13 * np.random.default_rng(5).random((8, 8)),
        1.0 + 2.0**-20 * np.eye(16),  # varies, but by less than a millionth of its size
    ],
    ids=["zero", "constant", "large constant", "tiny constant", "tiny noise", "almost constant"],
)
def test_flat_field_is_exactly_zero(implementation, u):
    """μ, min, max and range as usual; every other feature is exactly 0, no 0/0 anywhere."""
    u = u.astype(np.float32).astype(np.float64)
    actual = implementation.one_field(u)
    usual = {
        "spatial_mean": u.mean(),
        "spatial_min": u.min(),
        "spatial_max": u.max(),
        "spatial_range": np.ptp(u),
    }
    for name, value in usual.items():
        assert actual.pop(name) == pytest.approx(value, rel=1e-6, abs=1e-12), name
    assert {name: value for name, value in actual.items() if value != 0} == {}


def test_barely_not_flat(implementation):
    """Just above the threshold (range 1.07e-6 of the size) the shape is that of an impulse."""
    u = np.ones((16, 16))
    u[3, 4] += 9 * 2.0**-23
    n = u.size
    expected = {
        "spatial_skewness": (n - 2) / math.sqrt(n - 1),
        "spatial_kurtosis": n - 5 + 1 / (n - 1),
        "spectral_flatness": 1.0,
        "spectral_centroid_x": n / (4 * (n - 1)),
    }
    actual = implementation.one_field(u)
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=1e-3), name
