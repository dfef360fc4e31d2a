"""Reference values of features.md, section 6, from analysis rather than from any implementation.

Every test here runs twice: on the oracle in float64 with tight tolerances, so that the judge is
judged first, and on the package in float32 with the tolerances of section 8.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from . import oracle
from .helpers import as_fields, package_extract, random_fields, red


@dataclass
class Implementation:
    """One of the two implementations: the oracle (``device`` None) or the package."""

    device: torch.device | None

    @property
    def is_oracle(self):
        return self.device is None

    def field_features(self, fields):
        """Per-timestep features [N, T, 46] as a dict of arrays [N, T]."""
        fields = np.asarray(fields, dtype=np.float64)
        if self.is_oracle:
            rows = oracle.oracle_extract(fields)["per_timestep"]
        else:
            rows = package_extract(fields, self.device)["per_timestep"]
        return dict(zip(oracle.PER_TIMESTEP, np.moveaxis(rows, -1, 0), strict=True))

    def one_field(self, u):
        """The 46 features of a single field (H, W), as numbers."""
        return {name: v[0, 0] for name, v in self.field_features(as_fields(u)).items()}

    def trajectories(self, u):
        """The 13 features of trajectories (R, T, H, W), as a dict of arrays [R]."""
        u = np.asarray(u, dtype=np.float64)
        if self.is_oracle:
            rows = [oracle.temporal_features(one) for one in u]
            return {name: np.array([r[name] for r in rows]) for name in oracle.PER_TRAJECTORY}
        rows = package_extract(u[None, :, :, None], self.device)["per_trajectory"][0]
        return dict(zip(oracle.PER_TRAJECTORY, rows.T, strict=True))

    def one_trajectory(self, u):
        """The 13 features of a single trajectory (T, H, W), as numbers."""
        return {name: v[0] for name, v in self.trajectories(np.asarray(u)[None]).items()}

    def check(self, actual, expected, *, shift=0.0, scale=1.0):
        """Compare numbers by name; ``shift`` and ``scale`` are |μ| and s (or σ) of the input."""
        lines = []
        for name, value in expected.items():
            exponent = oracle.EXPONENT[name]
            if self.is_oracle:
                allowed = 1e-9 * (abs(value) + scale**exponent)
            else:
                size = {0: 10.0, 1: shift + scale, 2: scale**2}[exponent]
                allowed = 1e-3 * abs(value) + 1e-5 * size
            if not abs(actual[name] - value) <= allowed:
                lines.append(f"{name}: got {actual[name]:.9g}, expected {value:.9g} ±{allowed:.2g}")
        assert not lines, "\n" + "\n".join(lines)


@pytest.fixture(params=["oracle", "package"])
def implementation(request, device):
    if request.param == "oracle":
        if device.type != "cpu":
            pytest.skip("the oracle knows no devices")
        return Implementation(None)
    return Implementation(device)


def approximately(actual, expected, rel):
    """The entries marked ≈ in section 6: exact up to how the grid samples the phase."""
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=rel), name


def band_bins(H, W):
    """Number of bins in each of the five bands."""
    fx, fy = oracle.frequencies(H, W)
    f2 = (fx**2 + fy**2).ravel()[1:]
    edges = [e**2 for e in oracle.BAND_EDGES]
    return [int(np.sum((f2 >= a) & (f2 < b))) for a, b in itertools.pairwise(edges)]


# ------------------------------------------------------------------------ the oracle's machinery


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


# --------------------------------------------------------------------------------------- fields


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


def test_a_gradient_of_rounding_size_has_no_direction(implementation):
    """A checkerboard whose column 4 is off by two units in the last place: Jxx is 1e-16·s²."""
    i, j = np.mgrid[:16, :24]
    u = (-1.0) ** (i + j)
    u[:, 4] += 2.0**-22
    assert implementation.one_field(u)["gradient_anisotropy"] == 0.0


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


# --------------------------------------------------------------------------------- trajectories


def one_field(seed, shape=(16, 12)):
    return red(np.random.default_rng(seed), shape, decay=1.0)


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


def test_aggregation_over_realizations(implementation):
    """Population std and capped cv of a feature whose three values are known: rates 0, r, 2r.

    The cv of the acceleration (a mean that is 0 up to rounding) is not looked at.
    """
    r, T = 0.2, 5
    v = one_field(18)
    u = np.stack([np.exp(k * r * np.arange(T))[:, None, None] * v for k in range(3)])
    fields = u[None, :, :, None]
    if implementation.is_oracle:
        row = oracle.oracle_extract(fields)["aggregated"][0]
    else:
        row = package_extract(fields, implementation.device)["aggregated"][0]
    actual = dict(zip(oracle.AGGREGATED, row, strict=True))
    assert actual["energy_growth_rate_mean"] == pytest.approx(2 * r, rel=1e-4)
    assert actual["energy_growth_rate_std"] == pytest.approx(2 * r * math.sqrt(2 / 3), rel=1e-4)
    assert actual["energy_growth_rate_cv"] == pytest.approx(math.sqrt(2 / 3), rel=1e-4)


def test_cv_is_capped_and_zero_where_nothing_varies(implementation):
    """Rates +r and −r (mean ~0) reach the cap of 100; one realization has std = cv = 0."""
    v = one_field(19)
    t = np.arange(4)[:, None, None]
    u = np.stack([np.exp(0.3 * t) * v, np.exp(-0.3 * t) * v])[None, :, :, None]
    for fields, cv in ((u, 100.0), (u[:, :1], 0.0)):
        if implementation.is_oracle:
            row = oracle.oracle_extract(fields)["aggregated"][0]
        else:
            row = package_extract(fields, implementation.device)["aggregated"][0]
        actual = dict(zip(oracle.AGGREGATED, row, strict=True))
        assert actual["energy_growth_rate_cv"] == cv
        if cv == 0.0:
            for name in oracle.PER_TRAJECTORY:
                assert actual[f"{name}_std"] == 0.0, name
                assert actual[f"{name}_cv"] == 0.0, name
