"""Measures the transport between two fields: displacement and diffusion.

If w(x) = u(x − v), smoothed by a heat kernel, then W(k) = U(k) exp(−D |k|² − i k·v) with k in
radians per pixel. The phase of the cross-spectrum Σ_c U* W, a sum over channels c, therefore gives
the displacement v; `spectral_decay` gives the diffusion D.

Before u and w are correlated, each mode of w is scaled to the power that the mode has in u. A heat
kernel therefore does not change the correlation, and modes that u lacks have no weight. This is a
generalized cross-correlation [1]_. The displacement maximizes it: the maximum is found on a grid of
half pixels and refined by Newton's method. Because exp(i k·v) = exp(i kx vx) exp(i ky vy), each sum
over modes takes two small matrix products.

.. [1] C. Knapp, G. C. Carter, "The generalized correlation method for estimation of time delay",
   IEEE Trans. Acoust. Speech Signal Process. 24, 1976.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.features.response.matrix_products import batched_product
from spinlock.features.response.spectral_decay import mode_weights, spectral_decay

#: Largest displacement along an axis that is searched, in pixels.
MAX_DISPLACEMENT = 8
_SPACING = 0.5
# The search subtracts |v|² times this, so it finds the smallest of equally good displacements.
_PENALTY = 1e-4
_NEWTON_STEPS = 3
# Added to the diagonal of the Hessian, relative to its trace. Where u varies along one direction
# only, it keeps the displacement along the other one unchanged.
_RIDGE = 1e-3
# A mode of w whose power is far below this fraction of the mean over modes is rounding error.
_ROUNDING = 1e-12
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class _Modes:
    """Modes of the half plane of a grid.

    Attributes:
        ky: Powers 0, 1, 2 of the wavenumbers of the rows, float64 [3, H].
        kx: Powers 0, 1, 2 of the wavenumbers of the columns, float64 [W // 2 + 1, 3].
        weight: Number of modes of the full plane that each stands for; 0 for the mean and for
            Nyquist frequencies, whose phase has no sign, float32 [H, W // 2 + 1].
        shifts: Candidate displacements along one axis, float64 [S].
        rows: Values of exp(i ky vy) for the candidates, complex128 [S, H].
        columns: Values of exp(i kx vx) for the candidates, complex128 [W // 2 + 1, S].
    """

    ky: Tensor
    kx: Tensor
    weight: Tensor
    shifts: Tensor
    rows: Tensor
    columns: Tensor


@lru_cache(maxsize=16)
def _modes(height: int, width: int, device: torch.device) -> _Modes:
    """Return the modes of a grid on a device, computed in float64."""
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")
    fx = torch.fft.rfftfreq(width, dtype=torch.float64, device="cpu")
    count = round(MAX_DISPLACEMENT / _SPACING)
    shifts = torch.arange(-count, count + 1, dtype=torch.float64, device="cpu") * _SPACING
    ky, kx = 2 * math.pi * fy, 2 * math.pi * fx
    return _Modes(
        ky=torch.stack((torch.ones_like(ky), ky, ky.square())).to(device),
        kx=torch.stack((torch.ones_like(kx), kx, kx.square()), dim=1).to(device),
        weight=mode_weights(height, width).to(device, torch.float32),
        shifts=shifts.to(device),
        rows=_waves(shifts[:, None] * ky).to(device),
        columns=_waves(kx[:, None] * shifts).to(device),
    )


def _waves(phase: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(phase), phase)


def displacement(u: Tensor, w: Tensor) -> Tensor:
    """Measure displacement and diffusion from fields u to fields w.

    Args:
        u: Fields before the step, floating point [B, C, H, W], on a periodic grid.
        w: Fields after the step, with the same shape.

    Returns:
        Displacement along the last axis and along the one before it in pixels, and diffusion in
        pixels², float32 [B, 3]. See `displacement_of_spectra`.

    Example:
        >>> import torch
        >>> from spinlock.features.response.displacement import displacement
        >>> u = torch.randn(1, 3, 32, 32)
        >>> x, y, diffusion = displacement(u, u.roll((2, -1), dims=(-1, -2)))[0]
        >>> round(float(x), 3), round(float(y), 3), abs(float(diffusion)) < 1e-3
        (2.0, -1.0, True)
    """
    size = (u.shape[-2], u.shape[-1])
    u, w = (torch.fft.rfft2(x - x.mean((-2, -1), keepdim=True)) for x in (u, w))
    return displacement_of_spectra(u, w, size)


def displacement_of_spectra(u: Tensor, w: Tensor, size: tuple[int, int]) -> Tensor:
    """Measure displacement and diffusion from the spectra of two fields.

    Displacements of up to `MAX_DISPLACEMENT` pixels along each axis are found. Where several fit
    equally well, as for a plane wave, the result is the smallest; it is 0 where nothing fits.

    Args:
        u: Transforms `torch.fft.rfft2` of the fields before the step, complex
            [B, C, H, W // 2 + 1]. The scale and the mean of the fields do not matter.
        w: Transforms of the fields after the step, with the same shape.
        size: Height H and width W of the grid.

    Returns:
        Displacement along the last axis and along the one before it in pixels, and diffusion in
        pixels², float32 [B, 3].

    Example:
        >>> import torch
        >>> from spinlock.features.response.displacement import displacement_of_spectra
        >>> spectra = torch.fft.rfft2(torch.randn(5, 3, 32, 32))
        >>> displacement_of_spectra(spectra, spectra, (32, 32)).shape
        torch.Size([5, 3])
    """
    modes = _modes(*size, u.device)
    u, w = u.to(torch.complex64), w.to(torch.complex64)
    cross = torch.view_as_real((u.conj() * w).sum(1))
    u_power, w_power = _power(u), _power(w)
    # Sums of one field would be single numbers, which torch adds in another order than several.
    sums = torch.stack((u_power, w_power, u_power.sqrt())).mul_(modes.weight).sum((-2, -1))
    u_scale, w_scale = sums[:2, :, None, None].clamp(min=_TINY).rsqrt()
    # Division by |W| gives each mode of w unit power; |U| remains as its weight.
    rounding = _ROUNDING / (modes.weight.sum() * w_scale.square())
    balance = modes.weight * (w_power + rounding).clamp(min=_TINY).rsqrt() * u_scale
    weighted = torch.view_as_complex(cross * balance[..., None])
    weighted = weighted.to(torch.complex128)
    largest = sums[2] * u_scale[:, 0, 0]
    x, y = _refined(weighted, *_nearest(weighted, largest, modes), modes)
    aligned = _aligned(torch.view_as_complex(cross), x, y, modes) * (u_scale * w_scale)
    u_power, w_power = u_power * u_scale.square(), w_power * w_scale.square()
    diffusion = spectral_decay(aligned, u_power, w_power, size)
    return torch.stack((x.float(), y.float(), diffusion), dim=-1)


def _power(transforms: Tensor) -> Tensor:
    """Sum |·|² over channels, [B, H, W // 2 + 1]."""
    squares = torch.view_as_real(transforms).square().sum(1)
    return squares[..., 0] + squares[..., 1]


def _nearest(weighted: Tensor, largest: Tensor, modes: _Modes) -> tuple[Tensor, Tensor]:
    """Find the candidate displacement with the largest correlation.

    Args:
        weighted: Weighted cross-spectrum, complex128 [B, H, W // 2 + 1].
        largest: Correlation of fields that are equal up to a displacement, float32 [B].
        modes: Modes of the grid.

    Returns:
        Displacements x and y, float64 [B] each.
    """
    correlation = batched_product(modes.rows, batched_product(weighted, modes.columns)).real
    correlation = correlation / largest.clamp(min=_TINY)[:, None, None]
    distance = modes.shifts.square()
    best = (correlation - _PENALTY * (distance[:, None] + distance)).flatten(1).argmax(-1)
    count = len(modes.shifts)
    return modes.shifts[best % count], modes.shifts[best // count]


def _refined(weighted: Tensor, x: Tensor, y: Tensor, modes: _Modes) -> tuple[Tensor, Tensor]:
    """Move displacements to the maximum of the correlation by Newton's method."""
    for _ in range(_NEWTON_STEPS):
        rows, columns = _phases(x, y, modes)
        # Sums of ky^a kx^b times the aligned spectrum; derivatives of exp(i k·v) multiply by i k.
        sums = batched_product(batched_product(rows * modes.ky, weighted), columns * modes.kx)
        slope_x, slope_y = -sums[:, 0, 1].imag, -sums[:, 1, 0].imag
        xx, yy, xy = sums[:, 0, 2].real, sums[:, 2, 0].real, sums[:, 1, 1].real
        trace = (xx.abs() + yy.abs()).clamp(min=_TINY)
        xx, yy = xx.clamp(min=0) + _RIDGE * trace, yy.clamp(min=0) + _RIDGE * trace
        # Without a maximum nearby the mixed derivative is reduced until there is one.
        limit = (xx * yy).sqrt() * (1 - _RIDGE)
        xy = torch.minimum(torch.maximum(xy, -limit), limit)
        determinant = xx * yy - xy.square()
        step_x = (yy * slope_x - xy * slope_y) / determinant.clamp(min=_TINY)
        step_y = (xx * slope_y - xy * slope_x) / determinant.clamp(min=_TINY)
        x = x + step_x.clamp(-_SPACING, _SPACING)
        y = y + step_y.clamp(-_SPACING, _SPACING)
    return x, y


def _aligned(spectrum: Tensor, x: Tensor, y: Tensor, modes: _Modes) -> Tensor:
    """Return the real part of a spectrum times exp(i k·v), float32 [B, H, W // 2 + 1]."""
    rows, columns = (factor.to(spectrum.dtype) for factor in _phases(x, y, modes))
    return (spectrum * rows.mT * columns.mT).real


def _phases(x: Tensor, y: Tensor, modes: _Modes) -> tuple[Tensor, Tensor]:
    """Return exp(i ky y) and exp(i kx x), complex128 [B, 1, H] and [B, W // 2 + 1, 1]."""
    return _waves(modes.ky[1] * y[:, None, None]), _waves(modes.kx[:, 1:2] * x[:, None, None])
