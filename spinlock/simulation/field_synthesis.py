"""Computes fields from random numbers: the formulas of the families of initial conditions.

They act on the samples of one variant, or of several variants and of a whole block. Tables that
depend on the grid alone are kept. They are made on the device of the fields, because a copy from
the host would wait for it.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def scaled_to_variance(drawn: Tensor, variance: Tensor | float) -> tuple[Tensor, Tensor]:
    """Shift each channel to zero mean, and scale each field to its nominal variance.

    Args:
        drawn: Fields, (B, C, H, W).
        variance: Variance of each field, or of all fields; a tensor has the shape (B, 1, 1, 1).

    Returns:
        Fields, (B, C, H, W) float32, NaN where they were constant, and their variance before they
        were scaled, (B, 1, 1, 1) float64.
    """
    # float64 makes mean and variance exact to the rounding of the stored float32.
    field = drawn.double()
    field = field - field.mean(dim=(-2, -1), keepdim=True)
    power = field.square().mean(dim=(-3, -2, -1), keepdim=True)
    return (field * (variance / power).sqrt()).float(), power


def passed_modes(fields: Tensor, mask: Tensor) -> Tensor:
    """Remove the Fourier modes of fields that a mask leaves out.

    Args:
        fields: Fields, (B, C, H, W) float32.
        mask: Modes to keep, broadcast against (B, C, H, W // 2 + 1), bool.

    Returns:
        Fields, (B, C, H, W) float64.
    """
    spectrum = torch.fft.rfft2(fields.double())
    kept: Tensor = torch.fft.irfft2(spectrum * mask, s=fields.shape[-2:])
    return kept


@lru_cache(maxsize=8)
def _wave_angles(max_wavenumber: int, grid_size: int, device: torch.device) -> Tensor:
    """Return the angles of all different plane waves along both axes, float64 (waves, 2, H)."""
    # k and -k are the same wave, so one of them is listed; k = 0 is excluded. In the square of all
    # wavevectors, row by row from y = 0 and x = -max_wavenumber, they are those after the origin.
    side = 2 * max_wavenumber + 1
    place = torch.arange(max_wavenumber + 1, side * (max_wavenumber + 1), device=device)
    vectors = torch.stack((place // side, place % side - max_wavenumber), dim=-1)
    position = torch.arange(grid_size, device=device)
    # The integer remainder drops whole cycles, so the phase is exact at any wavenumber.
    cycles = (vectors[..., None] * position) % grid_size
    return cycles.double() * (2 * math.pi / grid_size)


def plane_wave_sums(drawn: Tensor, num_waves: int, max_wavenumber: int, grid_size: int) -> Tensor:
    """Compute sums of plane waves with different integer wavevectors.

    Args:
        drawn: Uniform random numbers, (B, C, K) float32: one for each different wavevector, whose
            ranks choose the wavevectors; then the phases and the amplitudes of the waves.
        num_waves: Number of waves in each channel.
        max_wavenumber: Largest component of a wavevector, in cycles per domain.
        grid_size: Side of the grid, H = W, in pixels.

    Returns:
        Fields, (B, C, H, W) float64.
    """
    lottery, parameters = drawn.tensor_split((-2 * num_waves,), dim=-1)
    phase, amplitude = parameters.double().chunk(2, dim=-1)
    waves = lottery.argsort(dim=-1, stable=True)[..., :num_waves]
    angle = _wave_angles(max_wavenumber, grid_size, drawn.device)[waves]
    angle[..., 0, :].add_(2 * math.pi * phase[..., None])
    (y_cos, x_cos), (y_sin, x_sin) = angle.cos().unbind(dim=-2), angle.sin().unbind(dim=-2)
    # cos(y + x) = cos y cos x - sin y sin x takes two matrix products instead of H*W cosines.
    weighted = (0.5 + amplitude)[..., None]
    field = torch.einsum("bcwi,bcwj->bcij", weighted * y_cos, x_cos)
    field -= torch.einsum("bcwi,bcwj->bcij", weighted * y_sin, x_sin)
    return field


@lru_cache(maxsize=8)
def _pixels(grid_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return positions along an axis, float64 (H,), and shifts to periodic images, (3,)."""
    position = torch.arange(grid_size, device=device, dtype=torch.float64) / grid_size
    return position, torch.arange(-1, 2, device=device, dtype=torch.float64)


def blob_sums(drawn: Tensor, num_blobs: int, widths: tuple[float, float], grid_size: int) -> Tensor:
    """Compute sums of periodic Gaussians.

    Args:
        drawn: Uniform random numbers, (B, C, 5 * num_blobs) float32: the position along y and x,
            the width, the amplitude and the sign of each blob.
        num_blobs: Number of blobs in each channel.
        widths: Smallest and largest standard deviation, as fractions of the grid.
        grid_size: Side of the grid, H = W, in pixels.

    Returns:
        Fields, (B, C, H, W) float64.
    """
    blobs = drawn.double().view(*drawn.shape[:-1], num_blobs, 5)
    center, (width, amplitude, sign) = blobs[..., :2], blobs[..., 2:].unbind(dim=-1)
    narrow, wide = widths
    width = narrow + (wide - narrow) * width
    amplitude = (0.5 + amplitude).copysign(sign - 0.5)
    position, shifts = _pixels(grid_size, drawn.device)
    distance = position - center[..., None]
    # Three images suffice: the next is at least 8.5 standard deviations away.
    images = distance + shifts.view(-1, *(1,) * distance.ndim)
    profiles = (-0.5 * (images / width[..., None, None]).square()).exp().sum(dim=0)
    y, x = profiles.unbind(dim=-2)
    return torch.einsum("bcni,bcnj->bcij", amplitude[..., None] * y, x)
