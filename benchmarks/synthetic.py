"""Writes dataset files with artificial fields and features.

Design, labels, layout and compression are those of real files. Benchmarks and tests of loading use
these files where simulation would take too long and the values do not matter.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.features import (
    AGGREGATED_NAMES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    SDFFeatures,
)
from spinlock.features.response import NOISE_NAMES, ResponseFeatures, response_names
from spinlock.simulation.provenance import provenance
from spinlock.simulation.simulator import Samples, dynamics_names
from spinlock.storage.assemble import assemble, plan_assembly
from spinlock.storage.shards import Shard, shard_path, write_shard

# Logarithms of the smallest and largest standard deviation of the noise between realizations.
_LOG_NOISE = (math.log(1e-4), math.log(1.0))


def write_synthetic(path: Path, config: GenerationConfig) -> None:
    """Write a dataset file with artificial fields and features.

    Features are normal numbers, with heavy tails in every other column. Realizations are a smooth
    field plus white noise as strong as in real files, so their compression ratio is similar.

    Args:
        path: File to write; its folder also holds the temporary shard.
        config: Configuration of the dataset.
    """
    shard = Shard(shard_path(path.parent, 0, config.num_samples), 0, config.num_samples)
    origin = provenance(config, torch.device("cpu"))
    write_shard(shard.path, config, 0, config.num_samples, _samples(config), origin)
    plan = plan_assembly(config.num_samples, [shard])
    assemble(config, plan.segments, path, path.parent, {})
    shard.path.unlink()


def _samples(config: GenerationConfig) -> Iterator[Samples]:
    generator = torch.Generator().manual_seed(0)
    for start in range(0, config.num_samples, config.block_size):
        count = min(config.block_size, config.num_samples - start)
        initial, fields = _fields(count, config, generator)
        realizations, steps = config.num_realizations, config.num_timesteps
        yield Samples(
            index=np.arange(start, start + count),
            initial=initial,
            fields=fields,
            features=SDFFeatures(
                _features((count, steps, len(PER_TIMESTEP_NAMES)), generator),
                _features((count, realizations, len(PER_TRAJECTORY_NAMES)), generator),
                _features((count, len(AGGREGATED_NAMES)), generator),
            ),
            initial_features=_features((count, len(PER_TIMESTEP_NAMES)), generator),
            custom={},
            responses=_responses(count, config, generator) if config.responses else None,
            dynamics=_dynamics(start, count, config, generator) if config.dynamics else None,
        )


def _responses(
    count: int, config: GenerationConfig, generator: torch.Generator
) -> ResponseFeatures:
    steps, names = config.num_timesteps, response_names(config.channels)
    widths = (len(NOISE_NAMES), steps if steps > 1 else 0)
    noise, divergence = (torch.randn(count, width, generator=generator) for width in widths)
    per_timestep = torch.randn(count, steps, len(names), generator=generator)
    return ResponseFeatures(per_timestep, noise, divergence)


def _dynamics(
    start: int, count: int, config: GenerationConfig, generator: torch.Generator
) -> Tensor:
    first = [i for i in range(start, start + count) if i % config.probes_per_operator == 0]
    return torch.randn(len(first), len(dynamics_names(config)), generator=generator)


def _features(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    values[..., ::2] = (3 * values[..., ::2]).exp()
    return values


def _fields(
    count: int, config: GenerationConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return plane waves as initial conditions, and noisy sines of them as outputs."""
    grid, shape = config.grid_size, (count, config.channels)
    kx, ky, phase = 6.28 * torch.rand(3, *shape, 1, 1, generator=generator)
    x = torch.linspace(0, 1, grid)
    initial = torch.sin(kx * x + ky * x[:, None] + phase)
    steps = torch.tensor(config.stored_steps, dtype=torch.float32).view(1, 1, -1, 1, 1, 1)
    low, high = _LOG_NOISE
    scale = (low + (high - low) * torch.rand(count, 1, 1, 1, 1, 1, generator=generator)).exp()
    size = (count, config.num_realizations, steps.numel(), config.channels, grid, grid)
    noise = torch.randn(size, generator=generator)
    return initial, torch.sin((2 + steps) * initial[:, None, None]) + scale * noise
