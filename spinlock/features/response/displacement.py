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

from spinlock.features.response.spectral_decay import mode_weights, spectral_decay
from spinlock.features.response.step_spectra import StepSpectra, step_spectra

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
    """Modes of the half plane of a grid; S candidates for the displacement along an axis.

    Attributes:
        ky: Powers 0, 1, 2 of the wavenumbers of the rows, float64 [3, H].
        kx: Powers 0, 1, 2 of the wavenumbers of the columns, float64 [W // 2 + 1, 3].
        weight: Number of modes of the full plane that each stands for; 0 for the mean and for
            Nyquist frequencies, whose phase has no sign, float64 [H, W // 2 + 1].
        count: Sum of the weights.
        rows: Values of exp(i ky vy) for the candidates, complex128 [S, H].
        columns: Values of exp(i kx vx) for the candidates, complex128 [W // 2 + 1, S].
        candidates: Displacements (vx, vy), float64 [S², 2].
        penalty: Values that the search subtracts from the correlation, float64 [S²].
    """

    ky: Tensor
    kx: Tensor
    weight: Tensor
    count: float
    rows: Tensor
    columns: Tensor
    candidates: Tensor
    penalty: Tensor


@lru_cache(maxsize=16)
def _modes(height: int, width: int, device: torch.device) -> _Modes:
    """Return the modes of a grid on a device, computed in float64."""
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device="cpu")
    fx = torch.fft.rfftfreq(width, dtype=torch.float64, device="cpu")
    count = round(MAX_DISPLACEMENT / _SPACING)
    shifts = torch.arange(-count, count + 1, dtype=torch.float64, device="cpu") * _SPACING
    ky, kx = 2 * math.pi * fy, 2 * math.pi * fx
    weight = mode_weights(height, width)
    candidates = torch.cartesian_prod(shifts, shifts).flip(-1)
    return _Modes(
        ky=torch.stack((torch.ones_like(ky), ky, ky.square())).to(device),
        kx=torch.stack((torch.ones_like(kx), kx, kx.square()), dim=1).to(device),
        weight=weight.to(device),
        count=float(weight.sum()),
        rows=_waves(shifts[:, None] * ky).to(device),
        columns=_waves(kx[:, None] * shifts).to(device),
        candidates=candidates.to(device),
        penalty=(_PENALTY * candidates.square().sum(-1)).to(device),
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
    return displacement_of_spectra(step_spectra(u.float(), w.float()))


def displacement_of_spectra(spectra: StepSpectra) -> Tensor:
    """Measure displacement and diffusion from the spectra of steps.

    Displacements of up to `MAX_DISPLACEMENT` pixels along each axis are found. Where several fit
    equally well, as for a plane wave, the result is the smallest; it is 0 where nothing fits.

    Args:
        spectra: Transforms and moments of B steps. The scale of the fields does not matter.

    Returns:
        Displacement along the last axis and along the one before it in pixels, and diffusion in
        pixels², float32 [B, 3].

    Example:
        >>> import torch
        >>> from spinlock.features.response.displacement import displacement_of_spectra
        >>> from spinlock.features.response.step_spectra import step_spectra
        >>> u = torch.randn(5, 3, 32, 32)
        >>> displacement_of_spectra(step_spectra(u, u)).shape
        torch.Size([5, 3])
    """
    modes = _modes(*spectra.grid, spectra.u_spectrum.device)
    u_power, w_power, cross = spectra.u_spectrum, spectra.w_spectrum, spectra.cross_spectrum
    # Sums of one field would be single numbers, which torch adds in another order than several.
    sums = torch.stack((u_power, w_power, u_power.sqrt())).mul_(modes.weight).sum((-2, -1))
    # Each field has the power 1 after division by these amplitudes.
    u_scale, w_scale = sums[:2, :, None, None].clamp(min=_TINY).rsqrt()
    u_power, w_power = u_power * u_scale.square(), w_power * w_scale.square()
    cross = cross * (u_scale * w_scale)
    # Division by |W| gives each mode of w unit power; |U| remains as its weight.
    whitening = (w_power + _ROUNDING / modes.count).rsqrt_().mul_(modes.weight)
    weighted = cross * whitening
    largest = sums[2] * u_scale[:, 0, 0]
    shift = _refined(weighted, _nearest(weighted, largest, modes), modes)
    rows, columns = _phases(shift, modes)
    aligned = (cross * rows.mT * columns.mT).real
    diffusion = spectral_decay(aligned, u_power, w_power, spectra.grid)
    return torch.cat((shift, diffusion[:, None]), dim=-1).float()


def _nearest(weighted: Tensor, largest: Tensor, modes: _Modes) -> Tensor:
    """Find the candidate displacement with the largest correlation.

    Args:
        weighted: Weighted cross-spectrum, complex128 [B, H, W // 2 + 1].
        largest: Correlation of fields that are equal up to a displacement, float64 [B].
        modes: Modes of the grid.

    Returns:
        Displacements (x, y), float64 [B, 2].
    """
    correlation = _summed(modes.rows, weighted, modes.columns).real
    correlation = correlation.flatten(1) / largest.clamp(min=_TINY)[:, None]
    return modes.candidates[(correlation - modes.penalty).argmax(-1)]


def _refined(weighted: Tensor, shift: Tensor, modes: _Modes) -> Tensor:
    """Move displacements (x, y) to the maximum of the correlation by Newton's method."""
    for _ in range(_NEWTON_STEPS):
        rows, columns = _phases(shift, modes)
        # Sums of ky^a kx^b times the aligned spectrum; derivatives of exp(i k·v) multiply by i k.
        sums = _summed(rows * modes.ky, weighted, columns * modes.kx)
        slope = -torch.stack((sums[:, 0, 1], sums[:, 1, 0]), dim=-1).imag
        curvature = torch.stack((sums[:, 0, 2], sums[:, 2, 0]), dim=-1).real
        trace = curvature.abs().sum(-1, keepdim=True).clamp(min=_TINY)
        curvature = curvature.clamp(min=0) + _RIDGE * trace
        # Without a maximum nearby the mixed derivative is reduced until there is one.
        product = curvature.prod(-1, keepdim=True)
        limit = product.sqrt() * (1 - _RIDGE)
        mixed = sums[:, 1, 1:2].real.clamp(-limit, limit)
        determinant = (product - mixed.square()).clamp(min=_TINY)
        step = (curvature.flip(-1) * slope - mixed * slope.flip(-1)) / determinant
        shift = shift + step.clamp(-_SPACING, _SPACING)
    return shift


def _summed(rows: Tensor, spectrum: Tensor, columns: Tensor) -> Tensor:
    """Sum a spectrum over modes, times factors of their rows and of their columns.

    The setting that allows TF32 in products of float32 matrices does not apply to double precision.

    Args:
        rows: Factors, complex128 [B, I, H], or the same for all spectra, [I, H].
        spectrum: Spectra, complex128 [B, H, W // 2 + 1].
        columns: Factors, complex128 [B, W // 2 + 1, J], or [W // 2 + 1, J].

    Returns:
        Sums, complex128 [B, I, J].
    """
    if spectrum.device.type != "cpu":
        return rows @ spectrum @ columns
    # On a CPU, torch calls another routine for one product than for many, which rounds differently.
    rows, columns = (x.expand(len(spectrum), *x.shape[-2:]) for x in (rows, columns))
    return torch.stack([a @ b @ c for a, b, c in zip(rows, spectrum, columns, strict=True)])


def _phases(shift: Tensor, modes: _Modes) -> tuple[Tensor, Tensor]:
    """Return exp(i ky y) and exp(i kx x), complex128 [B, 1, H] and [B, W // 2 + 1, 1]."""
    x, y = shift[:, :1, None], shift[:, 1:, None]
    return _waves(modes.ky[1] * y), _waves(modes.kx[:, 1:2] * x)
