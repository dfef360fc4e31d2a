"""All features of sinusoids, impulses, white noise and checkerboards, from analysis."""

import math

import numpy as np
import pytest

from . import oracle
from .helpers import random_fields
from .implementations import approximately, band_bins


@pytest.mark.parametrize(
    ("H", "W", "kx", "ky"),
    [
        (64, 64, 3, 5),
        (64, 64, 1, 0),
        (64, 64, 0, 11),
        (64, 64, 13, -7),
        (64, 64, 29, 20),
        (64, 128, -5, 2),
        (65, 63, 4, -9),
    ],
)
def test_sinusoid(implementation, H, W, kx, ky):
    A, c, phi = 1.7, 0.6, 0.3
    n = H * W
    i, j = np.mgrid[:H, :W]
    u = c + A * np.cos(2 * np.pi * (kx * j / W + ky * i / H) + phi)
    fx, fy = abs(kx) / W, abs(ky) / H
    f2 = fx**2 + fy**2
    sx, sy = abs(math.sin(2 * np.pi * fx)), abs(math.sin(2 * np.pi * fy))
    alpha = math.hypot(sx, sy)
    lam = abs(2 * math.cos(2 * np.pi * fx) + 2 * math.cos(2 * np.pi * fy) - 4)
    expected = {
        "spatial_mean": c,
        "spatial_variance": A**2 / 2,
        "spatial_std": A / math.sqrt(2),
        "spatial_skewness": 0.0,
        "spatial_kurtosis": -1.5,
        "gradient_anisotropy": 1.0,
        "laplacian_std": A * lam / math.sqrt(2),
        "laplacian_energy": A**2 * lam**2 / 2,
        "dominant_freq_x": fx,
        "dominant_freq_y": fy,
        "dominant_freq_magnitude": A,
        "spectral_centroid_x": fx,
        "spectral_centroid_y": fy,
        "spectral_bandwidth": 0.0,
        "low_freq_ratio": float(f2 < 1 / 256),
        "mid_freq_ratio": float(1 / 256 <= f2 < 1 / 16),
        "high_freq_ratio": float(f2 >= 1 / 16),
        "spectral_rolloff": math.sqrt(f2),
        "spectral_anisotropy": 1.0,
    }
    own = max(b for b in range(5) if f2 >= oracle.BAND_EDGES[b] ** 2)
    for b, N_b in enumerate(band_bins(H, W)):
        mean, peak, std = (f"fft_power_scale_{b}_{which}" for which in ("mean", "max", "std"))
        expected |= {mean: 0.0, peak: 0.0, std: 0.0}
        if b == own:
            expected[mean] = n * A**2 / (2 * N_b)
            expected[peak] = n * A**2 / 4
            expected[std] = n * A**2 / 4 * math.sqrt(2 / N_b - 4 / N_b**2)
    actual = implementation.one_field(u)
    implementation.check(actual, expected, shift=c, scale=A / math.sqrt(2))

    phases = max(H // math.gcd(H, ky), W // math.gcd(W, kx))  # the least number that is sampled
    quantile_step = 2 * np.pi / phases
    quantiles = {"spatial_iqr": math.sqrt(2) * A, "spatial_mad": A / math.sqrt(2)}
    approximately(actual, quantiles, rel=quantile_step)
    gradients = {
        "gradient_magnitude_mean": 2 * alpha * A / np.pi,
        "gradient_magnitude_std": alpha * A * math.sqrt(0.5 - 4 / np.pi**2),
        "gradient_magnitude_max": alpha * A,
        "laplacian_mean": 2 * A * lam / np.pi,
    }
    approximately(actual, gradients, rel=0.01)
    if kx:
        approximately(actual, {"gradient_x_mean": 2 * A * sx / np.pi}, rel=0.01)
    else:
        assert actual["gradient_x_mean"] == pytest.approx(0.0, abs=1e-5)
    if ky:
        approximately(actual, {"gradient_y_mean": 2 * A * sy / np.pi}, rel=0.01)
    # The floor of 80 dB stands far above float32 noise, so float32 must see it too.
    approximately(actual, {"spectral_flatness": 1e-8}, rel=0.05)


@pytest.mark.parametrize(("H", "W"), [(8, 8), (16, 12), (64, 64), (128, 128)])
@pytest.mark.parametrize("a", [2.5, -0.4])
def test_impulse(implementation, H, W, a):
    n = H * W
    u = np.zeros((H, W))
    u[H // 3, W - 1] = a  # at an edge: the periodic neighbors matter
    size, sign = abs(a), math.copysign(1.0, a)
    bins = band_bins(H, W)
    K = n - 1
    expected = {
        "spatial_mean": a / n,
        "spatial_variance": a**2 * (n - 1) / n**2,
        "spatial_skewness": sign * (n - 2) / math.sqrt(n - 1),
        "spatial_kurtosis": n - 5 + 1 / (n - 1),
        "spatial_min": min(a, 0.0),
        "spatial_max": max(a, 0.0),
        "spatial_range": size,
        "spatial_iqr": 0.0,
        "spatial_mad": 0.0,
        "gradient_magnitude_mean": 2 * size / n,
        "gradient_magnitude_std": size * math.sqrt(1 / n - 4 / n**2),
        "gradient_magnitude_max": size / 2,
        "gradient_x_mean": size / n,
        "gradient_y_mean": size / n,
        "gradient_anisotropy": 0.0,
        "laplacian_mean": 8 * size / n,
        "laplacian_std": size * math.sqrt(20 / n),
        "laplacian_energy": 20 * a**2 / n,
        "dominant_freq_x": n / (4 * (n - 1)),
        "dominant_freq_y": n / (4 * (n - 1)),
        "dominant_freq_magnitude": 2 * size / n,
        "spectral_centroid_x": n / (4 * (n - 1)),
        "spectral_centroid_y": n / (4 * (n - 1)),
        "low_freq_ratio": sum(bins[:2]) / K,
        "mid_freq_ratio": sum(bins[2:4]) / K,
        "high_freq_ratio": bins[4] / K,
        "spectral_flatness": 1.0,
    }
    if H == W:  # cos2θ cancels only where x and y are sampled alike
        expected["spectral_anisotropy"] = 0.0
    for b, N_b in enumerate(bins):
        expected[f"fft_power_scale_{b}_mean"] = a**2 / n if N_b else 0.0
        expected[f"fft_power_scale_{b}_max"] = a**2 / n if N_b else 0.0
        expected[f"fft_power_scale_{b}_std"] = 0.0
    actual = implementation.one_field(u)
    implementation.check(actual, expected, shift=size / n, scale=size / math.sqrt(n))
    if n == 128 * 128:
        assert actual["spectral_bandwidth"] == pytest.approx(0.1424, abs=1e-3)
        assert actual["spectral_rolloff"] == pytest.approx(0.5277, abs=1e-3)


def test_white_noise_expectations(implementation):
    """Means over 24 fields lie within five standard errors, plus what 4-digit entries round off."""
    R, n, mu, sigma = 24, 128 * 128, 0.5, 1.6
    u = mu + sigma * random_fields("white", (R, 1, 1, 1, 128, 128), seed=3).astype(np.float64)
    var = sigma**2
    expected = {
        "spatial_mean": mu,
        "spatial_variance": var,
        "spatial_skewness": 0.0,
        "spatial_kurtosis": 0.0,
        "spatial_iqr": 1.349 * sigma,
        "spatial_mad": 0.6745 * sigma,
        "gradient_magnitude_mean": 0.8862 * sigma,
        "gradient_magnitude_std": 0.4633 * sigma,
        "gradient_x_mean": 0.5642 * sigma,
        "gradient_y_mean": 0.5642 * sigma,
        "laplacian_mean": 3.568 * sigma,
        "laplacian_std": 4.472 * sigma,
        "laplacian_energy": 20 * var,
        "dominant_freq_magnitude": 2 * sigma * math.sqrt((math.log(n / 2) + 0.5772) / n),
        "spectral_centroid_x": 0.25,
        "spectral_centroid_y": 0.25,
        "spectral_bandwidth": 0.1424,
        "low_freq_ratio": 0.0117,
        "mid_freq_ratio": 0.1838,
        "high_freq_ratio": 0.8044,
        "spectral_flatness": math.exp(-np.euler_gamma),
        "spectral_rolloff": 0.528,
    }
    for b in range(5):
        expected[f"fft_power_scale_{b}_mean"] = var
        expected[f"fft_power_scale_{b}_std"] = var
    # The std over the N_b bins of a band is biased low: the N_b/2 distinct bins are exponential.
    bias = {f"fft_power_scale_{b}_std": 6 * var / N for b, N in enumerate(band_bins(128, 128))}
    bias["dominant_freq_magnitude"] = 0.005 * sigma  # √ of a mean against the mean of a √
    actual = implementation.field_features(u)
    lines = []
    for name, value in expected.items():
        sample = actual[name][:, 0]
        rounding = 2e-4 * sigma ** oracle.EXPONENT[name]
        allowed = 5 * sample.std(ddof=1) / math.sqrt(R) + rounding + bias.get(name, 0.0)
        if not abs(sample.mean() - value) <= allowed:
            lines.append(f"{name}: mean {sample.mean():.6g}, expected {value:.6g} ±{allowed:.2g}")
    assert not lines, "\n" + "\n".join(lines)
    # O(n^-½): a resultant of n/2 random unit-ish vectors
    assert actual["gradient_anisotropy"].mean() < 5 / math.sqrt(n)
    assert actual["spectral_anisotropy"].mean() < 5 / math.sqrt(n)


def test_checkerboard(implementation):
    """All power in one self-conjugate bin: no central gradient, no direction, twice the amplitude.

    cos2θ = 0 on the diagonal, and sin2θ = 0 because a Nyquist frequency has no sign.
    """
    H, W, a, c = 16, 24, 0.8, -3.0
    i, j = np.mgrid[:H, :W]
    actual = implementation.one_field(c + a * (-1.0) ** (i + j))
    expected = {
        "spatial_mean": c,
        "spatial_std": a,
        "spatial_skewness": 0.0,
        "spatial_kurtosis": -2.0,
        "spatial_range": 2 * a,
        "spatial_iqr": 2 * a,
        "spatial_mad": a,
        "gradient_magnitude_mean": 0.0,
        "gradient_magnitude_max": 0.0,
        "gradient_anisotropy": 0.0,
        "laplacian_mean": 8 * a,
        "laplacian_std": 8 * a,
        "laplacian_energy": 64 * a**2,
        "dominant_freq_x": 0.5,
        "dominant_freq_y": 0.5,
        "dominant_freq_magnitude": 2 * a,
        "spectral_centroid_x": 0.5,
        "spectral_centroid_y": 0.5,
        "spectral_bandwidth": 0.0,
        "high_freq_ratio": 1.0,
        "spectral_rolloff": math.sqrt(0.5),
        "spectral_anisotropy": 0.0,
    }
    implementation.check(actual, expected, shift=abs(c), scale=a)
