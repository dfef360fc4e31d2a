"""Estimates the mean Jacobian of a map as a convolution, and describes its kernel.

The Jacobian at a state is the sum of a convolution and a rest. The kernel K [C', C, x] of the
convolution is the same at all positions and states; the rest depends on the state. With directions
v_p of a flat spectrum (`reference_states`), the mean over p of (J v_p)(k) conj(v_p(k)) estimates
K(k): the cross-spectral estimate of a transfer function [1]_. The rest appears in the estimate as
noise that is spread evenly over positions. Its power follows from the residuals, as in an analysis
of variance.

Displacement, spread and mixing are moments of |K|^2, from which the expected noise is subtracted.
Positions are left out if noise alone could reach their |K|^2 somewhere on the grid [2]_. Diffusion
and growth are fitted to a gain that is linear in K, so noise does not bias it: the product of K(k)
with one matrix of channels, after the phase of the displacement is removed.

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
# Smallest squared gain relative to the power of the Jacobian.
_RELATIVE_FLOOR = 1e-6
# Squared gain, relative to the largest, at which a mode has a quarter of its weight in the fit.
_DAMPED_POWER = 1e-3


@dataclass(frozen=True)
class _Grid:
    """Tables of a periodic grid.

    Attributes:
        offsets: Displacements along one axis in pixels, in -side/2 .. side/2, float64 [side].
        wavenumbers: Wavenumbers along one axis in radians per pixel, float64 [side].
        squares: Squared wavenumbers |k|^2, float64 [side, side].
        fitted: 1 for modes of the fit, and 0 at the Nyquist frequency of an even grid, where the
            phase has no sign; float64 [side, side].
    """

    offsets: Tensor
    wavenumbers: Tensor
    squares: Tensor
    fitted: Tensor


@lru_cache(maxsize=8)
def _grid(side: int, device: torch.device) -> _Grid:
    # Made on the device, because a copy from the host would wait for it.
    offsets = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64, device=device)
    wavenumbers = 2 * math.pi / side * offsets
    squares = wavenumbers.square()[:, None] + wavenumbers.square()
    inner = (offsets.abs() < side / 2).double()
    return _Grid(offsets, wavenumbers, squares, inner[:, None] * inner)


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
    power = (power - noise) * kept
    between = power.sum() - (kernel.diagonal().square() * kept[..., None]).sum()
    between = between + noise * kept.sum() / channels
    grid = _grid(side, response.device)
    transfer = torch.fft.fft2(kernel * kept) * grid.fitted
    shift_x, shift_y = _shift(transfer.transpose(-2, -1)), _shift(transfer)
    squared_gain = _gain(torch.fft.fft2(kernel), shift_x, shift_y, grid).square()
    safe = total.clamp(min=_POWER_FLOOR)
    floored = squared_gain.maximum(_RELATIVE_FLOOR * safe / channels)
    growth, diffusion = _gaussian_fit(floored, grid)
    return {
        "heterogeneity": ((total - convolution) / safe).clamp(0, 1),
        "gain_rms": 0.5 * (total / channels).clamp(min=_POWER_FLOOR).log10(),
        "diffusion": diffusion,
        "growth": growth,
        "shift_x": shift_x,
        "shift_y": shift_y,
        "spread": _spread(power, shift_x, shift_y, grid),
        "mixing": (between / power.sum().clamp(min=_POWER_FLOOR)).clamp(0, 1),
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


def _gain(transfer: Tensor, shift_x: Tensor, shift_y: Tensor, grid: _Grid) -> Tensor:
    """Reduce K(k) to one real gain for each mode.

    The phase of the displacement is removed, and the channels are combined with the matrix M =
    mean_k K(k), the value of K at the displacement. If K(k) = s(k) Q with an orthogonal matrix Q
    and s >= 0, the gain is s(k).

    Args:
        transfer: K(k), complex128 [C', C, side, side].
        shift_x: Displacement along x.
        shift_y: Displacement along y.
        grid: Tables of the grid.

    Returns:
        Gain, float64 [side, side].
    """
    angle = grid.wavenumbers[:, None] * shift_y + grid.wavenumbers * shift_x
    aligned = (transfer * torch.polar(torch.ones_like(angle), angle)).real
    matrix = (aligned * grid.fitted).mean(dim=(-2, -1))
    scale = (matrix.square().sum() * len(matrix)).sqrt().clamp(min=_POWER_FLOOR)
    return torch.einsum("oc,ockl->kl", matrix / scale, aligned).clamp(min=0)


def _gaussian_fit(squared_gain: Tensor, grid: _Grid) -> tuple[Tensor, Tensor]:
    """Fit ln gain^2 = 2 g - 2 D |k|^2 by weighted least squares, and return g and D.

    Modes of large gain have the same weight. If the squared gain of a mode is a thousandth of the
    largest, it has a quarter of this weight.
    """
    relative = squared_gain / (squared_gain * grid.fitted).amax()
    weight = grid.fitted * (relative / (relative + _DAMPED_POWER)).square()
    weight = weight / weight.sum()
    logarithm, squares = squared_gain.log(), grid.squares
    mean, center = (weight * logarithm).sum(), (weight * squares).sum()
    deviation = weight * (squares - center)
    # If only one mode has weight, the slope is 0.
    slope = (deviation * logarithm).sum() / (deviation * squares).sum().clamp(min=1e-12)
    return (mean - slope * center) / 2, -slope / 2


def _shift(transfer: Tensor) -> Tensor:
    """Compute the displacement along y from the change of phase between neighboring modes.

    The phase of the sum of K(k) conj(K(k + 1)) over all modes is the circular mean of the position,
    weighted with |K|^2. The argument is 0 at the Nyquist frequency, where the phase of a shift by a
    fraction of a pixel has no sign; shifts by fractions of a pixel are then exact.
    """
    side = transfer.shape[-2]
    ordered = transfer.roll(side // 2, dims=-2)
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
