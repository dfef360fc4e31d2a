"""Transforms the two fields of a step and sums their power over octaves of frequency.

All second moments of a step come from the Fourier transforms of its fields by Parseval's theorem.
The transforms are computed in float32, their products and sums in float64: differences of nearly
equal powers, such as the power that remains after a fit, are then as accurate as the transforms.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.features.fourier_bins import fourier_bins

# Powers below 1e-10 of those of the step (-100 dB) are rounding errors of float32 fields.
RELATIVE_FLOOR = 1e-10
# Keeps logarithms and ratios of fields that are zero finite.
ABSOLUTE_FLOOR = 1e-30


@dataclass(frozen=True, eq=False)
class StepSpectra:
    """Transforms and second moments of steps from a field u to a field w.

    A prime marks a field minus its channel means. Sums run over channels, means over channels and
    pixels. Transforms and spectra are on the half plane and 0 in the DC bin.

    Attributes:
        transforms: Transforms U of u' and then W of w', complex128 [B, 2C, H, W // 2 + 1].
        u_means: Channel means of u, float64 [B, C].
        w_means: Channel means of w, float64 [B, C].
        u_spectrum: Sums of |U|², float64 [B, H, W // 2 + 1].
        w_spectrum: Sums of |W|², float64 [B, H, W // 2 + 1].
        cross_spectrum: Sums of U*W, complex128 [B, H, W // 2 + 1].
        u_bands: Sums of |U|² over each octave, float64 [B, 5].
        w_bands: Sums of |W|² over each octave, float64 [B, 5].
        cross_bands: Sums of Re U*W over each octave, float64 [B, 5].
        u_power: Power P_u = ⟨u'²⟩, float64 [B].
        w_power: Power P_w = ⟨w'²⟩, float64 [B].
        cross_power: Mean product ⟨u'w'⟩, float64 [B].
        empty_bands: Whether the grid has no bins in an octave, bool [5].
        grid: Height H and width W of the grid.
    """

    transforms: Tensor
    u_means: Tensor
    w_means: Tensor
    u_spectrum: Tensor
    w_spectrum: Tensor
    cross_spectrum: Tensor
    u_bands: Tensor
    w_bands: Tensor
    cross_bands: Tensor
    u_power: Tensor
    w_power: Tensor
    cross_power: Tensor
    empty_bands: Tensor
    grid: tuple[int, int]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.u_means.shape[1]


@lru_cache(maxsize=16)
def band_weights(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights that sum squared transforms over octaves.

    Args:
        height: Number of rows of the grid.
        width: Number of columns of the grid.
        device: Device of the weights.

    Returns:
        Weights, float64 [5, H · (W // 2 + 1)], and whether an octave has no bins, bool [5]. The
        weight of a half-plane bin in the row of its octave is the number of full-plane bins that it
        stands for.
    """
    bins = fourier_bins(height, width, device)
    weights = torch.zeros(
        len(bins.bands), height * (width // 2 + 1), dtype=torch.float64, device=device
    )
    for band, (first, last) in enumerate(bins.bands):
        weights[band, bins.order[first:last]] = bins.weight[first:last].double()
    empty = torch.tensor([count == 0 for count in bins.counts], device=device)
    return weights, empty


def step_spectra(u: Tensor, w: Tensor) -> StepSpectra:
    """Compute the transforms and second moments of steps.

    Args:
        u: Fields before the step, float32 [B, C, H, W].
        w: Fields after the step, float32 [B, C, H, W].
    """
    fields = torch.cat((u, w), dim=1)
    channels, (height, width) = u.shape[1], u.shape[-2:]
    means = fields.mean((-2, -1))
    transforms = torch.fft.rfft2(fields - means[..., None, None]).to(torch.complex128)
    # What is left of the mean after its subtraction in float32.
    transforms[..., 0, 0] = 0.0
    own, other = transforms.chunk(2, dim=1)
    cross = (own.conj() * other).sum(1)
    # Sums over channels first: those over neighboring real and imaginary parts are slow.
    squares = torch.view_as_real(transforms).square()
    squares = squares.reshape(len(u), 2, channels, *squares.shape[2:]).sum(2)
    of_u, of_w = (squares[..., 0] + squares[..., 1]).unbind(1)
    _, empty = band_weights(height, width, u.device)
    bands, powers = _sums((of_u, of_w, cross.real), (height, width), channels)
    u_bands, w_bands, cross_bands = bands.unbind(1)
    means = means.double()
    return StepSpectra(
        transforms=transforms,
        u_means=means[:, :channels],
        w_means=means[:, channels:],
        u_spectrum=of_u,
        w_spectrum=of_w,
        cross_spectrum=cross,
        u_bands=u_bands,
        w_bands=w_bands,
        cross_bands=cross_bands,
        u_power=powers[:, 0],
        w_power=powers[:, 1],
        cross_power=powers[:, 2],
        empty_bands=empty,
        grid=(height, width),
    )


def filtered(spectra: StepSpectra, factors: Tensor) -> StepSpectra:
    """Compute the spectra of steps whose input has passed a linear filter.

    Args:
        spectra: Transforms and moments of B steps.
        factors: Transfer function of the filter of each step, complex128 [B, H, W // 2 + 1].
    """
    own, other = spectra.transforms.chunk(2, dim=1)
    u_spectrum = spectra.u_spectrum * factors.abs().square()
    cross = spectra.cross_spectrum * factors.conj()
    bands, powers = _sums((u_spectrum, cross.real), spectra.grid, spectra.channels)
    u_bands, cross_bands = bands.unbind(1)
    return replace(
        spectra,
        transforms=torch.cat((own * factors[:, None], other), dim=1),
        u_spectrum=u_spectrum,
        cross_spectrum=cross,
        u_bands=u_bands,
        cross_bands=cross_bands,
        u_power=powers[:, 0],
        cross_power=powers[:, 1],
    )


def _sums(
    spectra: tuple[Tensor, ...], grid: tuple[int, int], channels: int
) -> tuple[Tensor, Tensor]:
    """Sum S spectra of B steps over octaves, float64 [B, S, 5], and to mean powers [B, S]."""
    weights, _ = band_weights(*grid, spectra[0].device)
    bands = torch.stack(spectra, dim=1).flatten(2) @ weights.mT
    height, width = grid
    return bands, bands.sum(-1) / (channels * (height * width) ** 2)
