"""Computes the 27 spectral features of a field.

The periodogram (Percival & Walden 1993) S[k] = |Σ d·exp(−2πi(fx·j + fy·i))|²/n covers the full
plane of Fourier bins without the DC bin, where d is the field minus its mean and n the number of
pixels. White noise of variance σ² has E S = σ² on every grid. Only the half plane kx ≥ 0 is
transformed; weights count the bins of the full plane. Frequencies are in cycles/pixel.
"""

import torch
from torch import Tensor

from spinlock.features.fourier_bins import Bins, fourier_bins
from spinlock.features.registry import names
from spinlock.features.spatial import Standardized, rescaled

_PEAK_TOLERANCE = 1e-3
_ROLLOFF_FRACTION = 0.85
# 80 dB below the mean power; the noise of a float32 transform is about 1e-14 of it.
_FLATNESS_FLOOR = 1e-8


def spectral_of(standardized: Standardized) -> Tensor:
    """Compute the 27 spectral features [B, 27] of standardized fields."""
    z = standardized.unit
    height, width = z.shape[-2:]
    bins = fourier_bins(height, width, z.device)
    power = _power(z, bins)
    weighted = power * bins.weight
    # Sums in float64 make the ratios lie within [0, 1] and sum to 1.
    in_band = [weighted[:, first:last].sum(-1).double() for first, last in bins.bands]
    total = in_band[0] + in_band[1] + in_band[2] + in_band[3] + in_band[4]
    of_unit = {
        "low_freq_ratio": (in_band[0] + in_band[1]) / total,
        "mid_freq_ratio": (in_band[2] + in_band[3]) / total,
        "high_freq_ratio": in_band[4] / total,
        "spectral_rolloff": _rolloff(weighted, total, bins),
        **_bands(power, in_band, bins),
        **_peak(power, bins, height * width),
        **_shape(weighted, bins),
        "spectral_flatness": _flatness(power, total, bins),
    }
    values = rescaled(of_unit, standardized)
    return torch.stack([values[name].float() for name in names("spectral")], dim=-1)


def _power(z: Tensor, bins: Bins) -> Tensor:
    """Compute S of unit-variance fields z [B, H, W], float32 [B, K'] in the order of the bins."""
    squares = torch.view_as_real(torch.fft.rfft2(z, norm="ortho")).square_()
    power = squares[..., 0] + squares[..., 1]
    return power.flatten(1).index_select(-1, bins.order)


def _bands(power: Tensor, in_band: list[Tensor], bins: Bins) -> dict[str, Tensor]:
    """Compute mean, maximum and population std of S in each band; 0 for a band without bins."""
    values: dict[str, Tensor] = {}
    for band, ((first, last), count) in enumerate(zip(bins.bands, bins.counts, strict=True)):
        mean = peak = std = torch.zeros_like(power[:, 0])
        if count:
            segment = power[:, first:last]
            mean, peak = (in_band[band] / count).float(), segment.amax(-1)
            spread = (segment - mean[:, None]).square_().mul_(bins.weight[first:last])
            std = (spread.sum(-1) / count).sqrt()
        for statistic, value in (("mean", mean), ("max", peak), ("std", std)):
            values[f"fft_power_scale_{band}_{statistic}"] = value
    return values


def _peak(power: Tensor, bins: Bins, pixels: int) -> dict[str, Tensor]:
    """Compute frequency and amplitude of the strongest bin; tied bins have equal weights."""
    top = power.amax(-1)
    tied = (power >= (1 - _PEAK_TOLERANCE) * top[:, None]) * bins.weight
    count = tied.sum(-1)
    return {
        "dominant_freq_x": (tied * bins.fx).sum(-1) / count,
        "dominant_freq_y": (tied * bins.fy).sum(-1) / count,
        "dominant_freq_magnitude": 2 * (top / pixels).sqrt(),
    }


def _shape(weighted: Tensor, bins: Bins) -> dict[str, Tensor]:
    """Compute centroid and bandwidth (Peeters 2004) and anisotropy (Mardia & Jupp 2000).

    Args:
        weighted: Power S times the weight of each bin, [B, K'].
        bins: Bins of the grid.
    """
    total = weighted.sum(-1)
    product = torch.empty_like(weighted)

    def mean(of: Tensor) -> Tensor:
        # Reuse one buffer, because new memory costs more than the arithmetic.
        return torch.mul(weighted, of, out=product).sum(-1) / total

    deviation = bins.f - mean(bins.f)[:, None]
    return {
        "spectral_centroid_x": mean(bins.fx),
        "spectral_centroid_y": mean(bins.fy),
        "spectral_bandwidth": mean(deviation.square_()).sqrt(),
        "spectral_anisotropy": torch.hypot(mean(bins.cos2), mean(bins.sin2)).clamp(max=1.0),
    }


def _flatness(power: Tensor, total: Tensor, bins: Bins) -> Tensor:
    """Compute the ratio of geometric and arithmetic mean of S, floored (Gray & Markel 1974)."""
    count = sum(bins.counts)
    relative = power / (total / count).float()[:, None]
    logarithm = relative.add_(_FLATNESS_FLOOR).log_().mul_(bins.weight)
    return ((logarithm.sum(-1) / count).exp() / (1 + _FLATNESS_FLOOR)).clamp(max=1.0)


def _rolloff(weighted: Tensor, total: Tensor, bins: Bins) -> Tensor:
    """Find the lowest frequency below which 85 % of the power lies (Tzanetakis & Cook 2002)."""
    # Integer fractions in units of 2⁻⁵² have the precision of float64 and exact sums. CUDA has a
    # deterministic cumsum for integers only.
    fraction = weighted * (2.0**52 / total)[:, None]
    accumulated = fraction.long().cumsum(-1)
    threshold = (_ROLLOFF_FRACTION * accumulated[:, -1:].double()).ceil().long()
    # The clamp keeps the index of a row of NaN in range.
    reached = torch.searchsorted(accumulated, threshold).clamp(max=weighted.shape[-1] - 1)
    return bins.f[reached[:, 0]]
