"""Identities between features, and the ranges in which their values lie."""

import numpy as np
from hypothesis import given, strategies as st

from . import oracle
from .helpers import package_extract
from .strategies import few, fields_of


@few
@given(sample=fields_of(channels=st.just(1), lengths=st.integers(1, 3)))
def test_identities_of_a_single_field(device, sample):
    """Parseval, the partition of power, and the redundancies that section 5 lists."""
    u = sample.fields()[:, :1]
    H, W = u.shape[-2:]
    n = H * W
    rows = package_extract(u, device)["per_timestep"].astype(np.float64)
    f = dict(zip(oracle.PER_TIMESTEP, np.moveaxis(rows, -1, 0), strict=True))
    variance = f["spatial_variance"]
    bins, power = [], []
    fx, fy = oracle.frequencies(H, W)
    f2 = (fx**2 + fy**2).ravel()[1:]
    for b in range(5):
        inside = (f2 >= oracle.BAND_EDGES[b] ** 2) & (f2 < oracle.BAND_EDGES[b + 1] ** 2)
        bins.append(inside.sum())
        power.append(bins[b] * f[f"fft_power_scale_{b}_mean"] / n)
    close = {"rtol": 1e-4, "atol": 1e-5 * float(variance.max())}
    np.testing.assert_allclose(sum(power), variance, err_msg="Parseval", **close)
    np.testing.assert_allclose(f["spatial_std"] ** 2, variance, **close)
    np.testing.assert_allclose(f["laplacian_std"] ** 2, f["laplacian_energy"], **close)
    np.testing.assert_allclose(
        f["spatial_range"], f["spatial_max"] - f["spatial_min"], rtol=1e-4, atol=1e-4
    )
    ratios = [f["low_freq_ratio"], f["mid_freq_ratio"], f["high_freq_ratio"]]
    np.testing.assert_allclose(sum(ratios), 1.0, atol=1e-5)
    for ratio, bands in zip(ratios, ((0, 1), (2, 3), (4,)), strict=True):
        np.testing.assert_allclose(ratio, sum(power[b] for b in bands) / variance, atol=1e-4)


@few
@given(sample=fields_of(lengths=st.integers(4, 9)))
def test_values_lie_in_their_ranges(device, sample):
    u = sample.fields()
    features = package_extract(u, device)
    T, H, W = u.shape[2], *u.shape[-2:]
    n = H * W
    ranges = {
        "spatial_variance": (0, np.inf),
        "spatial_std": (0, np.inf),
        "spatial_skewness": (-np.sqrt(n), np.sqrt(n)),
        "spatial_kurtosis": (-2, n),
        "spatial_iqr": (0, np.inf),
        "spatial_mad": (0, np.inf),
        "gradient_anisotropy": (0, 1),
        "dominant_freq_x": (0, 0.5),
        "dominant_freq_y": (0, 0.5),
        "spectral_centroid_x": (0, 0.5),
        "spectral_centroid_y": (0, 0.5),
        "spectral_bandwidth": (0, 0.36),
        "low_freq_ratio": (0, 1),
        "mid_freq_ratio": (0, 1),
        "high_freq_ratio": (0, 1),
        "spectral_flatness": (1e-9, 1),
        "spectral_rolloff": (1 / max(H, W), np.sqrt(0.5)),
        "spectral_anisotropy": (0, 1),
        "energy_growth_rate": (-28, 28),
        "variance_growth_rate": (-28, 28),
        "temporal_freq_dominant": (1 / T, 0.5),
        "oscillation_amplitude": (0, np.inf),
        "oscillation_period": (2, T),
        "autocorr_decay_time": (0.3, T),
        "lyapunov_approx": (-15, 15),
        "trajectory_smoothness": (0, 1),
        "regime_switches": (0, 1),
        "final_to_initial_ratio": (1e-6, 1e6),
        "trend_strength": (0, 1),
        "detrended_variance": (0, np.inf),
    }
    for key in ("per_timestep", "per_trajectory"):
        for column, name in enumerate(oracle.COLUMNS[key]):
            low, high = ranges.get(name, (-np.inf, np.inf))
            values = features[key][..., column]
            slack = 1e-6 * max(1.0, abs(low) if np.isfinite(low) else 1.0)
            assert np.all(np.isfinite(values)), name
            assert values.min() >= low - slack, name
            assert values.max() <= high + slack * max(1.0, high), name
    std, cv = features["aggregated"][:, 13:26], features["aggregated"][:, 26:]
    assert std.min() >= 0
    assert cv.min() >= 0
    assert cv.max() <= 100


def test_rounding_oversteps_no_end_of_a_range(device):
    """Fields and trajectories whose features lie on the ends, many times over, without slack."""
    i, j = np.mgrid[:16, :12]
    rng = np.random.default_rng(12)
    waves = [2 * np.pi * (kx * j / 12 + ky * i / 16) for kx in (1, 2) for ky in (1, 2, 3)]
    fields = np.stack(
        [
            (-1.0) ** (i + j),
            np.where(j < 6, 1.0, -1.0),
            np.cos(2 * np.pi * 2 * j / 12),
            np.where(i + j == 0, 1.0, 0.0),
            np.cos(2 * np.pi * (j / 12 + 3 * i / 16) + 0.4),
            *(np.cos(wave) + np.cos(2 * wave) / 3 for wave in waves),
        ]
    )
    size, shift = 10.0 ** rng.uniform(-3, 3, (60, 1, 1, 1)), rng.uniform(-1, 1, (60, 1, 1, 1))
    t = np.arange(6) - 2.5
    motions = np.stack([t, t**2, (-1.0) ** t.astype(int), np.cos(2 * np.pi * t / 6)])
    u = np.einsum("ashw,mt->asmthw", size * (fields + shift), motions)
    rows = package_extract(u.reshape(-1, 4, 6, 1, 16, 12), device)
    field = package_extract(u[:, :, 0, 0].reshape(-1, 1, 1, 1, 16, 12), device)
    named = dict(zip(oracle.PER_TIMESTEP, field["per_timestep"][:, 0].T, strict=True))
    named |= dict(zip(oracle.PER_TRAJECTORY, rows["per_trajectory"].reshape(-1, 13).T, strict=True))
    ranges = {
        "spatial_kurtosis": (-2, 192),
        "gradient_anisotropy": (0, 1),
        "spectral_flatness": (0, 1),
        "spectral_anisotropy": (0, 1),
        "trajectory_smoothness": (0, 1),
        "trend_strength": (0, 1),
    }
    for name, (low, high) in ranges.items():
        assert named[name].min() >= low, name
        assert named[name].max() <= high, name
