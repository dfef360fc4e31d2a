"""The stochastic forcing that each timestep adds: s(t) * eta.

eta has unit marginal variance: white Gaussian noise smoothed by a periodic Gaussian kernel whose
standard deviation is ``spatial_correlation * grid_size`` pixels, normalized by the kernel (not by
the sample). Laplace forcing is the same Gaussian field pushed through the Gaussian distribution
function and the inverse Laplace distribution function.
"""

import math

import numpy as np
import torch
from torch import Tensor

from spinlock.simulation.parameter_space import ParameterValues
from spinlock.simulation.randomness import Stream, normal

# A substream word holds the realization above and the timestep below these 16 bits.
_TIMESTEP_BITS = 16


def schedule(values: ParameterValues, timestep: int, num_timesteps: int) -> float:
    """Standard deviation s(t) of the forcing at a timestep.

    noise_scale times 1 (constant), 1 - t / (T + 1) (annealing) or
    1 + sin(2 pi t / schedule_period) / 2 (periodic).

    Args:
        values: The operator's parameter values.
        timestep: t in 1..T.
        num_timesteps: T.
    """
    match values.noise_schedule:
        case "constant":
            factor = 1.0
        case "annealing":
            factor = 1 - timestep / (num_timesteps + 1)
        case "periodic":
            factor = 1 + 0.5 * math.sin(2 * math.pi * timestep / values.schedule_period)
        case unknown:
            raise ValueError(f"noise_schedule: no schedule is called {unknown!r}")
    return values.noise_scale * factor


def gaussian_transfer(length: float, grid_size: int) -> Tensor:
    """Fourier multiplier (H, W//2 + 1) of a periodic Gaussian kernel that keeps unit variance.

    Args:
        length: Standard deviation of the kernel in pixels.
        grid_size: Side of the grid, H = W.

    Returns:
        float32 tensor; the mean of its square over the full plane is 1, so that white noise of unit
        variance stays of unit variance.
    """
    full = np.fft.fftfreq(grid_size)
    # exp(-2 pi^2 l^2 f^2) is the transform of a Gaussian of standard deviation l.
    axis = np.exp(-2 * (math.pi * length * full) ** 2)
    axis /= math.sqrt(np.mean(axis**2))
    # The half plane's columns are those of rfft: frequencies 0..W/2 (the sign does not matter).
    return torch.from_numpy(np.outer(axis, axis[: grid_size // 2 + 1])).float()


def laplace_from_gaussian(z: Tensor) -> Tensor:
    """Map standard normal values to Laplace values of unit variance, preserving their ranks.

    The inverse Laplace distribution function at Phi(z), with scale 1/sqrt(2):
    -sign(z) ln(erfc(|z| / sqrt(2))) / sqrt(2), free of cancellation in either tail.
    """
    tail: Tensor = torch.special.erfc(z.abs() * math.sqrt(0.5))
    return tail.log().mul(z.sign()).mul(-math.sqrt(0.5))


class Forcing:
    """The forcing of one sample, addressed by realization and timestep.

    Args:
        values: The operator's parameter values.
        seed: The dataset's seed.
        index: The sample's index.
        channels: Channels C.
        num_realizations: Realizations M.
        num_timesteps: Timesteps T.
        device: Where to compute.
    """

    def __init__(
        self,
        values: ParameterValues,
        *,
        seed: int,
        index: int,
        channels: int,
        num_realizations: int,
        num_timesteps: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._values, self._seed, self._index = values, seed, index
        self._shape = (num_realizations, channels, values.grid_size, values.grid_size)
        self._num_timesteps = num_timesteps
        self._realizations = torch.arange(num_realizations, device="cpu") << _TIMESTEP_BITS
        self._device = device
        self._transfer: Tensor | None = None
        if values.spatial_correlation > 0:
            length = values.spatial_correlation * values.grid_size
            self._transfer = gaussian_transfer(length, values.grid_size).to(device)

    def __call__(self, timestep: int) -> Tensor:
        """The forcing s(t) * eta of every realization at timestep t in 1..T: (M, C, H, W)."""
        eta = normal(
            self._seed,
            Stream.FORCING,
            self._index,
            math.prod(self._shape[1:]),
            substream=self._realizations + timestep,
            device=self._device,
        ).view(self._shape)
        if self._transfer is not None:
            eta = torch.fft.irfft2(torch.fft.rfft2(eta) * self._transfer, s=self._shape[-2:])
        if self._values.noise_type == "laplace":
            eta = laplace_from_gaussian(eta)
        return eta.mul_(schedule(self._values, timestep, self._num_timesteps))
