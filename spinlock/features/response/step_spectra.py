"""Transforms the two fields of a step and sums their power over octaves of frequency.

All second moments of a step come from the Fourier transforms of its fields by Parseval's theorem.
The transforms are float32, their products and sums float64: differences of nearly equal powers,
such as the power that remains after a fit, are then as accurate as the transforms.
"""

from dataclasses import dataclass
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
    pixels; both are float64.

    Attributes:
        transforms: Transforms of u' and then w', half plane, 0 in the DC bin, complex64
            [B, 2C, H, W // 2 + 1].
        u_means: Channel means of u, [B, C].
        w_means: Channel means of w, [B, C].
        u_bands: Sums of |U|² over each octave, [B, 5].
        cross_bands: Sums of Re U*W over each octave, [B, 5].
        w_bands: Sums of |W|² over each octave, [B, 5].
        empty_bands: Whether the grid has no bins in an octave, bool [5].
        grid: Height H and width W of the grid.
    """

    transforms: Tensor
    u_means: Tensor
    w_means: Tensor
    u_bands: Tensor
    cross_bands: Tensor
    w_bands: Tensor
    empty_bands: Tensor
    grid: tuple[int, int]

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.u_means.shape[1]

    @property
    def scale(self) -> int:
        """Number C(HW)² that turns a sum over all bins into a mean over channels and pixels."""
        return self.channels * (self.grid[0] * self.grid[1]) ** 2

    @property
    def u_power(self) -> Tensor:
        """Power P_u = ⟨u'²⟩, [B]."""
        return self.u_bands.sum(-1) / self.scale

    @property
    def w_power(self) -> Tensor:
        """Power P_w = ⟨w'²⟩, [B]."""
        return self.w_bands.sum(-1) / self.scale

    @property
    def cross_power(self) -> Tensor:
        """Mean product ⟨u'w'⟩, [B]."""
        return self.cross_bands.sum(-1) / self.scale


@lru_cache(maxsize=16)
def band_weights(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights that sum squared transforms over octaves.

    Args:
        height: Number of rows of the grid.
        width: Number of columns of the grid.
        device: Device of the weights.

    Returns:
        Weights, float64 [2 · H · (W // 2 + 1), 5], and whether an octave has no bins, bool [5]. The
        weight of a half-plane bin in the column of its octave is the number of full-plane bins that
        it stands for; its real and its imaginary part have one row each.
    """
    bins = fourier_bins(height, width, device)
    weights = torch.zeros(
        height * (width // 2 + 1), len(bins.bands), dtype=torch.float64, device=device
    )
    for band, (first, last) in enumerate(bins.bands):
        weights[bins.order[first:last], band] = bins.weight[first:last].double()
    empty = torch.tensor([count == 0 for count in bins.counts], device=device)
    return weights.repeat_interleave(2, dim=0), empty


def step_spectra(u: Tensor, w: Tensor) -> StepSpectra:
    """Compute the transforms and second moments of steps.

    Args:
        u: Fields before the step, float32 [B, C, H, W].
        w: Fields after the step, float32 [B, C, H, W].
    """
    fields = torch.cat((u, w), dim=1)
    count, channels, (height, width) = len(u), u.shape[1], u.shape[-2:]
    means = fields.mean((-2, -1))
    transforms = torch.fft.rfft2(fields - means[..., None, None])
    # What is left of the mean after its subtraction in float32.
    transforms[..., 0, 0] = 0.0
    means = means.double()
    parts = torch.view_as_real(transforms).double().reshape(count, 2, channels, -1)
    of_u, of_w = parts[:, 0], parts[:, 1]
    pairs = ((of_u, of_u), (of_u, of_w), (of_w, of_w))
    products = [(first * second).sum(1) for first, second in pairs]
    weights, empty = band_weights(height, width, u.device)
    bands = torch.stack(products, dim=1) @ weights
    return StepSpectra(
        transforms=transforms,
        u_means=means[:, :channels],
        w_means=means[:, channels:],
        u_bands=bands[:, 0],
        cross_bands=bands[:, 1],
        w_bands=bands[:, 2],
        empty_bands=empty,
        grid=(height, width),
    )
