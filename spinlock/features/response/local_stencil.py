"""Computes the power of the innovation that no linear 5×5 stencil of the input explains.

For every output channel o, ridge regression (Hoerl & Kennard 1970) of the innovation e_o on the
regressors g = u'_c(y + dy, x + dx), |dy|, |dx| ≤ 2, of all channels c (above 8 channels: of channel
o only) solves (A + λI) h = b, where A = ⟨g gᵀ⟩, b = ⟨g e_o⟩ and λ = 10⁻³ times the mean diagonal of
A. Means of products at all displacements are the inverse Fourier transform of a cross spectrum
(Wiener-Khinchin theorem); only the 9×9 displacements that A needs are evaluated.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.features.response.linear_response import LinearResponse, denoised, log_ratio
from spinlock.features.response.step_spectra import ABSOLUTE_FLOOR, StepSpectra

# Largest number of channels for which the stencil mixes channels.
MIXING_CHANNELS = 8
_REACH = 2
_RIDGE = 1e-3
_SIDE = 2 * _REACH + 1
_LAGS = 4 * _REACH + 1


def stencil_column(spectra: StepSpectra, linear: LinearResponse) -> dict[str, Tensor]:
    """Compute the share of w that no stencil explains; name of the column -> float64 [B]."""
    unexplained = linear.innovation - explained_power(spectra, linear.beta)
    return {
        "nonlinear_share": log_ratio(
            denoised(unexplained, linear.noise, linear.floor),
            torch.maximum(spectra.w_power, linear.floor),
        )
    }


def explained_power(spectra: StepSpectra, beta: Tensor) -> Tensor:
    """Compute the power E5 by which the fit of the stencil reduces that of the innovation.

    Args:
        spectra: Transforms and moments of B steps.
        beta: Coefficient β of the projection, float64 [B].

    Returns:
        Power, a mean over output channels, float64 [B].
    """
    channels = spectra.channels
    own, other = spectra.transforms.chunk(2, dim=1)
    if channels <= MIXING_CHANNELS:
        size = (len(own), channels, 2 * channels, _LAGS, _LAGS)
        products = torch.empty(size, dtype=torch.float64, device=own.device)
        # One channel after the other, because all pairs at once need much memory.
        for channel in range(channels):
            cross = own[:, channel, None].conj() * spectra.transforms[:, channel:]
            at_lags = _at_lags(cross, spectra.grid)
            products[:, channel, channel:] = at_lags
            # Exchanging the two fields changes the sign of the displacement.
            products[:, channel:, channel] = at_lags[:, : channels - channel].flip((-2, -1))
        of_u, of_w = products.chunk(2, dim=2)
        matrix = _matrix(of_u)[:, None]
    else:
        of_u, of_w = (_at_lags(own.conj() * x, spectra.grid) for x in (own, other))
        matrix = _matrix(of_u[:, :, None, None])
    of_e = of_w - beta.reshape(-1, *(1,) * (of_w.ndim - 1)) * of_u
    # ⟨u(x + d) e(x)⟩ is the product at the displacement −d.
    inner = slice(_REACH, _LAGS - _REACH)
    right = of_e[..., inner, inner].flip((-2, -1)).flatten(-2)
    if channels <= MIXING_CHANNELS:
        right = right.permute(0, 1, 3, 2).flatten(1, 2)[:, None]
    else:
        right = right[..., None]
    return _fitted(matrix, right) / channels


def _fitted(matrix: Tensor, right: Tensor) -> Tensor:
    """Compute Σ (2 b·h − h·Ah) over regressions, float64 [B].

    Args:
        matrix: Matrices A, float64 [B, K, G, G]; λ is added to their diagonals.
        right: Right-hand sides b, float64 [B, K, G, R].
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    ridge = (_RIDGE * diagonal.mean(-1, keepdim=True)).clamp(min=ABSOLUTE_FLOOR)
    diagonal += ridge
    # Unlike cholesky, cholesky_ex does not make the host wait for a device.
    factor = torch.linalg.cholesky_ex(matrix).L
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    solution = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    # Ah = b − λh, so that 2 b·h − h·Ah = b·h + λ|h|², and b·h = |half|².
    explained: Tensor = half.square() + ridge[..., None] * solution.square()
    return explained.flatten(1).sum(-1)


def _at_lags(cross_spectra: Tensor, grid: tuple[int, int]) -> Tensor:
    """Compute means of products at the 9×9 smallest displacements.

    Args:
        cross_spectra: Products U*V of transforms, complex128 [..., H, W // 2 + 1].
        grid: Height H and width W of the grid.

    Returns:
        Means ⟨u(x) v(x + d)⟩, float64 [..., 9, 9], for d = (dy, dx) from −4 to 4.
    """
    along_y, real_along_x, imaginary_along_x = _phases(*grid, cross_spectra.device)
    sums = along_y @ torch.view_as_real(cross_spectra).flatten(-2)
    even = sums[..., : 2 * _REACH + 1, :] @ real_along_x
    odd = sums[..., 2 * _REACH + 1 :, :] @ imaginary_along_x
    positive = even[..., 1:, :]
    return torch.cat(((positive + odd).flip(-2), even[..., :1, :], positive - odd), dim=-2)


@lru_cache(maxsize=16)
def _phases(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of the real inverse transform at displacements −4 … 4.

    Returns:
        Factors along y: cosines of the displacements 0 … 4 and sines of 1 … 4, divided by (HW)²,
        float64 [9, H]; and factors along x, which map real and imaginary parts of a row to the real
        part of 9 sums, and to the imaginary part, float64 [2 · (W // 2 + 1), 9] each.
    """
    lags = torch.arange(-2 * _REACH, 2 * _REACH + 1, dtype=torch.float64, device="cpu")
    kx = torch.arange(width // 2 + 1, dtype=torch.float64, device="cpu")
    weight = torch.where((kx == 0) | (2 * kx == width), 1.0, 2.0)[:, None]
    angle = 2 * math.pi / width * torch.outer(kx, lags)
    cos, sin = weight * angle.cos(), weight * angle.sin()
    real_along_x = torch.stack((cos, -sin), dim=1).flatten(0, 1)
    imaginary_along_x = torch.stack((sin, cos), dim=1).flatten(0, 1)
    ky = torch.arange(height, dtype=torch.float64, device="cpu")
    angle = 2 * math.pi / height * torch.outer(lags[2 * _REACH :], ky)
    along_y = torch.cat((angle.cos(), angle[1:].sin())) / (height * width) ** 2
    return along_y.to(device), real_along_x.to(device), imaginary_along_x.to(device)


@lru_cache(maxsize=4)
def _differences(device: torch.device) -> Tensor:
    """Return the position in a 9×9 table of the displacement between two points, int64 [25, 25]."""
    offset = torch.arange(_SIDE, device="cpu")
    y, x = (axis.flatten() for axis in torch.meshgrid(offset, offset, indexing="ij"))
    rows, columns = (axis - axis[:, None] + 2 * _REACH for axis in (y, x))
    return (rows * _LAGS + columns).to(device)


def _matrix(products: Tensor) -> Tensor:
    """Arrange means of products at displacements as the matrix ⟨g gᵀ⟩.

    Args:
        products: Means ⟨u_c(x) u_d(x + d)⟩, float64 [..., C, C, 9, 9].

    Returns:
        Matrix, float64 [..., 25C, 25C]; regressors are ordered by channel, dy, dx.
    """
    size = products.shape[-3] * _SIDE**2
    index = _differences(products.device)
    blocks = products.flatten(-2)[..., index]
    return blocks.movedim(-2, -3).reshape(*products.shape[:-4], size, size)
