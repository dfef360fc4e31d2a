"""Simulates samples on the fly: the batches of a dataset file, without the file."""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from itertools import count, islice
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spinlock.configuration.generation_config import MAX_INDEX, GenerationConfig
from spinlock.configuration.validation import require_at_least, require_choice
from spinlock.datamodules.base_datamodule import DEFAULT_LOADER, BaseDataModule, stored_arguments
from spinlock.datamodules.datasets import Batch, BatchDataset, FeatureDataset
from spinlock.datamodules.labels import LabelNames, labels_of_design
from spinlock.datamodules.loading import LoaderOptions
from spinlock.datamodules.scaling import FeatureScaler, Scaling, fit_scalers
from spinlock.errors import ConfigurationError
from spinlock.runtime.processes import is_distributed
from spinlock.simulation.simulator import Samples, Simulator
from spinlock.simulation.sobol_design import make_design

Order = Literal["consecutive", "random"]


@dataclass(eq=False)
class SpinlockStream(IterableDataset[Batch]):
    """Batches of samples that are simulated when they are requested.

    A batch has the entries of `SpinlockDataModule`'s batches (with ``scaling="none"`` unless
    scalers are given), and its samples have the same bytes as in a dataset file that the same
    device builds. Pass the stream to a ``DataLoader`` with ``batch_size=None``. Batches are divided
    in turn among the ranks of a distributed run and the workers of the loader.

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
        device: Device that simulates; default: the first CUDA device, or the CPU.
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
        # Refuses what cannot be simulated.
        _ = self._simulator
        self._names = LabelNames.of(self.generation)

    def __getstate__(self) -> dict[str, Any]:
        # Each worker process makes its own simulator.
        return {name: value for name, value in vars(self).items() if name != "_simulator"}

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.generation, self.device)

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
        """
        parts = [
            self._columns(samples)
            for run in self._ranges(number)
            for samples in self._simulator.samples(run.start, run.stop)
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
        index = samples.index
        design = make_design(self.generation, int(index[0]), int(index[-1]) + 1)
        return {
            "features": _joined(samples.features.per_timestep, samples, "per_timestep")[:, -1],
            "initial_features": _joined(samples.initial_features, samples, "initial"),
            **labels_of_design(design, self._names, self.generation.channels),
        }


def _joined(builtin: Tensor, samples: Samples, array: str) -> Tensor:
    """Return built-in features, followed by the custom features of an array if there are any."""
    custom = [samples.custom[array]] if array in samples.custom else []
    return torch.cat([builtin, *custom], dim=-1)


class SpinlockStreamModule(BaseDataModule):
    """A data module whose training samples are simulated on the fly; every epoch has new ones.

    Batches are those of the view ``features`` of `SpinlockDataModule`. The first samples of the
    configuration are for validation, the next for testing, and the next for fitting the scalers;
    these are simulated once. Training batches are random blocks of the samples that follow. No two
    of these sets share an operator. In a yaml file, the section ``data`` chooses this class by
    ``class_path``.

    Args:
        generation: Configuration of the samples; ``num_samples`` is ignored.
        batch_size: Number of samples in a batch.
        num_batches: Number of training batches in an epoch.
        eval_samples: Number of validation samples, and of test samples.
        scaling_samples: Number of samples that the scalers are fitted on.
        scaling: Scaling method of features; see `FeatureScaler`.
        signed_log: Whether a signed logarithm precedes the scaling.
        population: Number of samples that training batches are drawn from.
        sampling_seed: Seed of the training batches; default: the seed of ``seed_everything``, or 0.
        loader: Options of the data loaders; see `LoaderOptions`. Workers simulate in parallel.
        device: Device that simulates; default: the first CUDA device, or the CPU.
        allow_transfer: Whether to accept a checkpoint of other data and apply its scaling.

    Raises:
        ConfigurationError: If an argument is out of range or the samples cannot be simulated.

    Example:
        >>> from spinlock import GenerationConfig
        >>> from spinlock.datamodules import SpinlockStreamModule
        >>> space = {"grid_size": [32], "base_channels": {"low": 2, "high": 4}}
        >>> config = GenerationConfig.from_dict({"num_samples": 1, "parameter_space": space})
        >>> sizes = {"batch_size": 2, "num_batches": 3, "eval_samples": 4, "scaling_samples": 4}
        >>> datamodule = SpinlockStreamModule(config, device="cpu", population=1000, **sizes)
        >>> datamodule.setup()
        >>> [len(batch["index"]) for batch in datamodule.train_dataloader()]
        [2, 2, 2]
    """

    def __init__(
        self,
        generation: GenerationConfig,
        *,
        batch_size: int = 64,
        num_batches: int = 100,
        eval_samples: int = 512,
        scaling_samples: int = 512,
        scaling: Scaling = "standard",
        signed_log: bool = True,
        population: int = 1_000_000,
        sampling_seed: int | None = None,
        loader: LoaderOptions = DEFAULT_LOADER,
        device: str | None = None,
        allow_transfer: bool = False,
    ) -> None:
        stored = stored_arguments(SpinlockStreamModule, locals())
        super().__init__(generation, batch_size, loader, sampling_seed, allow_transfer)
        generation = self.generation
        require_at_least({"eval_samples": eval_samples, "scaling_samples": scaling_samples}, 1)
        require_choice("scaling", scaling, get_args(Scaling))
        self.scaling, self.signed_log = scaling, signed_log
        # Each set begins with a new operator and a new block, so that no two sets share one.
        unit = math.lcm(generation.block_size, generation.probes_per_operator)
        test = -(-eval_samples // unit) * unit
        self.sets = {
            "val": range(eval_samples),
            "test": range(test, test + eval_samples),
            "scaling": range(2 * test, 2 * test + scaling_samples),
        }
        sizes = {f"{name}_samples": len(samples) for name, samples in self.sets.items()}
        self.settings = {**sizes, "scaling": scaling, "signed_log": signed_log}
        self.stream = SpinlockStream(
            generation,
            order="random",
            start=2 * test + -(-scaling_samples // unit) * unit,
            population=population,
            num_batches=num_batches,
            device=device,
        )
        self.save_hyperparameters(stored)

    def setup(self, stage: str | None = None) -> None:
        """Fit the scalers, unless a checkpoint has set them.

        Args:
            stage: Ignored; all stages need the same.
        """
        if not self.scalers:
            samples = self._simulate("scaling")
            features = {key: samples[key] for key in ("features", "initial_features")}
            self.scalers = fit_scalers(features, self.scaling, signed_log=self.signed_log)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches, other ones in each epoch."""
        stream = self._scaled(batch_size=self.batch_size, seed=self._sampling_seed)
        return self._training_loader(BatchDataset(stream.batch, len(stream)), 1, stamp_epoch=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the validation samples."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the test samples."""
        return self._evaluation("test")

    def _evaluation(self, name: str) -> DataLoader[Batch]:
        rows = torch.arange(len(self.sets[name]), device="cpu")
        return self._loader(FeatureDataset(self._simulate(name), rows), self.batch_size)

    def _simulate(self, name: str) -> Batch:
        """Simulate one of `sets` as a single batch."""
        samples = self.sets[name]
        options = {"order": "consecutive", "start": samples.start, "batch_size": len(samples)}
        return self._scaled(**options).batch(0)

    def _scaled(self, **changes: Any) -> SpinlockStream:  # noqa: ANN401 (fields of the stream)
        return replace(
            self.stream,
            feature_scaler=self.scalers.get("features"),
            initial_feature_scaler=self.scalers.get("initial_features"),
            **changes,
        )
