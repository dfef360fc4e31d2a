"""Temporal features of growth, waves, lines, linear maps and noise, from analysis."""

import math

import numpy as np
import pytest

from .helpers import one_field


@pytest.mark.parametrize(("r", "T"), [(0.1, 9), (-0.25, 6), (0.6, 4)])
def test_exponential_growth(implementation, r, T):
    v = one_field(6)
    u = np.exp(r * np.arange(T))[:, None, None] * v
    g = math.exp(r)
    expected = {
        "energy_growth_rate": 2 * r,
        "energy_growth_accel": 0.0,
        "variance_growth_rate": 2 * r,
        "lyapunov_approx": r,
        "final_to_initial_ratio": math.exp(r * (T - 1)),
        "trajectory_smoothness": (1 + g) ** 2 / (2 * (1 + g**2)),
        "regime_switches": 0.0,
    }
    implementation.check(implementation.one_trajectory(u), expected)


@pytest.mark.parametrize(("b", "T"), [(0.02, 8), (-0.05, 5), (0.1, 3)])
def test_accelerating_growth(implementation, b, T):
    """ln E = 2bt² + const: second derivative 4b, mean slope 2b(T−1)."""
    u = np.exp(b * np.arange(T) ** 2)[:, None, None] * one_field(7)
    expected = {"energy_growth_accel": 4 * b, "energy_growth_rate": 2 * b * (T - 1)}
    implementation.check(implementation.one_trajectory(u), expected)


@pytest.mark.parametrize(("k", "T"), [(1, 8), (3, 16), (2, 9), (4, 8), (1, 4), (5, 17)])
def test_traveling_wave(implementation, k, T):
    A = 2.2
    i, j = np.mgrid[:16, :20]
    t = np.arange(T)[:, None, None]
    u = A * np.cos(2 * np.pi * (3 * j / 20 + 2 * i / 16) - 2 * np.pi * k * t / T)
    rho = [(1 - h / T) * math.cos(2 * np.pi * k * h / T) for h in range(T)]
    h = next(h for h in range(T) if rho[h] < 1 / math.e)
    expected = {
        "temporal_freq_dominant": k / T,
        "oscillation_amplitude": A,
        "oscillation_period": T / k,
        "autocorr_decay_time": h - 1 + (rho[h - 1] - 1 / math.e) / (rho[h - 1] - rho[h]),
        "trajectory_smoothness": math.cos(np.pi * k / T) ** 2,
        "lyapunov_approx": 0.0,
        "energy_growth_rate": 0.0,
        "variance_growth_rate": 0.0,
        "energy_growth_accel": 0.0,
        "final_to_initial_ratio": 1.0,
        "regime_switches": 0.0,
    }
    implementation.check(implementation.one_trajectory(u), expected)


def test_two_tied_rhythms_share_the_dominant_frequency(implementation):
    """Standing waves of equal power at 1/8 and 3/8: neither is preferred."""
    v = one_field(21)
    w = one_field(22) * math.sqrt(np.mean(v**2) / np.mean(one_field(22) ** 2))
    t = np.arange(8)[:, None, None]
    u = v * np.cos(2 * np.pi * t / 8) + w * np.cos(2 * np.pi * 3 * t / 8)
    expected = {
        "temporal_freq_dominant": 0.25,
        "oscillation_period": 4.0,
        "oscillation_amplitude": math.sqrt(np.mean(v**2)),
    }
    implementation.check(implementation.one_trajectory(u), expected)


@pytest.mark.parametrize("T", [4, 10])
def test_period_two_flip(implementation, T):
    v = one_field(8)
    u = ((-1.0) ** np.arange(T))[:, None, None] * v
    expected = {
        "temporal_freq_dominant": 0.5,
        "oscillation_amplitude": math.sqrt(2 * np.mean(v**2)),
        "oscillation_period": 2.0,
        "trajectory_smoothness": 0.0,
        "lyapunov_approx": 0.0,
    }
    implementation.check(implementation.one_trajectory(u), expected)


@pytest.mark.parametrize("T", [3, 4, 11])
def test_straight_line(implementation, T):
    t = np.arange(T)[:, None, None]
    w = 0.3 * one_field(10)
    actual = implementation.one_trajectory(5.0 + one_field(9) + t * w)
    expected = {
        "trend_strength": 1.0,
        "detrended_variance": 0.0,
        "trajectory_smoothness": 1.0,
        "lyapunov_approx": 0.0,
    }
    scale = math.sqrt(np.mean(w**2) * (T**2 - 1) / 12)
    implementation.check(actual, expected, shift=5.0, scale=scale)


@pytest.mark.parametrize("rate", [0.7, -0.85, 1.25, -1.1])
def test_lyapunov_is_the_multiplier_of_a_linear_map(implementation, rate):
    """u_t = u* + λᵗv: ln|λ| whatever the sign of λ."""
    u = 2.0 + one_field(11) + (rate ** np.arange(9.0))[:, None, None] * one_field(12)
    expected = {"lyapunov_approx": math.log(abs(rate))}
    implementation.check(implementation.one_trajectory(u), expected)


def test_regime_switches_counts_reversals(implementation):
    """Energies up, up, down, (nearly) level, up, down: three reversals in five opportunities.

    The step inside the dead band is deleted, not counted as a sign of its own.
    """
    log_energy = np.array([0.0, 0.5, 0.9, 0.2, 0.2 + 5e-5, 0.6, 0.1])
    u = np.exp(log_energy / 2)[:, None, None] * one_field(13)
    implementation.check(implementation.one_trajectory(u), {"regime_switches": 3 / 5})


def test_white_noise_in_time(implementation):
    R, T, pixels, sigma = 150, 8, 16 * 16, 1.3
    rng = np.random.default_rng(14)
    actual = implementation.trajectories(sigma * rng.standard_normal((R, T, 16, 16)))
    expected = {
        "energy_growth_rate": 0.0,
        "energy_growth_accel": 0.0,
        "variance_growth_rate": 0.0,
        "lyapunov_approx": 0.0,
        "trajectory_smoothness": 0.25,
        "trend_strength": 1 / (T - 1),
        "detrended_variance": sigma**2 * (1 - 2 / T),
        "oscillation_period": 4 * (T - 1) / T,
        "autocorr_decay_time": (1 - 1 / math.e) / (1 + 1 / T),
        "regime_switches": 2 / 3,
    }
    for name, value in expected.items():
        sample = actual[name]
        allowed = 5 * sample.std(ddof=1) / math.sqrt(R) + 2 / (pixels * T)  # + bias of ratios
        assert abs(sample.mean() - value) <= allowed, (name, sample.mean(), value, allowed)
