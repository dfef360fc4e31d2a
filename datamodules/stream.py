"""Simulates samples on the fly: the batches of a dataset file, without the file."""

import os
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from itertools import count, islice
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from spinlock.configuration.generation_config import MAX_INDEX, GenerationConfig
from spinlock.configuration.validation import require_at_least, require_choice
from spinlock.datamodules.column_groups import (
    Group,
    column_group,
    names_of_columns,
)
from spinlock.datamodules.datasets import Batch
from spinlock.datamodules.labels import LabelNames, labels_of_design
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.errors import ConfigurationError
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.processes import is_distributed
from spinlock.simulation.samples import Samples
from spinlock.simulation.simulator import Simulator
from spinlock.simulation.sobol_design import make_design

Order = Literal["consecutive", "random"]


@dataclass(eq=False)
class SpinlockStream(IterableDataset[Batch]):
    """Batches of samples that are simulated when they are requested.

    A batch has the entries of `SpinlockDataModule`'s batches except ``dynamics`` (with
    ``scaling="none"`` unless scalers are given), and its samples have the same bytes as in a
    dataset file that the same device builds. Pass the stream to a ``DataLoader`` with
    ``batch_size=None``. Batches are divided in turn among the ranks of a distributed run and the
    workers of the loader. Workers that simulate on a GPU must be spawned: a fork cannot use it.

    Args:
        generation: Configuration of the samples; ``num_samples`` is ignored.
        batch_size: Number of samples in a batch.
        order: Order of the samples. ``consecutive``: samples start, start + 1, ... ``random``: each
            batch consists of blocks of ``generation.block_size`` consecutive samples at random
            places in start..start + population; neighbors in a Sobol sequence are far apart in
            the operator space.
        start: First sample.
        population: Number of samples that the random order draws from. Samples far into the Sobol
            sequence take longer: 4 ms per block at a million.
        num_batches: Number of batches in an epoch, over all ranks and workers; default: unlimited.
        seed: Seed of the random order.
        device: Device that simulates; default: the CUDA device that is current at the first batch,
            or the CPU.
        columns: Groups of columns of ``features``; see `ViewOptions`.
        feature_scaler: Scaler applied to ``features``, for example that of a data module.
        initial_feature_scaler: Scaler applied to ``initial_features``.

    Raises:
        ConfigurationError: If an argument is out of range or the samples cannot be simulated.

    Example:
        >>> from spinlock import GenerationConfig
        >>> from spinlock.datamodules import SpinlockStream
        >>> space = {"grid_size": [32], "base_channels": {"low": 2, "high": 4}}
        >>> config = GenerationConfig.from_dict({"num_samples": 1, "parameter_space": space})
        >>> stream = SpinlockStream(config, batch_size=2, start=7, num_batches=2, device="cpu")
        >>> [batch["index"].tolist() for batch in stream]
        [[7, 8], [9, 10]]
    """

    generation: GenerationConfig
    _: KW_ONLY
    batch_size: int = 64
    order: Order = "consecutive"
    start: int = 0
    population: int = 1_000_000
    num_batches: int | None = None
    seed: int = 0
    device: str | None = None
    columns: tuple[Group, ...] = ("outputs",)
    feature_scaler: FeatureScaler | None = None
    initial_feature_scaler: FeatureScaler | None = None

    def __post_init__(self) -> None:
        require_at_least({"batch_size": self.batch_size, "num_batches": self.num_batches}, 1)
        require_choice("order", self.order, get_args(Order))
        if not 0 <= self.start < MAX_INDEX:
            raise ConfigurationError(f"start: must lie in [0, 2^30), got {self.start}")
        least, most = self.generation.block_size, MAX_INDEX - self.start
        if self.order == "random" and not least <= self.population <= most:
            raise ConfigurationError(
                f"population: must lie between block_size={least} and 2^30 - start={most}, got "
                f"{self.population}"
            )
        self.columns = tuple(self.columns)
        # Refuses what cannot be simulated. A trainer may choose the current GPU later, so a
        # simulator of a GPU is made for the first batch.
        if choose_device(self.device).type == "cpu":
            _ = self._simulator
        else:
            Simulator(self._computed, "cpu")
        _ = self.feature_names
        self._names = LabelNames.of(self.generation)
        # The process that may use a GPU; forks of it may not.
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process makes its own simulator, on the GPU that is current here.
        state = {name: value for name, value in vars(self).items() if name != "_simulator"}
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state["device"] = str(choose_device(self.device))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _process=os.getpid())

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self._computed, self.device)

    def refuse_forks_of_gpus(self, start_method: str | None) -> None:
        """Check that workers can use the device.

        Args:
            start_method: Start method of the workers of a loader; None without workers.

        Raises:
            ConfigurationError: If forked workers would use a GPU.
        """
        chosen = choose_device(self.device)
        if start_method == "fork" and chosen.type == "cuda":
            raise ConfigurationError(
                f"device: {chosen}: forked workers of a data loader cannot use a "
                "GPU that their parent process uses. Use num_workers=0 or "
                "multiprocessing_context='spawn' (of the DataLoader, or of LoaderOptions)"
            )

    @property
    def _computed(self) -> GenerationConfig:
        """Configuration that computes no more than batches contain."""
        responses = set(self.columns) != {"outputs"}
        return replace(self.generation, responses=responses, dynamics=False)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of ``features``."""
        return names_of_columns(self.columns, self._computed)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of this rank and worker."""
        worker = get_worker_info()
        workers, worker_number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        ranks, rank = 1, 0
        if is_distributed():
            ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        numbers = count() if self.num_batches is None else range(self.num_batches)
        mine = islice(numbers, rank * workers + worker_number, None, ranks * workers)
        return map(self.batch, mine)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, over all ranks and workers."""
        if self.num_batches is None:
            raise TypeError("a stream without num_batches has no length")
        return self.num_batches

    def batch(self, number: int) -> Batch:
        """Simulate a batch, which depends only on its number.

        Args:
            number: Number of the batch, from 0.

        Raises:
            ConfigurationError: If the process was forked from one that uses the GPU.
        """
        if self._process != os.getpid():
            self.refuse_forks_of_gpus("fork")
        simulator = self._simulator
        parts = [
            self._columns(samples)
            for run in self._ranges(number)
            for samples in simulator.samples(run.start, run.stop)
        ]
        batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        scalers = {
            "features": self.feature_scaler,
            "initial_features": self.initial_feature_scaler,
        }
        return batch | {k: s.transform(batch[k]) for k, s in scalers.items() if s is not None}

    def _ranges(self, number: int) -> list[range]:
        """Return the samples of a batch as ranges of consecutive samples."""
        size = self.generation.block_size
        if self.order == "consecutive":
            first = self.start + number * self.batch_size
            return [range(first, first + self.batch_size)]
        blocks = -(-self.batch_size // size)
        random = np.random.default_rng([self.seed, number])
        places = random.integers(0, self.population // size, blocks).tolist()
        firsts = [self.start + place * size for place in places]
        sizes = [size] * (blocks - 1) + [self.batch_size - (blocks - 1) * size]
        return [range(first, first + size) for first, size in zip(firsts, sizes, strict=True)]

    def _columns(self, samples: Samples) -> Batch:
        index, responses = samples.index, samples.responses
        design = make_design(self.generation, int(index[0]), int(index[-1]) + 1)
        groups = {"outputs": _joined(samples.features.per_timestep, samples, "per_timestep")[:, -1]}
        if responses is not None:
            groups["responses"] = responses.per_timestep[:, -1]
            groups["transport"] = responses.transport[:, -1]
            groups |= {"noise": responses.noise, "divergence": responses.divergence}
        known = [name for name in self.columns if column_group(name, self._computed).names]
        return {
            "features": torch.cat([groups[name] for name in known], dim=-1),
            "initial_features": _joined(samples.initial_features, samples, "initial"),
            **labels_of_design(design, self._names, self.generation.channels),
        }


def _joined(builtin: Tensor, samples: Samples, array: str) -> Tensor:
    """Return built-in features, followed by the custom features of an array if there are any."""
    custom = [samples.custom[array]] if array in samples.custom else []
    return torch.cat([builtin, *custom], dim=-1)
