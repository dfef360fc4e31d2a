"""Computes the 27 spectral features of a field.

The periodogram (Percival & Walden 1993) S[k] = |Σ d·exp(−2πi(fx·j + fy·i))|²/n covers the full
plane of Fourier bins without the DC bin, where d is the field minus its mean and n the number of
pixels. White noise of variance σ² has E S = σ² on every grid. Only the half plane kx ≥ 0 is
transformed; weights count the bins of the full plane. Frequencies are in cycles/pixel.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from spinlock.features.registry import names
from spinlock.features.spatial import Standardized, rescaled

# Lower edges of all octaves but the first, which begins just above 0 (cycles/pixel).
BAND_EDGES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
_PEAK_TOLERANCE = 1e-3
_ROLLOFF_FRACTION = 0.85
# 80 dB below the mean power; the noise of a float32 transform is about 1e-14 of it.
_FLATNESS_FLOOR = 1e-8


@dataclass(frozen=True, eq=False)
class _Bins:
    """The K' half-plane bins of a grid in order of frequency, without the DC bin.

    Attributes:
        order: Positions of the bins in the flattened half plane, int64 [K'].
        weight: Numbers of full-plane bins that they represent (1 or 2), float32 [K'].
        fx: Absolute frequencies |fx|, float32 [K'].
        fy: Absolute frequencies |fy|, float32 [K'].
        f: Frequencies √(fx² + fy²), float32 [K'].
        cos2: Values of cos 2θ, where θ is the direction of the wavevector, float32 [K'].
        sin2: Values of sin 2θ; 0 where a component is the Nyquist frequency, which has no sign,
            float32 [K'].
        bands: First bin and the bin after the last of each band.
        counts: Numbers of full-plane bins in each band.
    """

    order: Tensor
    weight: Tensor
    fx: Tensor
    fy: Tensor
    f: Tensor
    cos2: Tensor
    sin2: Tensor
    bands: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]


@lru_cache(maxsize=16)
def _bins(height: int, width: int, device: torch.device) -> _Bins:
    """Return the bins of a grid on a device, ordered and computed in float64."""
    # k/W is exact at ½ and at band edges; numpy's k·(1/W) is not on some grids (W = 98).
    ky = np.arange(height)
    ky[2 * ky >= height] -= height
    fy, fx = np.meshgrid(ky / height, np.arange(width // 2 + 1) / width, indexing="ij")
    squared = (fx**2 + fy**2).ravel()
    order = np.argsort(squared, kind="stable")[1:]
    fx, fy, squared = fx.ravel()[order], fy.ravel()[order], squared[order]
    signless = (np.abs(fx) == 0.5) | (np.abs(fy) == 0.5)
    weight = np.where((fx == 0.0) | (fx == 0.5), 1.0, 2.0)
    edges = np.searchsorted(squared, np.square(BAND_EDGES), side="left")
    bands = tuple(pairwise((0, *edges.tolist(), len(order))))

    def table(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, torch.float32)

    return _Bins(
        order=torch.from_numpy(order).to(device),
        weight=table(weight),
        fx=table(np.abs(fx)),
        fy=table(np.abs(fy)),
        f=table(np.sqrt(squared)),
        cos2=table((fx**2 - fy**2) / squared),
        sin2=table(np.where(signless, 0.0, 2 * fx * fy / squared)),
        bands=bands,
        counts=tuple(int(weight[first:last].sum()) for first, last in bands),
    )


def spectral_of(standardized: Standardized) -> Tensor:
    """Compute the 27 spectral features [B, 27] of standardized fields."""
    z = standardized.unit
    height, width = z.shape[-2:]
    bins = _bins(height, width, z.device)
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


def _power(z: Tensor, bins: _Bins) -> Tensor:
    """Compute S of unit-variance fields z [B, H, W], float32 [B, K'] in the order of the bins."""
    squares = torch.view_as_real(torch.fft.rfft2(z, norm="ortho")).square_()
    power = squares[..., 0] + squares[..., 1]
    return power.flatten(1).index_select(-1, bins.order)


def _bands(power: Tensor, in_band: list[Tensor], bins: _Bins) -> dict[str, Tensor]:
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


def _peak(power: Tensor, bins: _Bins, pixels: int) -> dict[str, Tensor]:
    """Compute frequency and amplitude of the strongest bin; tied bins have equal weights."""
    top = power.amax(-1)
    tied = (power >= (1 - _PEAK_TOLERANCE) * top[:, None]) * bins.weight
    count = tied.sum(-1)
    return {
        "dominant_freq_x": (tied * bins.fx).sum(-1) / count,
        "dominant_freq_y": (tied * bins.fy).sum(-1) / count,
        "dominant_freq_magnitude": 2 * (top / pixels).sqrt(),
    }


def _shape(weighted: Tensor, bins: _Bins) -> dict[str, Tensor]:
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


def _flatness(power: Tensor, total: Tensor, bins: _Bins) -> Tensor:
    """Compute the ratio of geometric and arithmetic mean of S, floored (Gray & Markel 1974)."""
    count = sum(bins.counts)
    relative = power / (total / count).float()[:, None]
    logarithm = relative.add_(_FLATNESS_FLOOR).log_().mul_(bins.weight)
    return ((logarithm.sum(-1) / count).exp() / (1 + _FLATNESS_FLOOR)).clamp(max=1.0)


def _rolloff(weighted: Tensor, total: Tensor, bins: _Bins) -> Tensor:
    """Find the lowest frequency below which 85 % of the power lies (Tzanetakis & Cook 2002)."""
    # Integer fractions in units of 2⁻⁵² have the precision of float64 and exact sums. CUDA has a
    # deterministic cumsum for integers only.
    fraction = weighted * (2.0**52 / total)[:, None]
    accumulated = fraction.long().cumsum(-1)
    threshold = (_ROLLOFF_FRACTION * accumulated[:, -1:].double()).ceil().long()
    # The clamp keeps the index of a row of NaN in range.
    reached = torch.searchsorted(accumulated, threshold).clamp(max=weighted.shape[-1] - 1)
    return bins.f[reached[:, 0]]
