"""Computes the 19 spatial features of a field.

Features are computed from z = (u − μ)/s and then rescaled, so squares and fourth powers neither
overflow nor underflow for amplitudes between 1e-9 and 1e4. Fields are periodic, the grid spacing is
one pixel, and x is the last axis.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spinlock.features.registry import FEATURES, names

_EXPONENTS = {feature.name: feature.exponent for feature in FEATURES}


@dataclass(frozen=True, eq=False)
class Standardized:
    """Fields scaled to zero mean and unit variance.

    Attributes:
        unit: Scaled fields z = (u − μ)/s, float32 [B, H, W]; meaningless where ``flat``.
        mean: Mean μ, float32 [B].
        std: Standard deviation s, float32 [B].
        minimum: Minimum of u, float32 [B].
        maximum: Maximum of u, float32 [B].
        flat: Whether the field is constant up to rounding, bool [B].
    """

    unit: Tensor
    mean: Tensor
    std: Tensor
    minimum: Tensor
    maximum: Tensor
    flat: Tensor


def standardize(fields: Tensor) -> Standardized:
    """Scale each of the fields [B, H, W] by its own mean and standard deviation."""
    fields = fields.float()
    minimum, maximum = fields.amin((-2, -1)), fields.amax((-2, -1))
    # Subtract the mean twice: where |μ| ≫ s, the rounding of the first mean is not small against s.
    first = fields.mean((-2, -1), keepdim=True)
    unit = fields - first
    second = unit.mean((-2, -1), keepdim=True)
    unit -= second
    std = unit.square().mean((-2, -1)).sqrt()
    flat = is_flat(minimum, maximum)
    unit /= torch.where(flat, 1.0, std)[:, None, None]
    return Standardized(unit, (first + second)[:, 0, 0], std, minimum, maximum, flat)


def is_flat(minimum: Tensor, maximum: Tensor) -> Tensor:
    """Return whether fields with these extremes are constant up to rounding."""
    low, high = minimum.double(), maximum.double()
    floor = (1e-6 * torch.maximum(low.abs(), high.abs())).clamp(min=1e-12)
    return high - low <= floor


def spatial_of(standardized: Standardized) -> Tensor:
    """Compute the 19 spatial features [B, 19] of standardized fields."""
    z = standardized.unit
    padded = functional.pad(z, (1, 1, 1, 1), mode="circular")
    one = torch.ones_like(standardized.std)
    of_unit = {
        "spatial_variance": one,
        "spatial_std": one,
        **_moments(z),
        **_order_statistics(z),
        **_gradient(padded),
        **_laplacian(z, padded),
    }
    values = {
        "spatial_mean": standardized.mean,
        "spatial_min": standardized.minimum,
        "spatial_max": standardized.maximum,
        "spatial_range": standardized.maximum - standardized.minimum,
        **rescaled(of_unit, standardized),
    }
    return torch.stack([values[name] for name in names("spatial")], dim=-1)


def rescaled(of_unit: dict[str, Tensor], standardized: Standardized) -> dict[str, Tensor]:
    """Convert features [B] of unit-variance fields to those of the fields; 0 where flat."""
    powers = (torch.ones_like(standardized.std), standardized.std, standardized.std.square())
    return {
        name: torch.where(standardized.flat, 0.0, value * powers[_EXPONENTS[name]])
        for name, value in of_unit.items()
    }


def _moments(z: Tensor) -> dict[str, Tensor]:
    """Compute biased skewness g₁ and excess kurtosis g₂ (Joanes & Gill 1998) of z [B, H, W]."""
    square = z.square()
    skewness = (square * z).mean((-2, -1))
    # ⟨z⁴⟩ ≥ ⟨z²⟩² = 1 except for rounding.
    kurtosis = square.square_().mean((-2, -1)).clamp(min=1.0) - 3.0
    return {"spatial_skewness": skewness, "spatial_kurtosis": kurtosis}


def _order_statistics(z: Tensor) -> dict[str, Tensor]:
    """Compute the interquartile range (Hyndman & Fan 1996, type 7) and the MAD of z.

    The k values nearest to the median are consecutive in the sorted sample, so the k-th smallest
    deviation is the minimum over windows of length k of the larger deviation at their two ends.
    """
    v = _ascending(z.flatten(1))
    n = v.shape[-1]
    iqr = _quartile(v, 3) - _quartile(v, 1)
    median = ((v[:, (n - 1) // 2] + v[:, n // 2]) / 2)[:, None]
    below = median - v[:, : n // 2 + 1]
    above = v.sub_(median)
    # The same two middle ranks, counted from 1, that gave the median of v.
    smallest = [
        torch.maximum(above[:, k - 1 :], below[:, : n - k + 1]).amin(-1)
        for k in ((n + 1) // 2, n // 2 + 1)
    ]
    return {"spatial_iqr": iqr, "spatial_mad": (smallest[0] + smallest[1]) / 2}


def _ascending(values: Tensor) -> Tensor:
    """Sort each row of values [B, n] with the fastest method of the device."""
    if values.device.type == "cpu":
        # numpy's vectorized sort takes a tenth of the time of torch's, which also sorts indices.
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return torch.sort(values, dim=-1).values


def _quartile(v: Tensor, quarter: int) -> Tensor:
    """Return the quantile at quarter/4 of sorted rows v [B, n], linearly interpolated."""
    index, remainder = divmod(quarter * (v.shape[-1] - 1), 4)
    return torch.lerp(v[:, index], v[:, index + 1], remainder / 4)


def _gradient(padded: Tensor) -> dict[str, Tensor]:
    """Compute the gradient features of z by periodic central differences.

    The anisotropy is the coherence of the structure tensor (Bigün & Granlund 1987).

    Args:
        padded: Fields z with one more pixel on each side, [B, H + 2, W + 2].
    """
    # gx and gy are twice the gradient; the results are halved. Operations are in place because new
    # memory costs more here than the arithmetic.
    gx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    gy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    jxy = (gx * gy).mean((-2, -1))
    x_mean, y_mean = gx.abs_().mean((-2, -1)), gy.abs_().mean((-2, -1))
    jxx, jyy = gx.square_().mean((-2, -1)), gy.square_().mean((-2, -1))
    magnitude = gx.add_(gy).sqrt_()
    mean, largest = magnitude.mean((-2, -1)), magnitude.amax((-2, -1))
    variance = magnitude.sub_(mean[:, None, None]).square_().mean((-2, -1))
    coherence = (torch.hypot(jxx - jyy, 2 * jxy) / (jxx + jyy)).clamp(max=1.0)
    return {
        "gradient_magnitude_mean": mean / 2,
        "gradient_magnitude_std": variance.sqrt() / 2,
        "gradient_magnitude_max": largest / 2,
        "gradient_x_mean": x_mean / 2,
        "gradient_y_mean": y_mean / 2,
        "gradient_anisotropy": torch.where(jxx + jyy <= 4e-12, 0.0, coherence),
    }


def _laplacian(z: Tensor, padded: Tensor) -> dict[str, Tensor]:
    """Compute the Laplacian features of z [B, H, W] by the five-point stencil."""
    laplacian = padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    laplacian += padded[:, :-2, 1:-1]
    laplacian += padded[:, 2:, 1:-1]
    laplacian.sub_(z, alpha=4)
    mean = laplacian.abs_().mean((-2, -1))
    energy = laplacian.square_().mean((-2, -1))
    return {"laplacian_mean": mean, "laplacian_std": energy.sqrt(), "laplacian_energy": energy}
