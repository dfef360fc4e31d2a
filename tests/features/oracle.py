"""An independent implementation of the features in float64 and plain numpy, as an oracle.

It shares no code with ``spinlock.features`` and is simple: full-plane transforms, ``np.quantile``,
``np.median``, one field at a time. It was written from the specification alone, so agreement with
the package is evidence that both are correct.
"""

import itertools
import math

import numpy as np

EPSILON_FLATNESS = 1e-8
PEAK = 1.0 - 1e-3
BAND_EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # cycles/pixel; 1.0 lies beyond every bin
ROLLOFF_SHARE = 0.85
DEAD_BAND = 1e-4

# name: exponent, in the order of the tables of features.md.
SPATIAL = {
    "spatial_mean": 1,
    "spatial_variance": 2,
    "spatial_std": 1,
    "spatial_skewness": 0,
    "spatial_kurtosis": 0,
    "spatial_min": 1,
    "spatial_max": 1,
    "spatial_range": 1,
    "spatial_iqr": 1,
    "spatial_mad": 1,
    "gradient_magnitude_mean": 1,
    "gradient_magnitude_std": 1,
    "gradient_magnitude_max": 1,
    "gradient_x_mean": 1,
    "gradient_y_mean": 1,
    "gradient_anisotropy": 0,
    "laplacian_mean": 1,
    "laplacian_std": 1,
    "laplacian_energy": 2,
}
SPECTRAL = {
    "fft_power_scale_0_mean": 2,
    "fft_power_scale_0_max": 2,
    "fft_power_scale_0_std": 2,
    "fft_power_scale_1_mean": 2,
    "fft_power_scale_1_max": 2,
    "fft_power_scale_1_std": 2,
    "fft_power_scale_2_mean": 2,
    "fft_power_scale_2_max": 2,
    "fft_power_scale_2_std": 2,
    "fft_power_scale_3_mean": 2,
    "fft_power_scale_3_max": 2,
    "fft_power_scale_3_std": 2,
    "fft_power_scale_4_mean": 2,
    "fft_power_scale_4_max": 2,
    "fft_power_scale_4_std": 2,
    "dominant_freq_x": 0,
    "dominant_freq_y": 0,
    "dominant_freq_magnitude": 1,
    "spectral_centroid_x": 0,
    "spectral_centroid_y": 0,
    "spectral_bandwidth": 0,
    "low_freq_ratio": 0,
    "mid_freq_ratio": 0,
    "high_freq_ratio": 0,
    "spectral_flatness": 0,
    "spectral_rolloff": 0,
    "spectral_anisotropy": 0,
}
# name: (exponent, fewest timesteps)
TEMPORAL = {
    "energy_growth_rate": (0, 2),
    "energy_growth_accel": (0, 3),
    "variance_growth_rate": (0, 2),
    "temporal_freq_dominant": (0, 4),
    "oscillation_amplitude": (1, 4),
    "oscillation_period": (0, 4),
    "autocorr_decay_time": (0, 4),
    "lyapunov_approx": (0, 3),
    "trajectory_smoothness": (0, 3),
    "regime_switches": (0, 3),
    "final_to_initial_ratio": (0, 2),
    "trend_strength": (0, 3),
    "detrended_variance": (2, 3),
}
PER_TIMESTEP = (*SPATIAL, *SPECTRAL)
PER_TRAJECTORY = tuple(TEMPORAL)
AGGREGATED = tuple(
    f"{name}_{statistic}" for statistic in ("mean", "std", "cv") for name in PER_TRAJECTORY
)
COLUMNS = {
    "per_timestep": PER_TIMESTEP,
    "per_trajectory": PER_TRAJECTORY,
    "aggregated": AGGREGATED,
}
EXPONENT = SPATIAL | SPECTRAL | {name: row[0] for name, row in TEMPORAL.items()}
SHIFTED_BY_A_CONSTANT = ("spatial_mean", "spatial_min", "spatial_max")


# ---------------------------------------------------------------------------------- one field


def is_flat(u):
    return u.max() - u.min() <= max(1e-6 * np.abs(u).max(), 1e-12)


def spatial_features(u):
    """The 19 spatial features of one field ``u`` of shape (H, W), by name."""
    flat = is_flat(u)
    out = dict.fromkeys(SPATIAL, 0.0)
    out["spatial_mean"] = u.mean()
    out["spatial_min"] = u.min()
    out["spatial_max"] = u.max()
    out["spatial_range"] = u.max() - u.min()
    if flat:
        return out
    d = u - u.mean()
    variance = np.mean(d**2)
    z = d / math.sqrt(variance)
    out["spatial_variance"] = variance
    out["spatial_std"] = math.sqrt(variance)
    out["spatial_skewness"] = np.mean(z**3)
    out["spatial_kurtosis"] = np.mean(z**4) - 3.0
    out["spatial_iqr"] = np.quantile(u, 0.75) - np.quantile(u, 0.25)
    out["spatial_mad"] = np.median(np.abs(u - np.median(u)))

    right, left = np.roll(d, -1, axis=1), np.roll(d, 1, axis=1)  # d[i, j+1], d[i, j-1]
    down, up = np.roll(d, -1, axis=0), np.roll(d, 1, axis=0)  # d[i+1, j], d[i-1, j]
    gx, gy = (right - left) / 2, (down - up) / 2
    g = np.sqrt(gx**2 + gy**2)
    out["gradient_magnitude_mean"] = g.mean()
    out["gradient_magnitude_std"] = math.sqrt(np.mean((g - g.mean()) ** 2))
    out["gradient_magnitude_max"] = g.max()
    out["gradient_x_mean"] = np.abs(gx).mean()
    out["gradient_y_mean"] = np.abs(gy).mean()
    jxx, jyy, jxy = np.mean(gx**2), np.mean(gy**2), np.mean(gx * gy)
    if jxx + jyy > 1e-12 * variance:
        out["gradient_anisotropy"] = math.sqrt((jxx - jyy) ** 2 + 4 * jxy**2) / (jxx + jyy)
    laplacian = right + left + down + up - 4 * d
    out["laplacian_mean"] = np.abs(laplacian).mean()
    out["laplacian_std"] = math.sqrt(np.mean(laplacian**2))
    out["laplacian_energy"] = np.mean(laplacian**2)
    return out


def frequencies(H, W):
    """Signed fx, fy of every bin of the full plane, each of shape (H, W), in cycles/pixel."""
    kx = [k if k < W / 2 else k - W for k in range(W)]
    ky = [k if k < H / 2 else k - H for k in range(H)]
    fx, fy = np.meshgrid(np.array(kx) / W, np.array(ky) / H)
    return fx, fy


def power_spectrum(u):
    """S on the full plane; its DC bin is meaningless and left out by everyone."""
    return np.abs(np.fft.fft2(u - u.mean())) ** 2 / u.size


def spectral_features(u):
    """The 27 spectral features of one field ``u`` of shape (H, W), by name."""
    out = dict.fromkeys(SPECTRAL, 0.0)
    if is_flat(u):
        return out
    H, W = u.shape
    not_dc = np.ones((H, W), dtype=bool)
    not_dc[0, 0] = False
    fx, fy = (f[not_dc] for f in frequencies(H, W))
    S = power_spectrum(u)[not_dc]
    f2 = fx**2 + fy**2
    f = np.sqrt(f2)
    p = S / S.sum()

    in_band = []
    for b in range(5):
        inside = (f2 >= BAND_EDGES[b] ** 2) & (f2 < BAND_EDGES[b + 1] ** 2)
        in_band.append(inside)
        if inside.any():
            out[f"fft_power_scale_{b}_mean"] = S[inside].mean()
            out[f"fft_power_scale_{b}_max"] = S[inside].max()
            out[f"fft_power_scale_{b}_std"] = S[inside].std()

    peak = PEAK * S.max() <= S
    out["dominant_freq_x"] = np.abs(fx[peak]).mean()
    out["dominant_freq_y"] = np.abs(fy[peak]).mean()
    out["dominant_freq_magnitude"] = 2 * math.sqrt(S.max() / u.size)
    out["spectral_centroid_x"] = np.sum(p * np.abs(fx))
    out["spectral_centroid_y"] = np.sum(p * np.abs(fy))
    centroid = np.sum(p * f)
    out["spectral_bandwidth"] = math.sqrt(np.sum(p * (f - centroid) ** 2))
    out["low_freq_ratio"] = p[in_band[0] | in_band[1]].sum()
    out["mid_freq_ratio"] = p[in_band[2] | in_band[3]].sum()
    out["high_freq_ratio"] = p[in_band[4]].sum()
    floored = (S / S.mean() + EPSILON_FLATNESS) / (1 + EPSILON_FLATNESS)
    out["spectral_flatness"] = math.exp(np.mean(np.log(floored)))
    by_frequency = np.argsort(f2)
    reached = np.cumsum(S[by_frequency]) >= ROLLOFF_SHARE * S.sum()
    out["spectral_rolloff"] = f[by_frequency][np.argmax(reached)]  # argmax: the first True
    cos2 = (fx**2 - fy**2) / f2
    sin2 = np.where((np.abs(fx) == 0.5) | (np.abs(fy) == 0.5), 0.0, 2 * fx * fy / f2)
    out["spectral_anisotropy"] = math.sqrt(np.sum(p * cos2) ** 2 + np.sum(p * sin2) ** 2)
    return out


# ---------------------------------------------------------------------------- one trajectory


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


# ------------------------------------------------------------------------------- whole arrays


def oracle_extract(fields):
    """The three feature arrays of ``fields`` [N, M, T, C, H, W], in float64.

    The input may be float32 (what the package sees) or float64 (to check the oracle itself).
    """
    u = np.asarray(fields, dtype=np.float64)
    N, M, T, C = u.shape[:4]
    per_field = np.empty((N, M, T, C, len(PER_TIMESTEP)))
    for index in np.ndindex(N, M, T, C):
        values = spatial_features(u[index]) | spectral_features(u[index])
        per_field[index] = [values[name] for name in PER_TIMESTEP]
    per_channel = np.empty((N, M, C, len(PER_TRAJECTORY)))
    for n, m, c in np.ndindex(N, M, C):
        values = temporal_features(u[n, m, :, c])
        per_channel[n, m, c] = [values[name] for name in PER_TRAJECTORY]
    per_trajectory = per_channel.mean(axis=2)
    return {
        "per_timestep": per_field.mean(axis=(1, 3)),
        "per_trajectory": per_trajectory,
        "aggregated": aggregate(per_trajectory),
    }


def aggregate(per_trajectory):
    """[N, M, 13] to [N, 39]: means, population stds and capped coefficients of variation."""
    m = per_trajectory.mean(axis=1)
    v = per_trajectory.std(axis=1)
    v[np.ptp(per_trajectory, axis=1) == 0] = 0.0  # equal realizations: no rounding residue
    cv = np.empty_like(m)
    for index in np.ndindex(m.shape):
        if math.isnan(m[index]):
            cv[index] = math.nan
        elif v[index] == 0:
            cv[index] = 0.0
        elif m[index] == 0:
            cv[index] = 100.0
        else:
            cv[index] = min(v[index] / abs(m[index]), 100.0)
    return np.concatenate([m, v, cv], axis=1)


# ------------------------------------------------------- agreement, section 8 of features.md


def allowed_deviation(fields, expected):
    """How far an implementation may lie from ``expected`` (a dict of arrays) on ``fields``.

    1e-3 relative, plus 1e-5 of the field's own scale (1e-4 for dimensionless features), the
    scales being averaged over realizations and channels as the features are. Infinite where
    section 8 compares nothing (a cv about a vanishing mean).

    Two places need more than section 8 grants, for reasons of arithmetic and not of leniency:

    * The std over a band's bins is a difference of nearly equal S whenever the band holds a few
      equal bins; S reaches n·s², so float32 resolves that difference to 1e-7 of the band's
      largest S and not to 1e-5·s². It gets 1e-6 of the band's maximum on top.
    * A cv cannot be nearer than the mean and the std it is the quotient of, so it gets what
      follows from theirs. (That aggregated follows from per_trajectory is tested apart.)
    """
    u = np.asarray(fields, dtype=np.float64)
    N, M, T, C = u.shape[:4]
    mu = u.mean(axis=(-2, -1))
    s = np.zeros((N, M, T, C))
    for index in np.ndindex(N, M, T, C):
        s[index] = 0.0 if is_flat(u[index]) else u[index].std()
    by_exponent = {
        0: np.full((N, T), 1e-4),
        1: 1e-5 * (np.abs(mu) + s).mean(axis=(1, 3)),
        2: 1e-5 * (s**2).mean(axis=(1, 3)),
    }
    timestep = np.stack([by_exponent[EXPONENT[name]] for name in PER_TIMESTEP], axis=-1)
    for b in range(5):
        peak, std = (PER_TIMESTEP.index(f"fft_power_scale_{b}_{which}") for which in ("max", "std"))
        timestep[..., std] += 1e-6 * expected["per_timestep"][..., peak]

    sigma = np.empty((N, M, C))
    switch = np.zeros((N, M, C))
    for n, m, c in np.ndindex(N, M, C):
        trajectory = u[n, m, :, c]
        sigma[n, m, c] = static_threshold(trajectory)[0]
        if T >= 3:
            steps = np.abs(np.diff(floored_log(energies(trajectory))))
            if np.any(np.abs(steps - DEAD_BAND) <= 1e-6):
                switch[n, m, c] = 1 / (T - 2)
    temporal_scale = {
        0: np.full((N, M), 1e-4),
        1: 1e-5 * sigma.mean(axis=2),
        2: 1e-5 * (sigma**2).mean(axis=2),
    }
    trajectory = np.stack([temporal_scale[EXPONENT[name]] for name in PER_TRAJECTORY], axis=-1)
    trajectory[..., PER_TRAJECTORY.index("regime_switches")] += switch.mean(axis=2)

    k = len(PER_TRAJECTORY)
    mean = np.abs(expected["aggregated"][:, :k])
    dimensionless = np.array([EXPONENT[name] == 0 for name in PER_TRAJECTORY])
    std = 1e-5 * (dimensionless + mean)
    std[:, PER_TRAJECTORY.index("regime_switches")] += switch.mean(axis=2).max(axis=1)
    cv = propagated_to_cv(expected["aggregated"], trajectory.mean(axis=1), std)
    aggregated = np.concatenate([trajectory.mean(axis=1), std, cv], axis=1)
    scales = {"per_timestep": timestep, "per_trajectory": trajectory, "aggregated": aggregated}
    return {key: 1e-3 * np.abs(expected[key]) + scales[key] for key in scales}


def propagated_to_cv(aggregated, mean_scale, std_scale):
    """How far v/|m| may move when m and v move within their own tolerances (plus 1e-4)."""
    k = len(PER_TRAJECTORY)
    m, v, cv = np.abs(aggregated[:, :k]), aggregated[:, k : 2 * k], aggregated[:, 2 * k :]
    m_error, v_error = 1e-3 * m + mean_scale, 1e-3 * v + std_scale
    compared = (m > 1e-5) & (m > 2 * m_error)
    safe = np.where(compared, m - m_error, 1.0)
    return np.where(compared, 1e-4 + (v_error + cv * m_error) / safe, np.inf)


def disagreements(actual, expected, allowed, label=""):
    """One line for every column of any of the three arrays that lies too far from ``expected``."""
    lines = []
    for key, names in COLUMNS.items():
        if key not in actual:
            continue
        a, b, tolerance = (np.asarray(x[key], np.float64) for x in (actual, expected, allowed))
        if a.shape != b.shape:
            lines.append(f"{label} {key}: shape {a.shape}, expected {b.shape}")
            continue
        nan_differs = np.isnan(a) != np.isnan(b)
        difference = np.where(np.isnan(a) | np.isnan(b), 0.0, np.abs(a - b))
        tolerance = np.nan_to_num(tolerance, nan=0.0, posinf=1e30)  # 1e30: not compared
        wrong = nan_differs | np.isinf(a) | (difference > tolerance)
        for column in np.flatnonzero(wrong.any(axis=tuple(range(wrong.ndim - 1)))):
            excess = np.where(nan_differs, np.inf, difference - tolerance)[..., column]
            worst = np.unravel_index(np.argmax(excess), excess.shape)
            at = (*worst, column)
            lines.append(
                f"{label} {key}.{names[column]}{[int(i) for i in worst]}: got {a[at]:.9g}, "
                f"expected {b[at]:.9g}, allowed ±{tolerance[at]:.3g} "
                f"({int(wrong[..., column].sum())} of {wrong[..., column].size} rows)"
            )
    return lines


def assert_agreement(actual, expected, fields, label=""):
    """Fail with every disagreeing column named, by the tolerance of section 8 on ``fields``."""
    lines = disagreements(actual, expected, allowed_deviation(fields, expected), label)
    assert not lines, "\n" + "\n".join(lines)
