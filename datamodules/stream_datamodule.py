"""The data module of simulated samples: every epoch trains on new ones."""

import math
from dataclasses import replace
from typing import Any, get_args

import torch
from torch.utils.data import DataLoader

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.validation import require_at_least, require_choice
from spinlock.datamodules.base_datamodule import DEFAULT_LOADER, BaseDataModule
from spinlock.datamodules.checkpoint_state import stored_arguments
from spinlock.datamodules.column_groups import Group
from spinlock.datamodules.datasets import Batch, BatchDataset, FeatureDataset
from spinlock.datamodules.loading import LoaderOptions
from spinlock.datamodules.scaling import Scaling, fit_scalers
from spinlock.datamodules.stream import SpinlockStream
from spinlock.datamodules.trainer_device import trainer_device


class SpinlockStreamModule(BaseDataModule):
    """A data module whose training samples are simulated on the fly; every epoch has new ones.

    Batches are those of the view ``features`` of `SpinlockDataModule`, without dynamics. The first
    samples of the configuration are for validation, the next for testing, and the next for fitting
    the scalers; these are simulated once. Training batches are random blocks of the samples that
    follow. No two of these sets share an operator. In a yaml file, the section ``data`` chooses
    this class by ``class_path``.

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
        columns: Groups of columns of ``features``; see `ViewOptions`.
        device: Device that simulates; default: the trainer's, else the current GPU or the CPU.
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
        columns: tuple[Group, ...] = ("outputs",),
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
        self.settings |= {"columns": list(columns), "selection": "all"}
        self.stream = SpinlockStream(
            generation,
            order="random",
            start=2 * test + -(-scaling_samples // unit) * unit,
            population=population,
            num_batches=num_batches,
            device=device,
            columns=tuple(columns),
        )
        self._given_device = device
        self.dynamics_names = ()
        self.save_hyperparameters(stored)

    def candidate_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch."""
        return self.stream.feature_names if key == "features" else super().candidate_names(key)

    def setup(self, stage: str | None = None) -> None:
        """Fit the scalers, unless a checkpoint has set them.

        Args:
            stage: Ignored; all stages need the same.

        Raises:
            ConfigurationError: If forked workers of the loader would use a GPU.
        """
        if self._given_device is None and (chosen := trainer_device(self.trainer)) is not None:
            self.stream = replace(self.stream, device=str(chosen))
        self.stream.refuse_forks_of_gpus(self.loader.start_method)
        if self._adopt() and not self.scalers:
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
        if self._failure is not None:
            raise self._failure
        return replace(
            self.stream,
            feature_scaler=self.scalers.get("features"),
            initial_feature_scaler=self.scalers.get("initial_features"),
            **changes,
        )
