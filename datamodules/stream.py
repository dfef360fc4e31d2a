"""Samples simulated on the fly: the batches of a dataset file, without the file."""

from collections.abc import Iterator
from itertools import count, islice
from typing import Literal, get_args

import numpy as np
import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from spinlock.configuration.generation_config import MAX_INDEX, GenerationConfig
from spinlock.datamodules.feature_dataset import Batch
from spinlock.datamodules.labels import LabelNames, labels_of_design
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.errors import ConfigurationError
from spinlock.simulation.simulator import Samples, Simulator
from spinlock.simulation.sobol_design import make_design

Order = Literal["consecutive", "random"]


class SpinlockStream(IterableDataset[Batch]):
    """Batches of samples that are simulated when they are asked for.

    A batch has the entries of `SpinlockDataModule`'s (with ``scaling="none"`` unless scalers are
    given), and a sample is the same, to the byte, as in a dataset file that the same device builds.
    Give it to a ``DataLoader`` with ``batch_size=None``. Batches are dealt out in turn to the ranks
    of a distributed run and to the loader's workers, each batch to one of them.

    Args:
        generation: What the samples are made from; ``num_samples`` is not looked at.
        batch_size: Samples in a batch.
        order: ``consecutive``: samples start, start + 1, ... ``random``: each batch is made of
            blocks of ``generation.block_size`` consecutive samples at random places among the first
            ``population``; neighbours in a Sobol sequence lie far apart in the operator space.
        start: First sample of the consecutive order.
        population: Samples that the random order draws from. Reaching far into the Sobol sequence
            takes time: 4 ms per block at a million.
        num_batches: Batches of an epoch, over all ranks and workers. None: without end.
        seed: Of the random order.
        device: Where to simulate; by default the first CUDA device, or the CPU.
        feature_scaler: Applied to ``features``, for example that of a data module.
        initial_feature_scaler: Applied to ``initial_features``.

    Raises:
        ConfigurationError: If an argument is out of range or the samples cannot be simulated.
    """

    def __init__(
        self,
        generation: GenerationConfig,
        *,
        batch_size: int = 64,
        order: Order = "consecutive",
        start: int = 0,
        population: int = 1_000_000,
        num_batches: int | None = None,
        seed: int = 0,
        device: str | None = None,
        feature_scaler: FeatureScaler | None = None,
        initial_feature_scaler: FeatureScaler | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigurationError(f"batch_size: must be at least 1, got {batch_size}")
        if order not in get_args(Order):
            raise ConfigurationError(f"order: must be one of {get_args(Order)}, got {order!r}")
        if not 0 <= start < MAX_INDEX:
            raise ConfigurationError(f"start: must lie in [0, 2^30), got {start}")
        if not generation.block_size <= population <= MAX_INDEX:
            raise ConfigurationError(
                f"population: must lie between block_size={generation.block_size} and 2^30, got "
                f"{population}"
            )
        if num_batches is not None and num_batches < 1:
            raise ConfigurationError(f"num_batches: must be at least 1, got {num_batches}")
        Simulator(generation, "cpu")
        self._names = LabelNames.of(generation)
        self.generation = generation
        self.batch_size = batch_size
        self.order = order
        self.start = start
        self.population = population
        self.num_batches = num_batches
        self.seed = seed
        self.device = device
        self.feature_scaler = feature_scaler
        self.initial_feature_scaler = initial_feature_scaler

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this rank and worker."""
        worker = get_worker_info()
        workers, worker_number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        ranks, rank = 1, 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        simulator = Simulator(self.generation, self.device)
        numbers = count() if self.num_batches is None else range(self.num_batches)
        for number in islice(numbers, rank * workers + worker_number, None, ranks * workers):
            yield self._batch(simulator, number)

    def __len__(self) -> int:
        """Batches of an epoch, over all ranks and workers."""
        if self.num_batches is None:
            raise TypeError("a stream without num_batches has no length")
        return self.num_batches

    def _ranges(self, number: int) -> list[range]:
        """The samples of a batch, as consecutive runs."""
        size = self.generation.block_size
        if self.order == "consecutive":
            first = self.start + number * self.batch_size
            return [range(first, first + self.batch_size)]
        blocks = -(-self.batch_size // size)
        places = np.random.default_rng([self.seed, number]).integers(
            0, self.population // size, blocks
        )
        left, ranges = self.batch_size, []
        for place in places.tolist():
            ranges.append(range(place * size, place * size + min(size, left)))
            left -= len(ranges[-1])
        return ranges

    def _batch(self, simulator: Simulator, number: int) -> Batch:
        parts = [
            self._columns(samples)
            for run in self._ranges(number)
            for samples in simulator.samples(run.start, run.stop)
        ]
        batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        if self.feature_scaler is not None:
            batch["features"] = self.feature_scaler.transform(batch["features"])
        if self.initial_feature_scaler is not None:
            scaled = self.initial_feature_scaler.transform(batch["initial_features"])
            batch["initial_features"] = scaled
        return batch

    def _columns(self, samples: Samples) -> Batch:
        index = samples.index
        design = make_design(self.generation, int(index[0]), int(index[-1]) + 1)
        return {
            "features": samples.features.per_timestep[:, -1],
            "initial_features": samples.initial_features,
            **labels_of_design(design, self._names, self.generation.channels),
        }
