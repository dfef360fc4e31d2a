"""A user-defined initial condition: noise whose power falls off like a power of the frequency."""

import numpy as np
import torch
from torch import Tensor

from spinlock.simulation.initial_conditions import GaussianNoise


class PowerLawNoise(GaussianNoise):
    """White Gaussian noise with Fourier amplitudes multiplied by |f|^(-exponent).

    Args:
        exponent: Exponent of the amplitude; the power falls off with twice the exponent.
        variance: Variance of each field.
    """

    def __init__(self, exponent: float = 1.0, variance: float = 1.0) -> None:
        super().__init__(variance)
        self.exponent = exponent

    def raw(self, seed: int, index: Tensor, channels: int, grid_size: int) -> Tensor:
        """Return filtered white noise; see `InitialCondition.raw`."""
        white = super().raw(seed, index, channels, grid_size).double()
        rows = np.fft.fftfreq(grid_size)
        modulus = np.hypot(rows[:, None], rows[None, : grid_size // 2 + 1])
        amplitude = np.zeros_like(modulus)
        amplitude[modulus > 0] = modulus[modulus > 0] ** -self.exponent
        filtered = torch.fft.rfft2(white) * torch.from_numpy(amplitude).to(index.device)
        fields: Tensor = torch.fft.irfft2(filtered, s=(grid_size, grid_size))
        return fields.float()
