"""Estimates the mean Jacobian of a map as a convolution, and describes its kernel.

The Jacobian at a state is split into a convolution with a kernel K [C', C, x] that is the same at
all positions and states, and a rest that depends on the state. With directions v_p of a flat
spectrum (`reference_states`), K(k) is estimated by the mean over p of (J v_p)(k) conj(v_p(k)): the
cross-spectral estimate of a transfer function [1]_. The rest appears as noise that is spread evenly
over positions. Its power is known from the residuals, as in an analysis of variance, and is removed
from |K|^2. Positions at which |K|^2 does not exceed what noise alone could reach anywhere on the
grid [2]_ are set to 0.

.. [1] J. S. Bendat, A. G. Piersol, "Random data", 4th ed., sections 6.1 and 9.1.
.. [2] B. Laurent, P. Massart, "Adaptive estimation of a quadratic functional by model selection",
   Annals of Statistics 28 (2000), lemma 1: tail of the chi-squared distribution.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.simulation.reference_states import ReferenceStates

# Jacobians of less power than this count as 0.
_POWER_FLOOR = 1e-20
# Smallest |K(k)|^2 relative to the power of the Jacobian.
_RELATIVE_FLOOR = 1e-6
# Wavenumbers in radians per pixel up to which the logarithm of |K(k)|^2 is fitted.
_FIT_RADIUS = math.pi / 2
# Power, relative to the largest, at which a wavenumber has a quarter of its weight in the fit.
_HALF_POWER = 0.1


@dataclass(frozen=True)
class _Grid:
    """Tables of a periodic grid.

    Attributes:
        offsets: Displacements in pixels along one axis, in -side/2 .. side/2, float64 [side].
        squares: Squared wavenumbers |k|^2 in radians^2 per pixel^2, float64 [side, side].
        fitted: 1 where |k| <= `_FIT_RADIUS` and 0 elsewhere, float64 [side, side].
    """

    offsets: Tensor
    squares: Tensor
    fitted: Tensor


@lru_cache(maxsize=8)
def _grid(side: int, device: torch.device) -> _Grid:
    offsets = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64, device="cpu")
    angle = 2 * math.pi / side * offsets
    squares = angle.square()[:, None] + angle.square()
    fitted = (squares <= _FIT_RADIUS**2 * (1 + 1e-9)).double()
    return _Grid(*(table.to(device) for table in (offsets, squares, fitted)))


def kernel_columns(jacobian: Tensor, reference: ReferenceStates) -> dict[str, Tensor]:
    """Compute the columns of the dynamics that describe the mean Jacobian of a map.

    Args:
        jacobian: Derivatives J v_p of the map in the directions, [P, C, side, side].
        reference: Directions v_p.

    Returns:
        Scalars, float64: ``heterogeneity``, ``gain_rms``, ``diffusion``, ``growth``, ``shift_x``,
        ``shift_y``, ``spread`` and ``mixing``; see `spinlock.simulation.dynamics_columns`.

    Example:
        >>> import torch
        >>> from spinlock.simulation.reference_states import reference_states
        >>> reference = reference_states(42, 3, 16, torch.device("cpu"))
        >>> columns = kernel_columns(reference.directions.roll(2, dims=-1), reference)
        >>> round(float(columns["shift_x"]), 4)
        2.0
    """
    response = jacobian.double()
    count, channels, side, _ = response.shape
    pixels, pairs = side**2, channels**2
    total = response.square().mean(dim=(0, 2, 3)).sum()
    spectrum = torch.fft.rfft2(response, norm="ortho")
    transfer = torch.einsum("pokl,pckl->ockl", spectrum, reference.spectra) / count
    kernel = torch.fft.irfft2(transfer, s=(side, side))
    power = kernel.square().sum(dim=(0, 1))
    estimated = power.sum()
    # The estimate contains the share C / P of the rest's power. If the signs do not separate the
    # channels, it also contains the share (C - 1) / P of the convolution's power.
    share = channels / count
    removed = 1 - share if reference.separable else 1 - 1 / count
    convolution = ((estimated - share * total) / removed).clamp(min=0).minimum(estimated)
    noise = (estimated - convolution) / pixels
    kept = _significant(power, noise, pairs)
    kernel = kernel * kept
    power = (power - noise) * kept
    own = kernel.diagonal().square().sum() - noise * kept.sum() / channels
    grid = _grid(side, response.device)
    transfer = torch.fft.fft2(kernel)
    safe = total.clamp(min=_POWER_FLOOR)
    spectral = transfer.abs().square().sum(dim=(0, 1)) - noise * kept.sum()
    floored = spectral.maximum(_RELATIVE_FLOOR * safe)
    growth, diffusion = _gaussian_fit(floored / channels, grid)
    shift_x, shift_y = _shift(transfer.transpose(-2, -1)), _shift(transfer)
    spread = _spread(power, shift_x, shift_y, grid)
    return {
        "heterogeneity": ((total - convolution) / safe).clamp(0, 1),
        "gain_rms": 0.5 * (total / channels).clamp(min=_POWER_FLOOR).log10(),
        "diffusion": diffusion,
        "growth": growth,
        "shift_x": shift_x,
        "shift_y": shift_y,
        "spread": spread,
        "mixing": (1 - own / power.sum().clamp(min=_POWER_FLOOR)).clamp(0, 1)
        * (power.sum() > _POWER_FLOOR),
    }


def _significant(power: Tensor, noise: Tensor, pairs: int) -> Tensor:
    """Return 1 at positions whose power is more than noise, and 0 elsewhere.

    Noise alone exceeds the threshold at less than one position of the grid on average.

    Args:
        power: Sum of |K|^2 over pairs of channels, [side, side].
        noise: Expected power of the noise at a position.
        pairs: Number of pairs of channels.
    """
    tail = math.log(power.numel())
    threshold = noise * (1 + 2 * math.sqrt(tail / pairs) + 2 * tail / pairs)
    return (power > threshold).double()


def _gaussian_fit(power: Tensor, grid: _Grid) -> tuple[Tensor, Tensor]:
    """Fit ln|K(k)|^2 = 2 g - 2 D |k|^2 by weighted least squares, and return g and D.

    The variance of the logarithm grows as the power falls, so damped wavenumbers have little
    weight.
    """
    power = power.clamp(min=_POWER_FLOOR)
    relative = power / (power * grid.fitted).amax()
    weight = grid.fitted * (relative / (relative + _HALF_POWER)).square()
    weight = weight / weight.sum()
    logarithm, squares = power.log(), grid.squares
    mean, center = (weight * logarithm).sum(), (weight * squares).sum()
    deviation = weight * (squares - center)
    slope = (deviation * logarithm).sum() / (deviation * squares).sum().clamp(min=1e-12)
    return (mean - slope * center) / 2, -slope / 2


def _shift(transfer: Tensor) -> Tensor:
    """Compute the centroid of |K|^2 along y from the change of phase between neighboring modes.

    The phase of sum K(k) conj(K(k + 1)) is the circular mean of the displacement. Leaving out the
    Nyquist mode, where the sign of the phase is lost, makes it exact for shifts by fractions of a
    pixel.
    """
    side = transfer.shape[-2]
    ordered = transfer.roll(side // 2, dims=-2)[..., (side + 1) % 2 :, :]
    mean = (ordered[..., :-1, :] * ordered[..., 1:, :].conj()).sum()
    return side / (2 * math.pi) * torch.atan2(mean.imag, mean.real)


def _spread(power: Tensor, shift_x: Tensor, shift_y: Tensor, grid: _Grid) -> Tensor:
    """Compute the radius of |K|^2 about its centroid; 0 if K is 0."""
    side = len(grid.offsets)
    radius = torch.zeros_like(shift_x)
    for marginal, shift in ((power.sum(0), shift_x), (power.sum(1), shift_y)):
        distance = (grid.offsets - shift + side / 2).remainder(side) - side / 2
        radius = radius + (marginal * distance.square()).sum()
    return (radius / power.sum().clamp(min=_POWER_FLOOR)).sqrt()
