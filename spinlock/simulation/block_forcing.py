"""Computes the forcing of a block of samples, and updates their fields, in a few operations.

On an accelerator each operation costs time however little it computes, and a copy from the host
waits. What depends on the design alone is a table that is made on the host, so that the caller can
copy the tables of a whole block at once. `spinlock.simulation.forcing` and
`spinlock.simulation.rollout.update_step` define the same for one sample.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.parameter_space import ParameterValues
from spinlock.simulation.forcing import (
    laplace_from_gaussian,
    noise_substreams,
    schedule,
    transfer_axis,
)
from spinlock.simulation.randomness import Stream, normal
from spinlock.simulation.rollout import Step, update_weights


class BlockForcing:
    """Forcing s(t) * eta of all samples of a block.

    Equal to `spinlock.simulation.forcing.Forcing` of each sample, up to rounding. Samples are
    sorted by the kind of their noise, so that only those with correlated noise are smoothed, and
    only those with Laplace noise are transformed.

    Args:
        values: Parameter values of the operator of each sample.
        noise: Index of each sample, which addresses its random numbers.
        seed: Seed of the dataset.
        channels: Number of channels C.
        num_realizations: Number of realizations M.
        num_timesteps: Number of timesteps T.

    Attributes:
        tables: Arrays by name, in the order of the sorted samples: ``index``, int64 [B, 1];
            ``row``, the places of the samples in that order, int64 [B]; ``substream`` of each
            timestep and realization, int64 [T, M]; ``schedule``, s(t), float32
            [T, B, 1, 1, 1, 1]; and ``axis``, the factors of the transfer functions of the b samples
            with correlated noise, float64 [b, 1, 1, H].

    Example:
        >>> import torch
        >>> from spinlock import GenerationConfig
        >>> from spinlock.configuration.parameter_space import typed_row
        >>> from spinlock.simulation.sobol_design import make_design
        >>> space = {"grid_size": [16]}
        >>> config = GenerationConfig.from_dict({"num_samples": 4, "parameter_space": space})
        >>> values = [typed_row(row) for row in make_design(config).values]
        >>> block = BlockForcing(
        ...     values, range(4), seed=42, channels=1, num_realizations=2, num_timesteps=1
        ... )
        >>> tables = {name: torch.from_numpy(table) for name, table in block.tables.items()}
        >>> forcing = block.with_tables(tables)
        >>> forcing(1).shape
        torch.Size([4, 2, 1, 16, 16])
    """

    def __init__(
        self,
        values: Sequence[ParameterValues],
        noise: Sequence[int],
        *,
        seed: int,
        channels: int,
        num_realizations: int,
        num_timesteps: int,
    ) -> None:
        self._seed, size = seed, values[0].grid_size
        self._shape = (len(values), num_realizations, channels, size, size)
        correlated = np.array([value.spatial_correlation > 0 for value in values])
        laplace = np.array([value.noise_type == "laplace" for value in values])
        # Samples with correlated noise are neighbors then, and so are those with Laplace noise.
        order = np.argsort(np.where(laplace, 3 - correlated, correlated), kind="stable")
        row = np.empty(len(order), dtype=np.int64)
        row[order] = np.arange(len(order))
        ordered = [values[sample] for sample in order]
        first = int((~correlated & ~laplace).sum())
        self._correlated = slice(first, first + int(correlated.sum()))
        self._laplace = slice(len(values) - int(laplace.sum()), len(values))
        steps = range(1, num_timesteps + 1)
        scale = [[schedule(value, step, num_timesteps) for value in ordered] for step in steps]
        lengths = [value.spatial_correlation * size for value in ordered[self._correlated]]
        self.tables: dict[str, NDArray[np.generic]] = {
            "index": np.array(noise, dtype=np.int64)[order, None],
            "row": row,
            "substream": np.array([noise_substreams(num_realizations, step) for step in steps]),
            "schedule": np.array(scale, dtype=np.float32)[..., None, None, None, None],
            "axis": transfer_axis(lengths, size)[:, None, None],
        }

    def with_tables(self, tables: Mapping[str, Tensor]) -> Callable[[int], Tensor]:
        """Return the forcing as a function of the timestep.

        Args:
            tables: The attribute `tables` as tensors on the device to compute on.

        Returns:
            Function that maps the timestep t in 1..T to the forcing of every sample and
            realization, [B, M, C, H, W] float32, in the order of the samples.
        """
        axis, device = tables["axis"], tables["index"].device
        half = axis[..., None, : axis.shape[-1] // 2 + 1]
        # Rounding to float32 comes last and only once.
        transfer = (axis[..., None] * half).float()

        def forcing(timestep: int) -> Tensor:
            eta = normal(
                self._seed,
                Stream.FORCING,
                tables["index"],
                self._shape[2] * self._shape[3] * self._shape[4],
                substream=tables["substream"][timestep - 1],
                device=device,
            ).view(self._shape)
            if len(transfer):
                part = eta[self._correlated]
                spectrum = torch.fft.rfft2(part) * transfer
                part.copy_(torch.fft.irfft2(spectrum, s=self._shape[-2:]))
            if self._laplace.start < len(eta):
                part = eta[self._laplace]
                part.copy_(laplace_from_gaussian(part))
            scaled = eta.mul_(tables["schedule"][timestep - 1])
            return scaled.index_select(0, tables["row"])

        return forcing


class BlockUpdate:
    """Update of the fields of all samples of a block, each by the update policy of its operator.

    Args:
        values: Parameter values of the operator of each sample.

    Attributes:
        tables: Arrays by name: the weights ``keep`` of the field u and ``gain`` of G, see
            `spinlock.simulation.rollout.update_weights`, float32 [B, 1, 1, 1, 1].

    Example:
        >>> import torch
        >>> from spinlock import GenerationConfig
        >>> from spinlock.configuration.parameter_space import typed_row
        >>> from spinlock.simulation.sobol_design import make_design
        >>> values = [typed_row(row) for row in make_design(GenerationConfig(4)).values]
        >>> block = BlockUpdate(values)
        >>> tables = {name: torch.from_numpy(table) for name, table in block.tables.items()}
        >>> step = block.with_tables(tables)
        >>> step(torch.ones(4, 1, 3, 8, 8), torch.zeros(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 3, 8, 8])
    """

    def __init__(self, values: Sequence[ParameterValues]) -> None:
        weights = np.array([update_weights(value) for value in values], dtype=np.float32)
        keep, gain = weights.reshape(-1, 2, 1, 1, 1, 1).swapaxes(0, 1).copy()
        self.tables: dict[str, NDArray[np.generic]] = {"keep": keep, "gain": gain}

    def with_tables(self, tables: Mapping[str, Tensor]) -> Step:
        """Return the update as a function of u and G = F(u) + s(t) eta.

        Args:
            tables: The attribute `tables` as tensors on the device of the fields.

        Returns:
            Function of u, [B, 1 or M, C, H, W], and G, [B, M, C, H, W], whose result has the shape
            of G.
        """
        return lambda u, g: torch.addcmul(tables["keep"] * u, tables["gain"], g)
