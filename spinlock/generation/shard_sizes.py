"""Chooses the number of samples of a shard."""

import math

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.storage import schema

# On a CUDA device a shard of the smaller size takes a tenth of a second, and ending it a part of
# that.
_SAMPLES, _SAMPLES_ON_CUDA = 128, 1024
# Bytes of the fields of the largest shard by default: with 50 timesteps, a sample has 50 MB.
_MOST_BYTES = 1 << 32


def shard_size(config: GenerationConfig, device: torch.device | None = None) -> int:
    """Return the number of samples of a shard: ``storage.shard_size``, or a default.

    Args:
        config: Configuration of the dataset.
        device: Device that computes all shards, one after the other; default: not known.

    Example:
        >>> shard_size(GenerationConfig(10_000))
        128
        >>> shard_size(GenerationConfig(10_000), torch.device("cuda"))
        1024
    """
    if config.storage.shard_size is not None:
        return config.storage.shard_size
    cuda = device is not None and device.type == "cuda"
    sizes = (
        math.prod(spec.shape) * spec.dtype.itemsize
        for spec in schema.dataset_specs(config)
        if spec.chunk is not None
    )
    # Fields are stored only if the configuration says so.
    most = _MOST_BYTES // max(sum(sizes), 1)
    wanted = min(_SAMPLES_ON_CUDA if cuda else _SAMPLES, most)
    return max(wanted // config.block_size, 1) * config.block_size
