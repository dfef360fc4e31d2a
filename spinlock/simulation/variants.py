"""Makes the distributions of variants, and draws the initial conditions of samples from them."""

from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.import_path import Trusted, instantiate
from spinlock.configuration.variant_mixture import InitialConditionConfig
from spinlock.simulation.initial_conditions import (
    Band,
    BandLimited,
    GaussianBlobs,
    GaussianNoise,
    InitialCondition,
    Sinusoids,
)


def _builtin_variants() -> dict[str, InitialCondition]:
    return {
        **{f"gaussian_noise_{v:g}": GaussianNoise(v) for v in (0.25, 0.5, 1.0, 2.0, 4.0)},
        **{f"band_limited_{band}": BandLimited(band) for band in get_args(Band)},
        "sinusoids": Sinusoids(),
        "gaussian_blobs": GaussianBlobs(),
    }


def make_variant(
    name: str, config: InitialConditionConfig, trusted: Trusted = None
) -> InitialCondition:
    """Return the distribution of a variant.

    Args:
        name: Name of a built-in or custom variant.
        config: Weights and custom variants.
        trusted: Modules that class paths may name besides this package; None: every module.

    Raises:
        ConfigurationError: If a custom variant cannot be imported or constructed.
    """
    if name not in config.custom:
        return _builtin_variants()[name]
    where = f"initial_conditions.custom.{name}"
    return instantiate(InitialCondition, config.custom[name], where, trusted)  # type: ignore[type-abstract]


class InitialConditions:
    """Draws the initial conditions of samples.

    Args:
        config: Configuration of the dataset.

    Raises:
        ConfigurationError: If a custom variant cannot be imported or constructed.
    """

    def __init__(self, config: GenerationConfig) -> None:
        self.variants = tuple(
            make_variant(name, config.initial_conditions, config.trusted_modules)
            for name in config.mixture.names
        )

    def check_grid(self, grid_size: int) -> None:
        """Check that a grid can hold all variants, and raise ConfigurationError if it cannot."""
        for variant in self.variants:
            variant.check_grid(grid_size)

    def fields(
        self, seed: int, index: Tensor, variant: NDArray[np.int64], channels: int, grid_size: int
    ) -> Tensor:
        """Draw the initial conditions of samples.

        Args:
            seed: Seed of the dataset.
            index: Sample indices, (B,) int64, on the device to compute on.
            variant: Positions of the variants in `Mixture.names`, (B,) int64.
            channels: Number of channels C.
            grid_size: Side of the grid, H = W, in pixels.

        Returns:
            Fields, (B, C, H, W) float32.
        """
        shape = (len(index), channels, grid_size, grid_size)
        out = torch.empty(shape, dtype=torch.float32, device=index.device)
        for which in np.unique(variant):
            rows = torch.from_numpy(np.flatnonzero(variant == which)).to(index.device)
            out[rows] = self.variants[which].fields(seed, index[rows], channels, grid_size)
        return out
