"""Temporal features of trajectories that hardly move, and at the floors of logarithms."""

import math

import numpy as np
import pytest

from .helpers import one_field


@pytest.mark.parametrize("T", [4, 7])
@pytest.mark.parametrize("kind", ["equal", "zero", "constant", "below threshold", "tiny"])
def test_static_trajectory(implementation, kind, T):
    """The imposed values, and for the other six what the formulas give for equal fields."""
    v = {
        "equal": one_field(15),
        "zero": np.zeros((8, 8)),
        "constant": np.full((8, 9), -40.0),
        "below threshold": 1.0 + 0.1 * one_field(16),
        "tiny": np.zeros((8, 8)),
    }[kind]
    u = np.tile(v, (T, 1, 1))
    expected = {
        "temporal_freq_dominant": 0.0,
        "oscillation_amplitude": 0.0,
        "oscillation_period": float(T),
        "autocorr_decay_time": float(T),
        "trajectory_smoothness": 1.0,
        "trend_strength": 0.0,
        "detrended_variance": 0.0,
    }
    if kind == "below threshold":
        u[1, 2, 3] += 5e-7  # static by definition, though not constant
    if kind == "tiny":
        u = 1e-13 * np.random.default_rng(20).standard_normal(u.shape)  # below the absolute floor
    actual = implementation.one_trajectory(u)
    for name, value in expected.items():
        assert actual[name] == value, name
    if kind in ("equal", "zero", "constant"):
        equal_fields = {
            "energy_growth_rate": 0.0,
            "energy_growth_accel": 0.0,
            "variance_growth_rate": 0.0,
            "lyapunov_approx": 0.0,
            "regime_switches": 0.0,
            "final_to_initial_ratio": 1.0,
        }
        implementation.check(actual, equal_fields)


def test_a_mean_over_pixels_that_float32_cannot_hold(implementation):
    """Half of the pixels 9, then 10 units in the last place above 1: the first mean is no float."""
    half = np.indices((8, 8)).sum(axis=0) % 2
    u = 1.0 + 2.0**-23 * np.stack([9 * half, 10 * half])
    expected = {"variance_growth_rate": 2 * math.log(10 / 9)}
    implementation.check(implementation.one_trajectory(u), expected)


def test_a_mean_over_time_that_float32_cannot_hold(implementation):
    """A flip by 19 units in the last place, hardly more than a static trajectory's."""
    u = np.ones((4, 8, 8))
    u[::2] += 19 * 2.0**-23
    a = 9.5 * 2.0**-23
    actual = implementation.one_trajectory(u)
    implementation.check(actual, {"trend_strength": 0.2, "oscillation_amplitude": a * math.sqrt(2)})
    assert actual["detrended_variance"] == pytest.approx(0.8 * a**2, rel=1e-3)


def test_floors_bound_the_rates(implementation):
    """From nothing to something: ℓ is floored 120 dB down, so the rates are finite and known."""
    v = one_field(17)
    two = implementation.one_trajectory(np.stack([np.zeros_like(v), v]))
    implementation.check(
        two,
        {
            "energy_growth_rate": 12 * math.log(10),
            "variance_growth_rate": 12 * math.log(10),
            "final_to_initial_ratio": 1e6,
        },
    )
    back = implementation.one_trajectory(np.stack([v, np.zeros_like(v)]))
    assert back["final_to_initial_ratio"] == pytest.approx(1e-6, rel=1e-3)
    # D = 0 then rms(v): floored at 1e-6·X with X = rms(v).
    three = implementation.one_trajectory(np.stack([np.zeros_like(v), np.zeros_like(v), v]))
    implementation.check(three, {"lyapunov_approx": 6 * math.log(10)})


def test_absolute_floors(implementation):
    """Far below any field that occurs, ℓ is floored at ln 1e-30, and not before."""
    v = one_field(23)
    u = 10.0 ** (np.arange(5.0) - 14)[:, None, None] * v
    expected = {
        "energy_growth_rate": 2 * math.log(10),
        "lyapunov_approx": math.log(10),
        "final_to_initial_ratio": 1e4,
    }
    implementation.check(implementation.one_trajectory(u), expected)
    from_nothing = implementation.one_trajectory(np.stack([np.zeros_like(v), 1e-13 * v]))
    rms = 1e-13 * math.sqrt(np.mean(v**2))
    implementation.check(from_nothing, {"final_to_initial_ratio": rms / 1e-15})
