"""Writes dataset files with artificial fields and features.

Design, labels, layout and compression are those of real files. Benchmarks and tests of loading use
these files where simulation would take too long and the values do not matter.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.features import (
    AGGREGATED_NAMES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    SDFFeatures,
)
from spinlock.features.response import (
    NOISE_NAMES,
    TRANSPORT_NAMES,
    ResponseFeatures,
    divergence_names,
    response_names,
)
from spinlock.simulation.dynamics_rows import dynamics_names
from spinlock.simulation.provenance import provenance
from spinlock.simulation.samples import Samples
from spinlock.storage.assemble import assemble
from spinlock.storage.assembly_plan import plan_assembly
from spinlock.storage.shard_files import Shard, shard_path
from spinlock.storage.shards import write_shard

# Logarithms of the smallest and largest standard deviation of the noise between realizations.
_LOG_NOISE = (math.log(1e-4), math.log(1.0))


def write_synthetic(path: Path, config: GenerationConfig) -> None:
    """Write a dataset file with artificial fields and features.

    Features are normal numbers, with heavy tails in every other column. The first half of the
    response columns and all noise columns depend mostly on the operator. Realizations are a smooth
    field plus white noise as strong as in real files, so their compression ratio is similar.

    Args:
        path: File to write; its folder also holds the temporary shard.
        config: Configuration of the dataset.
    """
    shard = Shard(shard_path(path.parent, 0, config.num_samples), 0, config.num_samples)
    origin = provenance(config, torch.device("cpu"))
    write_shard(shard.path, config, 0, config.num_samples, synthetic_samples(config), origin)
    plan = plan_assembly(config.num_samples, [shard])
    assemble(config, plan.segments, path, path.parent, {})
    shard.path.unlink()


def synthetic_samples(config: GenerationConfig) -> Iterator[Samples]:
    """Yield blocks of all samples of a configuration, with artificial fields and features."""
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
            responses=_responses(np.arange(start, start + count), config, generator),
            dynamics=_dynamics(range(start, start + count), config),
        )


def _features(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    values[..., ::2] = (3 * values[..., ::2]).exp()
    return values


def _responses(
    index: NDArray[np.int64], config: GenerationConfig, generator: torch.Generator
) -> ResponseFeatures | None:
    if not config.responses:
        return None
    count, steps, noise = len(index), config.num_timesteps, len(NOISE_NAMES)
    names = (*response_names(config.channels), *TRANSPORT_NAMES)
    values = 0.2 * torch.randn(count, steps, len(names) + noise, generator=generator)
    operator = torch.from_numpy(index // config.probes_per_operator)
    half = len(names) // 2
    own = _of_operator(operator, half + noise)[:, None]
    values[..., :half] += own[..., :half]
    values[..., len(names) :] += own[..., half:]
    unknown = math.nan if config.num_realizations == 1 else 1.0
    divergence = torch.randn(count, len(divergence_names(steps)), generator=generator)
    sizes = (len(names) - len(TRANSPORT_NAMES), len(TRANSPORT_NAMES), noise)
    per_timestep, transport, spread = values.split(sizes, dim=-1)
    return ResponseFeatures(per_timestep, transport, spread[:, 0] * unknown, divergence * unknown)


def _dynamics(samples: range, config: GenerationConfig) -> Tensor | None:
    names, probes = dynamics_names(config), config.probes_per_operator
    operators = [sample // probes for sample in samples if sample % probes == 0]
    return _of_operator(torch.tensor(operators), len(names)) if names else None


def _of_operator(operator: Tensor, count: int) -> Tensor:
    """Return numbers of order one that depend on the operator alone, (n, count)."""
    phase = (operator[:, None] + 1) * torch.arange(2, count + 2).double().sqrt() * math.e
    return torch.special.ndtri(0.01 + 0.98 * (phase % 1)).float()


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
