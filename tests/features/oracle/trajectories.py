"""The temporal features of one trajectory."""

import itertools
import math

import numpy as np

from .columns import DEAD_BAND, PEAK, TEMPORAL
from .fields import is_flat


def floored_log(A):
    """ℓ(A): the logarithm of a series of energies, floored at -120 dB of its largest."""
    return np.log(np.maximum(A, max(1e-12 * A.max(), 1e-30)))


def slope(y):
    tau = np.arange(len(y)) - (len(y) - 1) / 2
    return np.sum(tau * y) / np.sum(tau**2)


def energies(u):
    """E_t of one trajectory (T, H, W)."""
    return np.array([np.mean(field**2) for field in u])


def static_threshold(u):
    """(σ, the σ up to which a trajectory counts as static)."""
    r = u - u.mean(axis=0)
    sigma = math.sqrt(np.mean(r**2))
    return sigma, max(1e-6 * math.sqrt(energies(u).max()), 1e-12)


def temporal_spectrum(r):
    """(k, Π_k) for k = 1 … ⌊T/2⌋, by the sum as it is written."""
    T = len(r)
    t = np.arange(T)
    k = np.arange(1, T // 2 + 1)
    power = []
    for ki in k:
        phase = np.exp(-2j * np.pi * ki * t / T)
        transform = np.sum(phase[:, None, None] * r, axis=0)
        weight = 1.0 if 2 * ki == T else 2.0
        power.append(weight * np.mean(np.abs(transform) ** 2) / T**2)
    return k, np.array(power)


def autocorrelation(r):
    """ρ(h), h = 0 … T−1 (biased)."""
    T = len(r)
    total = sum(np.mean(r[t] ** 2) for t in range(T))
    return np.array([sum(np.mean(r[t] * r[t + h]) for t in range(T - h)) for h in range(T)]) / total


def decay_time(rho):
    for h in range(1, len(rho)):
        if rho[h] < 1 / math.e:
            return h - 1 + (rho[h - 1] - 1 / math.e) / (rho[h - 1] - rho[h])
    raise AssertionError("the biased autocorrelation always falls below 1/e")


def sign_changes(steps):
    kept = [s for s in steps if abs(s) > DEAD_BAND]
    return sum(1 for a, b in itertools.pairwise(kept) if (a > 0) != (b > 0))


def temporal_features(u):
    """The 13 temporal features of one trajectory ``u`` of shape (T, H, W); NaN if it is short."""
    T = len(u)
    out = dict.fromkeys(TEMPORAL, math.nan)
    E = energies(u)
    V = np.array([0.0 if is_flat(field) else field.var() for field in u])
    log_e, log_v = floored_log(E), floored_log(V)
    X = math.sqrt(E.max())
    tau = np.arange(T) - (T - 1) / 2
    r = u - u.mean(axis=0)
    sigma, threshold = static_threshold(u)
    static = sigma <= threshold
    delta = u[1:] - u[:-1]

    if T >= 2:
        out["energy_growth_rate"] = slope(log_e)
        out["variance_growth_rate"] = slope(log_v)
        out["final_to_initial_ratio"] = math.exp(0.5 * (log_e[-1] - log_e[0]))
    if T >= 3:
        q = tau**2 - (T**2 - 1) / 12
        out["energy_growth_accel"] = 2 * np.sum(q * log_e) / np.sum(q**2)
        D = np.array([math.sqrt(np.mean(step**2)) for step in delta])
        out["lyapunov_approx"] = slope(np.log(np.maximum(D, max(1e-6 * X, 1e-15))))
        out["regime_switches"] = sign_changes(np.diff(log_e)) / (T - 2)
        if static:
            out["trajectory_smoothness"] = 1.0
            out["trend_strength"] = 0.0
            out["detrended_variance"] = 0.0
        else:
            product = sum(np.mean(delta[t] * delta[t + 1]) for t in range(T - 2))
            squares = sum(np.mean(delta[t] ** 2 + delta[t + 1] ** 2) for t in range(T - 2))
            out["trajectory_smoothness"] = 0.5 * (1 + 2 * product / squares)
            b = np.sum(tau[:, None, None] * r, axis=0) / np.sum(tau**2)
            detrended = np.mean((r - tau[:, None, None] * b) ** 2)
            out["trend_strength"] = 1 - detrended / sigma**2
            out["detrended_variance"] = detrended
    if T >= 4:
        if static:
            out["temporal_freq_dominant"] = 0.0
            out["oscillation_amplitude"] = 0.0
            out["oscillation_period"] = float(T)
            out["autocorr_decay_time"] = float(T)
        else:
            k, power = temporal_spectrum(r)
            tied = power >= PEAK * power.max()
            out["temporal_freq_dominant"] = np.mean(k[tied] / T)
            out["oscillation_amplitude"] = math.sqrt(2 * power.max())
            out["oscillation_period"] = power.sum() / np.sum(k / T * power)
            out["autocorr_decay_time"] = decay_time(autocorrelation(r))
    return out
