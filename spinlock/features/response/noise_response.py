"""Computes what the spread of realizations says about the forcing and about divergence.

The spread of M realizations about their mean estimates the power of the noise without bias: sums of
squares are divided by M − 1 (Bessel's correction). Everything is NaN at M = 1.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.features.fourier_bins import fourier_bins
from spinlock.features.response.linear_response import log_ratio, relative_floor
from spinlock.features.response.response_names import NOISE_NAMES
from spinlock.features.response.step_spectra import ABSOLUTE_FLOOR

# Octaves 0 and 1, f < 1/16.
_LOW_BANDS = 2


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and spread of realizations.

    Attributes:
        mean: Mean of the realizations, float32 [B, C, H, W].
        residual: Deviations r' from the mean, without their channel means, float32
            [B, M, C, H, W].
        squares: Squares of r', of the same shape.
        total: Power V_tot of the deviations, unbiased, float64 [B]; 0 at M = 1.
        power: Power V of the deviations without their channel means, unbiased, float64 [B].
    """

    mean: Tensor
    residual: Tensor
    squares: Tensor
    total: Tensor
    power: Tensor


def spread(fields: Tensor) -> Spread:
    """Compute mean and spread of realizations [B, M, C, H, W]."""
    # Differences from the first realization are exact where realizations are close, and zero where
    # they are equal.
    deviation = fields - fields[:, :1]
    center = deviation.mean(1, keepdim=True)
    deviation = deviation.sub_(center)
    means = deviation.mean((-2, -1))
    residual = deviation.sub_(means[..., None, None])
    degrees = max(fields.shape[1] - 1, 1)
    squares = residual.square()
    power = squares.mean((-2, -1)).double().mean(-1).sum(-1) / degrees
    total = power + means.double().square().mean(-1).sum(-1) / degrees
    return Spread(fields[:, 0] + center[:, 0], residual, squares, total, power)


def noise_columns(realizations: Spread, energy: Tensor) -> Tensor:
    """Compute the noise group.

    Args:
        realizations: Spread of u_1 over realizations.
        energy: Energy ⟨w²⟩ of the mean of the realizations, float64 [B].

    Returns:
        Columns in the order of `NOISE_NAMES`, float64 [B, 6].
    """
    residual, total = realizations.residual, realizations.total
    if residual.shape[1] == 1:
        return torch.full_like(total, torch.nan)[:, None].repeat(1, len(NOISE_NAMES))
    floor = relative_floor(total + energy)
    count = residual.shape[1]
    mean_square = realizations.power * (count - 1) / count
    silent = mean_square <= ABSOLUTE_FLOOR
    # Fourth powers of unit-variance noise neither overflow nor underflow.
    scale = torch.where(silent, 0.0, mean_square.reciprocal()).float()
    squares = realizations.squares * scale[:, None, None, None, None]
    kurtosis = squares.square_().mean((-2, -1)).double().mean((1, 2)) - 3
    weights = _noise_weights(*residual.shape[-2:], residual.device)
    parts = torch.view_as_real(torch.fft.rfft2(residual)).square_().sum((1, 2)).double()
    squared = (parts[..., 0] + parts[..., 1]).flatten(1)
    power, low, moment = (squared[:, None] * weights).sum(-1).unbind(-1)
    power = torch.where(silent, 1.0, power)
    values = {
        "noise_abs": 0.5 * total.clamp(min=ABSOLUTE_FLOOR).log10(),
        "noise_rel": log_ratio(torch.maximum(total, floor), torch.maximum(energy, floor)),
        "noise_low": low / power,
        "noise_centroid": moment / power,
        "noise_uniform": torch.where(
            total <= ABSOLUTE_FLOOR, 0.0, (total - realizations.power) / total
        ),
        "noise_kurtosis": torch.where(silent, 0.0, kurtosis),
    }
    return torch.stack([values[name] for name in NOISE_NAMES], dim=-1)


def spread_and_energy(fields: Tensor) -> Tensor:
    """Compute V_tot and the mean energy ⟨u²⟩ of realizations [B, M, C, H, W], float64 [B, 2]."""
    energy = fields.square().mean((-2, -1)).double().mean((1, 2))
    return torch.stack((spread(fields).total, energy), dim=-1)


def divergence_columns(totals: Tensor, energies: Tensor, realizations: int) -> Tensor:
    """Compute the divergence columns.

    Args:
        totals: Power V_tot of the spread at each timestep, float64 [N, T], T >= 2.
        energies: Energy ⟨u²⟩ of the last timestep, averaged over realizations, float64 [N].
        realizations: Number of realizations M.

    Returns:
        Columns in the order of `divergence_names`, float64 [N, T].
    """
    if realizations == 1:
        return torch.full_like(totals, torch.nan)
    logarithm = 0.5 * totals.clamp(min=ABSOLUTE_FLOOR).log10()
    last = totals[:, -1]
    floor = relative_floor(last + energies)
    relative = log_ratio(torch.maximum(last, floor), torch.maximum(energies, floor))
    return torch.cat((logarithm.diff(dim=-1), relative[:, None]), dim=-1)


@lru_cache(maxsize=16)
def _noise_weights(height: int, width: int, device: torch.device) -> Tensor:
    """Return weights of squared transforms: all bins, low bins, and bins times their frequency.

    Returns:
        Weights of half-plane bins, float64 [3, H · (W // 2 + 1)].
    """
    bins = fourier_bins(height, width, device)
    weight = bins.weight.double()
    low = weight.clone()
    low[bins.bands[_LOW_BANDS - 1][1] :] = 0.0
    weights = torch.zeros(3, height * (width // 2 + 1), dtype=torch.float64, device=device)
    weights[:, bins.order] = torch.stack((weight, low, weight * bins.f.double()))
    return weights
