"""The spatial and spectral features of one field."""

import math

import numpy as np

from .columns import BAND_EDGES, EPSILON_FLATNESS, PEAK, ROLLOFF_SHARE, SPATIAL, SPECTRAL


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
