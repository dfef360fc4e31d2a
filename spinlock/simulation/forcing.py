"""Computes the stochastic forcing s(t) * eta that each timestep adds.

eta has unit marginal variance: white Gaussian noise smoothed by a periodic Gaussian kernel whose
standard deviation is ``spatial_correlation * grid_size`` pixels, normalized by the kernel (not by
the sample). Laplace forcing maps the same Gaussian field through the Gaussian distribution function
and the inverse Laplace distribution function.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spinlock.configuration.parameter_space import ParameterValues
from spinlock.simulation.randomness import Stream, normal

# The lower 16 bits of a substream word hold the timestep, the upper ones the realization.
_TIMESTEP_BITS = 16


def schedule(values: ParameterValues, timestep: int, num_timesteps: int) -> float:
    """Return the standard deviation s(t) of the forcing at a timestep.

    It is noise_scale times 1 (constant), 1 - t / (T + 1) (annealing) or
    1 + sin(2 pi t / schedule_period) / 2 (periodic).

    Args:
        values: Parameter values of the operator.
        timestep: Timestep t in 1..T.
        num_timesteps: Number of timesteps T.

    Raises:
        ValueError: If the noise schedule is unknown.
    """
    match values.noise_schedule:
        case "constant":
            factor = 1.0
        case "annealing":
            factor = 1 - timestep / (num_timesteps + 1)
        case "periodic":
            factor = 1 + 0.5 * math.sin(2 * math.pi * timestep / values.schedule_period)
        case unknown:
            raise ValueError(f"noise_schedule: unknown schedule {unknown!r}")
    return values.noise_scale * factor


def gaussian_transfer(length: float, grid_size: int) -> Tensor:
    """Return the Fourier multiplier of a periodic Gaussian kernel that preserves unit variance.

    Args:
        length: Standard deviation of the kernel in pixels.
        grid_size: Side of the grid, H = W, in pixels.

    Returns:
        Multiplier, (H, W//2 + 1) float32. Its mean square over the full plane of frequencies is 1,
        so the variance of white noise does not change.
    """
    axis = transfer_axis(length, grid_size)
    # rfft2 has the columns 0..W/2; the multiplier does not depend on the sign of a frequency.
    return torch.from_numpy(np.outer(axis, axis[: grid_size // 2 + 1])).float()


def transfer_axis(length: ArrayLike, grid_size: int) -> NDArray[np.float64]:
    """Return the factor of `gaussian_transfer` along one axis.

    Args:
        length: Standard deviation of the kernel in pixels, or an array (...) of them.
        grid_size: Side of the grid in pixels.

    Returns:
        Factor at the frequencies of `numpy.fft.fftfreq`, (..., grid_size).
    """
    full = np.fft.fftfreq(grid_size)
    # exp(-2 pi^2 l^2 f^2) is the transform of a Gaussian of standard deviation l.
    axis = np.exp(-2 * (math.pi * np.asarray(length)[..., None] * full) ** 2)
    scaled: NDArray[np.float64] = axis / np.sqrt(np.mean(axis**2, axis=-1, keepdims=True))
    return scaled


def noise_substreams(num_realizations: int, timestep: int) -> NDArray[np.int64]:
    """Return the substreams of the noise of each realization at a timestep.

    Args:
        num_realizations: Number of realizations M.
        timestep: Timestep t in 1..T.

    Returns:
        Substreams, (M,).
    """
    return (np.arange(num_realizations, dtype=np.int64) << _TIMESTEP_BITS) + timestep


def laplace_from_gaussian(z: Tensor) -> Tensor:
    """Map standard normal values to Laplace values of unit variance, preserving their ranks.

    The result is the inverse Laplace distribution function with scale 1/sqrt(2) at Phi(z), computed
    as -sign(z) ln(erfc(|z| / sqrt(2))) / sqrt(2) to avoid cancellation in the tails.

    Args:
        z: Standard normal values, of any shape.

    Example:
        >>> import torch
        >>> laplace_from_gaussian(torch.tensor([-1.0, 1.0]))
        tensor([-0.8117,  0.8117])
    """
    tail: Tensor = torch.special.erfc(z.abs() * math.sqrt(0.5))
    return tail.log().mul(z.sign()).mul(-math.sqrt(0.5))


class Forcing:
    """Forcing of one sample.

    Args:
        values: Parameter values of the operator.
        seed: Seed of the dataset.
        index: Index of the sample.
        channels: Number of channels C.
        num_realizations: Number of realizations M.
        num_timesteps: Number of timesteps T.
        device: Device to compute on.
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
        self._device = device
        self._transfer: Tensor | None = None
        if values.spatial_correlation > 0:
            length = values.spatial_correlation * values.grid_size
            self._transfer = gaussian_transfer(length, values.grid_size).to(device)

    def __call__(self, timestep: int) -> Tensor:
        """Return the forcing s(t) * eta of every realization at a timestep.

        Args:
            timestep: Timestep t in 1..T.

        Returns:
            Forcing, (M, C, H, W) float32.
        """
        eta = normal(
            self._seed,
            Stream.FORCING,
            self._index,
            math.prod(self._shape[1:]),
            substream=torch.from_numpy(noise_substreams(self._shape[0], timestep)),
            device=self._device,
        ).view(self._shape)
        if self._transfer is not None:
            eta = torch.fft.irfft2(torch.fft.rfft2(eta) * self._transfer, s=self._shape[-2:])
        if self._values.noise_type == "laplace":
            eta = laplace_from_gaussian(eta)
        return eta.mul_(schedule(self._values, timestep, self._num_timesteps))
