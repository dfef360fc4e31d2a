"""The fields on which every operator of a dataset is calibrated."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spinlock.simulation.randomness import Stream, normal


@lru_cache(maxsize=8)
def calibration_fields(
    seed: int, channels: int, grid_size: int, kernel_size: int, device: torch.device
) -> Tensor:
    """The fixed batch on which operators are calibrated: smooth to white, of unit variance.

    Gaussian random fields with power spectra f^0, f^-1, f^-2, f^-3 in turn. On grids of 32 and more
    pixels with kernels up to 8 they hold an eighth of the pixels of a field, so that calibration
    costs an eighth of one application.

    Returns:
        float32 tensor (n, channels, side, side), on the device.
    """
    side = max(grid_size // 8, 8, kernel_size)
    count = max(1, grid_size**2 // (8 * side**2))
    fields = torch.arange(count, device="cpu")
    white = normal(seed, Stream.CALIBRATION, fields, channels * side**2)
    spectrum = torch.fft.rfft2(white.double().view(count, channels, side, side))
    rows, columns = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    frequency = torch.from_numpy(np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2))
    frequency[0, 0] = math.inf
    slope = fields.double().remainder(4)[:, None, None, None]
    # The constant mode goes where frequency is infinite; at slope 0 it has to be taken out by hand.
    shaped = spectrum * frequency.pow(-0.5 * slope) * frequency.isfinite()
    field = torch.fft.irfft2(shaped, s=(side, side))
    power = field.square().mean(dim=(1, 2, 3), keepdim=True)
    normalized: Tensor = field / power.sqrt()
    return normalized.float().to(device)
