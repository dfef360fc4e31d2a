"""Makes the fixed batch of fields on which every operator of a dataset is calibrated."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spinlock.simulation.randomness import Stream, normal


def calibration_shape(grid_size: int, kernel_size: int) -> tuple[int, int]:
    """Return the number of calibration fields, and their side in pixels.

    Args:
        grid_size: Side of the dataset's grid in pixels.
        kernel_size: Side of the convolution kernels in pixels.
    """
    side = max(grid_size // 8, 8, kernel_size)
    return max(1, grid_size**2 // (8 * side**2)), side


@lru_cache(maxsize=8)
def calibration_fields(
    seed: int, channels: int, grid_size: int, kernel_size: int, device: torch.device
) -> Tensor:
    """Return Gaussian random fields of unit variance, from white to smooth.

    Their power spectra are f^0, f^-1, f^-2 and f^-3 in turn. On grids of at least 32 pixels
    with kernels of at most 8 pixels, the batch has an eighth of the pixels of one field, so that
    calibration costs an eighth of one application of the operator.

    Args:
        seed: Seed of the dataset.
        channels: Number of channels of a field.
        grid_size: Side of the dataset's grid in pixels.
        kernel_size: Side of the convolution kernels in pixels.
        device: Device of the result.

    Returns:
        Fields, (n, channels, side, side) float32.
    """
    count, side = calibration_shape(grid_size, kernel_size)
    fields = torch.arange(count, device="cpu")
    white = normal(seed, Stream.CALIBRATION, fields, channels * side**2)
    shape = count, channels, side, side
    return shaped_fields(white.view(shape), fields.double().remainder(4)).to(device)


def shaped_fields(white: Tensor, slope: Tensor) -> Tensor:
    """Give white noise a power spectrum f^-slope and unit variance.

    Args:
        white: White noise, (n, channels, side, side).
        slope: Exponent of each field, (n,) float64 on the device of the noise.

    Returns:
        Fields, (n, channels, side, side) float32. Each has unit variance over channels and pixels;
        channels have zero mean.
    """
    side = white.shape[-1]
    spectrum = torch.fft.rfft2(white.double())
    rows, columns = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    frequency = torch.from_numpy(np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2))
    frequency[0, 0] = math.inf
    exponent = -0.5 * slope[:, None, None, None]
    # The infinite frequency removes the constant mode, except at slope 0, where the mask does.
    shaped = spectrum * frequency.pow(exponent) * frequency.isfinite()
    field = torch.fft.irfft2(shaped, s=(side, side))
    power = field.square().mean(dim=(1, 2, 3), keepdim=True)
    normalized: Tensor = field / power.sqrt()
    return normalized.float()
