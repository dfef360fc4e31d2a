"""Defines distributions of initial conditions: the base class and the built-in families.

Each channel of a field has zero mean, and each field has exactly its nominal variance over channels
and pixels: the drawn values are shifted and scaled. Four families are built in. A configuration can
add a subclass of `InitialCondition` by its ``class_path``.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.errors import ConfigurationError, SimulationError
from spinlock.simulation.field_synthesis import (
    blob_sums,
    passed_modes,
    plane_wave_sums,
    scaled_to_variance,
)
from spinlock.simulation.randomness import Stream, normal, uniform

Band = Literal["low", "mid", "high"]


class InitialCondition(ABC):
    """Base class of distributions of initial conditions; a subclass implements `raw`.

    Args:
        variance: Variance of each field over its channels and pixels.

    Raises:
        ConfigurationError: If the variance is not positive and finite.

    Example:
        >>> import torch
        >>> from spinlock import InitialCondition, Stream
        >>> from spinlock.simulation.randomness import normal
        >>> class Columns(InitialCondition):
        ...     def raw(self, seed, index, channels, grid_size):
        ...         count = channels * grid_size
        ...         drawn = normal(seed, Stream.INITIAL_CONDITION, index, count)
        ...         columns = drawn.view(-1, channels, 1, grid_size)
        ...         return columns.expand(-1, -1, grid_size, -1)
        >>> fields = Columns(variance=2.0).fields(42, torch.arange(4), channels=3, grid_size=16)
        >>> fields[0].var(correction=0)
        tensor(2.)
    """

    def __init__(self, variance: float = 1.0) -> None:
        if not (math.isfinite(variance) and variance > 0):
            raise ConfigurationError(f"variance must be positive and finite, got {variance}")
        self.variance = variance

    @abstractmethod
    def raw(self, seed: int, index: Tensor, channels: int, grid_size: int) -> Tensor:
        """Draw fields, before mean and variance are imposed.

        Draw random numbers with `spinlock.simulation.randomness`, at addresses made from the seed,
        ``Stream.INITIAL_CONDITION`` and the indices, so that samples do not depend on each other.

        Args:
            seed: Seed of the dataset.
            index: Sample indices, (B,) int64, on the device to compute on.
            channels: Number of channels C.
            grid_size: Side of the periodic grid, H = W, in pixels.

        Returns:
            Fields, (B, C, H, W) float32.
        """

    def check_grid(self, grid_size: int) -> None:  # noqa: B027 (an optional hook)
        """Check that a grid can hold these fields, and raise ConfigurationError if it cannot."""

    def fields(self, seed: int, index: Tensor, channels: int, grid_size: int) -> Tensor:
        """Draw fields with zero mean in each channel and exactly the nominal variance.

        Arguments and result are those of `raw`.

        Raises:
            SimulationError: If `raw` returns another shape, or, on a CPU, a constant field. On
                another device a constant field becomes NaN.
        """
        drawn = self.raw(seed, index, channels, grid_size)
        expected = (len(index), channels, grid_size, grid_size)
        if drawn.shape != expected:
            raise SimulationError(
                f"{type(self).__name__}.raw returned shape {tuple(drawn.shape)}, not {expected}"
            )
        scaled, power = scaled_to_variance(drawn, self.variance)
        # Another device is not waited for: a constant field is NaN there, as other faults are.
        if power.device.type == "cpu" and (power <= 0).any():
            constant = index[(power <= 0).flatten()].tolist()
            raise SimulationError(
                f"{type(self).__name__}.raw returned constant fields for samples {constant}; they "
                "cannot be scaled to a variance"
            )
        return scaled


class GaussianNoise(InitialCondition):
    """Spatially white Gaussian noise."""

    def raw(self, seed: int, index: Tensor, channels: int, grid_size: int) -> Tensor:
        """Draw white noise; see `InitialCondition.raw`."""
        count = channels * grid_size**2
        noise = normal(seed, Stream.INITIAL_CONDITION, index, count, device=index.device)
        return noise.view(-1, channels, grid_size, grid_size)


class BandLimited(GaussianNoise):
    """White Gaussian noise restricted to an annulus of Fourier space.

    Args:
        band: Name of the annulus, whose radii are in `PASSBANDS`.
        variance: Variance of each field.
    """

    #: Smallest and largest frequency of each annulus in cycles per pixel, both included.
    PASSBANDS: ClassVar[dict[str, tuple[float, float]]] = {
        "low": (1 / 128, 3 / 64),
        "mid": (5 / 64, 3 / 16),
        "high": (5 / 16, 15 / 32),
    }

    def __init__(self, band: Band, variance: float = 1.0) -> None:
        super().__init__(variance)
        if band not in self.PASSBANDS:
            raise ConfigurationError(
                f"band must be one of {', '.join(self.PASSBANDS)}, got {band!r}"
            )
        self.band = band

    def mask(self, grid_size: int) -> NDArray[np.bool_]:
        """Return which Fourier modes of `torch.fft.rfft2` lie in the annulus.

        Args:
            grid_size: Side of the grid, H = W, in pixels.

        Returns:
            Mask, (H, W // 2 + 1) bool.
        """
        # Integers are divided last, because k * (1 / n) may miss an edge by rounding.
        rows = np.fft.fftfreq(grid_size, 1 / grid_size) / grid_size
        squared = rows[:, None] ** 2 + rows[None, : grid_size // 2 + 1] ** 2
        low, high = self.PASSBANDS[self.band]
        return (squared >= low**2) & (squared <= high**2)

    def check_grid(self, grid_size: int) -> None:
        """Check that a Fourier mode of the grid lies in the annulus."""
        if not self.mask(grid_size).any():
            low, high = self.PASSBANDS[self.band]
            raise ConfigurationError(
                f"band_limited_{self.band}: a grid of {grid_size} has no Fourier mode between "
                f"{low:.4f} and {high:.4f} cycles per pixel; use parameter_space.grid_size >= "
                f"{math.ceil(1 / high)}, or omit the variant from initial_conditions.weights"
            )

    def raw(self, seed: int, index: Tensor, channels: int, grid_size: int) -> Tensor:
        """Draw white noise and remove modes outside the annulus; see `InitialCondition.raw`."""
        white = super().raw(seed, index, channels, grid_size)
        mask = torch.from_numpy(self.mask(grid_size)).to(index.device)
        return passed_modes(white, mask).float()


class DrawnShapes(InitialCondition):
    """Base class of families whose fields are sums of shapes with uniform random parameters."""

    @classmethod
    @abstractmethod
    def num_parameters(cls) -> int:
        """Return the number of random numbers of each channel."""

    @classmethod
    @abstractmethod
    def summed(cls, drawn: Tensor, grid_size: int) -> Tensor:
        """Compute fields from random numbers.

        Args:
            drawn: Uniform random numbers, (B, C, K) float32, where K is `num_parameters`.
            grid_size: Side of the periodic grid, H = W, in pixels.

        Returns:
            Fields, (B, C, H, W) float64.
        """

    def raw(self, seed: int, index: Tensor, channels: int, grid_size: int) -> Tensor:
        """Draw sums of shapes; see `InitialCondition.raw`."""
        own = self.num_parameters()
        drawn = uniform(seed, Stream.INITIAL_CONDITION, index, channels * own, device=index.device)
        return self.summed(drawn.view(-1, channels, own), grid_size).float()


class Sinusoids(DrawnShapes):
    """Sums of three plane waves per channel, with different integer wavevectors.

    The components of the wavevectors are whole cycles per domain, up to `MAX_WAVENUMBER`.
    Amplitudes are uniform in (0.5, 1.5), phases are uniform.
    """

    NUM_WAVES: ClassVar[int] = 3
    MAX_WAVENUMBER: ClassVar[int] = 8

    def check_grid(self, grid_size: int) -> None:
        """Check that the grid resolves the largest wavenumber."""
        if grid_size <= 2 * self.MAX_WAVENUMBER:
            raise ConfigurationError(
                f"sinusoids: wavenumbers up to {self.MAX_WAVENUMBER} need "
                f"parameter_space.grid_size > {2 * self.MAX_WAVENUMBER}, got {grid_size}; use a "
                "larger grid or omit the variant from initial_conditions.weights"
            )

    @classmethod
    def num_parameters(cls) -> int:
        """Count one for each different wavevector, and a phase and an amplitude of each wave."""
        return 2 * cls.MAX_WAVENUMBER * (cls.MAX_WAVENUMBER + 1) + 2 * cls.NUM_WAVES

    @classmethod
    def summed(cls, drawn: Tensor, grid_size: int) -> Tensor:
        """Compute sums of plane waves; see `DrawnShapes.summed`."""
        return plane_wave_sums(drawn, cls.NUM_WAVES, cls.MAX_WAVENUMBER, grid_size)


class GaussianBlobs(DrawnShapes):
    """Sums of five periodic Gaussians per channel, with random position, width and amplitude.

    Widths (standard deviations) are uniform in 5..15 pixels on a grid of 128 and scale with the
    grid. Amplitudes have a random sign and absolute values uniform in (0.5, 1.5), so the family is
    symmetric under u -> -u like the other three.
    """

    NUM_BLOBS: ClassVar[int] = 5
    #: Smallest and largest standard deviation, as fractions of the grid.
    WIDTHS: ClassVar[tuple[float, float]] = (5 / 128, 15 / 128)

    @classmethod
    def num_parameters(cls) -> int:
        """Count the position along y and x, the width, the amplitude and the sign of each blob."""
        return 5 * cls.NUM_BLOBS

    @classmethod
    def summed(cls, drawn: Tensor, grid_size: int) -> Tensor:
        """Compute sums of periodic Gaussians; see `DrawnShapes.summed`."""
        return blob_sums(drawn, cls.NUM_BLOBS, cls.WIDTHS, grid_size)
