"""Draws the initial conditions of a block of samples, of all variants together.

On an accelerator each operation costs time however little it computes, and a copy from the host
waits. Samples are therefore sorted by family, each family is drawn at once, and means and variances
are imposed on all fields together. What depends on the design alone is a table that is made on the
host, so that the caller can copy the tables of a whole block at once.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.simulation.field_synthesis import passed_modes, scaled_to_variance
from spinlock.simulation.initial_conditions import (
    BandLimited,
    DrawnShapes,
    GaussianBlobs,
    GaussianNoise,
    InitialCondition,
    Sinusoids,
)
from spinlock.simulation.randomness import Stream, uniform

# Families that are drawn at once, in the order of the sorted samples.
_FAMILIES: tuple[type[InitialCondition], ...] = (
    GaussianNoise,
    BandLimited,
    Sinusoids,
    GaussianBlobs,
)


class BlockInitialConditions:
    """Draws the initial conditions of blocks of samples in a few operations.

    The fields are those of `spinlock.simulation.variants.InitialConditions`, up to rounding.
    Variants of built-in families are drawn together; any other variant is drawn by its method
    `InitialCondition.fields`. A constant field becomes NaN.

    Args:
        variants: Distributions of the variants, in the order of `Mixture.names`.
        seed: Seed of the dataset.
        channels: Number of channels C.
        grid_size: Side of the grid, H = W, in pixels.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from spinlock.simulation.initial_conditions import GaussianNoise, Sinusoids
        >>> draw = BlockInitialConditions(
        ...     [GaussianNoise(2.0), Sinusoids()], seed=42, channels=3, grid_size=32
        ... )
        >>> variant = np.array([1, 0, 1])
        >>> tables = draw.tables(np.arange(3), variant)
        >>> fields = draw.fields(variant, {k: torch.from_numpy(v) for k, v in tables.items()})
        >>> fields.var(dim=(1, 2, 3), correction=0)
        tensor([1., 2., 1.])
    """

    def __init__(
        self, variants: Sequence[InitialCondition], *, seed: int, channels: int, grid_size: int
    ) -> None:
        self._variants = tuple(variants)
        self._seed, self._channels, self._size = seed, channels, grid_size
        custom = len(_FAMILIES)
        # Place of each variant in the order of the sorted samples.
        self._places = np.array(
            [
                _FAMILIES.index(type(variant)) if type(variant) in _FAMILIES else custom + position
                for position, variant in enumerate(self._variants)
            ],
            dtype=np.int64,
        )
        self._variances = np.array([variant.variance for variant in variants], dtype=np.float64)
        bands = [
            (position, variant.mask(grid_size))
            for position, variant in enumerate(self._variants)
            if type(variant) is BandLimited
        ]
        size = grid_size, grid_size // 2 + 1
        self._masks = np.array([mask for _, mask in bands], dtype=np.bool_).reshape(-1, 1, *size)
        self._mask_of = np.zeros(len(self._variants), dtype=np.int64)
        self._mask_of[[position for position, _ in bands]] = np.arange(len(bands))

    def tables(
        self, index: NDArray[np.int64], variant: NDArray[np.int64]
    ) -> dict[str, NDArray[np.generic]]:
        """Make the tables of a block on the host.

        Args:
            index: Sample indices, (B,).
            variant: Positions of the variants in `Mixture.names`, (B,) int64.

        Returns:
            Arrays by name: ``index``, the sample indices sorted by family, (B,) int64; ``row``, the
            places of the samples in that order, (B,) int64; ``variance`` of the b samples of
            built-in families, (b, 1, 1, 1) float64; ``masks`` of the variants that are
            band-limited, (k, 1, H, W // 2 + 1) bool; and ``mask`` of each sample that is
            band-limited, (n,) int64.
        """
        order = np.argsort(self._places[variant], kind="stable")
        row = np.empty(len(order), dtype=np.int64)
        row[order] = np.arange(len(order))
        ordered = variant[order]
        places = self._places[ordered]
        built_in = ordered[places < len(_FAMILIES)]
        return {
            "index": np.asarray(index, dtype=np.int64)[order],
            "row": row,
            "variance": self._variances[built_in].reshape(-1, 1, 1, 1),
            "masks": self._masks,
            "mask": self._mask_of[ordered[places == _FAMILIES.index(BandLimited)]],
        }

    def fields(self, variant: NDArray[np.int64], tables: Mapping[str, Tensor]) -> Tensor:
        """Draw the initial conditions of a block.

        Args:
            variant: Positions of the variants, as for `tables`.
            tables: Result of `tables` as tensors on the device to compute on.

        Returns:
            Fields, (B, C, H, W) float32, in the order of the argument of `tables`.
        """
        count = np.bincount(
            self._places[variant], minlength=len(_FAMILIES) + len(self._variants)
        ).tolist()
        index = torch.split(tables["index"], count)
        parts = self._noise(tables, *count[:2]) + self._shapes(tables["index"], count)
        if parts:
            parts = [scaled_to_variance(torch.cat(parts), tables["variance"])[0]]
        custom = zip(self._variants, index[len(_FAMILIES) :], strict=True)
        seed, channels, size = self._seed, self._channels, self._size
        parts += [each.fields(seed, own, channels, size) for each, own in custom if len(own)]
        together = parts[0] if len(parts) == 1 else torch.cat(parts)
        return together.index_select(0, tables["row"])

    def _noise(self, tables: Mapping[str, Tensor], white: int, limited: int) -> list[Tensor]:
        """Draw numbers of fields of white and of band-limited noise."""
        index = tables["index"][: white + limited]
        if not len(index):
            return []
        drawn = GaussianNoise().raw(self._seed, index, self._channels, self._size)
        if not limited:
            return [drawn]
        mask = tables["masks"].index_select(0, tables["mask"])
        return [drawn[:white], passed_modes(drawn[white:], mask)]

    def _shapes(self, index: Tensor, count: list[int]) -> list[Tensor]:
        """Draw fields of the families of shapes."""
        families = [
            (family, number)
            for family, number in zip(_FAMILIES, count, strict=False)
            if issubclass(family, DrawnShapes) and number
        ]
        if not families:
            return []
        numbers = [number for _, number in families]
        first = sum(count[: len(_FAMILIES)]) - sum(numbers)
        needed = self._channels * max(family.num_parameters() for family, _ in families)
        drawn = uniform(
            self._seed,
            Stream.INITIAL_CONDITION,
            index[first : first + sum(numbers)],
            needed,
            device=index.device,
        )
        parts: list[Tensor] = []
        for (family, _), own in zip(families, torch.split(drawn, numbers), strict=True):
            shape = -1, self._channels, family.num_parameters()
            used = own[:, : math.prod(shape[1:])].view(shape)
            parts.append(family.summed(used, self._size))
        return parts
