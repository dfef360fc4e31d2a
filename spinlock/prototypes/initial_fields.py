"""Provides the initial conditions of samples, whether or not the file stores them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.simulation.variants import InitialConditions
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile


def initial_conditions(dataset: DatasetFile, samples: NDArray[np.int64]) -> Tensor:
    """Return the initial conditions of samples: the stored ones, or the same drawn again.

    Args:
        dataset: Open dataset file.
        samples: Indices of the samples, (n,) int64.

    Returns:
        Fields [n, C, H, W] float32, in the memory of the host.

    Raises:
        ConfigurationError: If they are not stored, and a user-defined variant cannot be imported.

    Example:
        >>> import h5py
        >>> from spinlock.configuration import GenerationConfig, StorageConfig
        >>> file = h5py.File("a.h5", "w", driver="core", backing_store=False)
        >>> config = GenerationConfig(4, storage=StorageConfig("none"))
        >>> initial_conditions(DatasetFile(file, config), np.array([2])).shape
        torch.Size([1, 3, 128, 128])
    """
    config = dataset.config
    if schema.INPUTS in dataset.specs:
        return torch.from_numpy(np.stack([dataset.initial(int(sample)) for sample in samples]))
    return InitialConditions(config).fields(
        config.seed,
        torch.from_numpy(samples),
        dataset.design.variant[samples],
        config.channels,
        config.grid_size,
    )
