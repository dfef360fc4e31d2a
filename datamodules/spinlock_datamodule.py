"""The Lightning data module: builds the dataset file when it is missing, and serves batches."""

import dataclasses
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from spinlock.config import GenerationConfig
from spinlock.datamodules.feature_dataset import Batch, FeatureDataset
from spinlock.datamodules.scaling import FeatureScaler, Scaling
from spinlock.datamodules.splits import SPLITS, split_operators
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import PER_TIMESTEP_NAMES, custom_columns
from spinlock.generation import generate
from spinlock.initial_conditions import Mixture
from spinlock.storage import read_columns, require_dataset, schema

_COLUMNS = (
    schema.PER_TIMESTEP,
    schema.INITIAL_FEATURES,
    schema.IC_TYPES,
    schema.IC_FAMILIES,
    schema.PARAMS,
    schema.OPERATOR_INDEX,
)


class SpinlockDataModule(LightningDataModule):
    """Builds and serves a dataset of random stochastic neural operators.

    A batch is a dictionary:

    ====================  ===============  ======================================================
    ``features``          [B, F] float32   scaled features of the last timestep, mean over noise
    ``initial_features``  [B, F] float32   the same features of the initial condition, scaled
    ``ic_type``           [B] int64        variant, position in `ic_names`
    ``ic_family``         [B] int64        family, position in `family_names`
    ``params``            [B, 15] float32  the operator as a point of the unit cube
    ``operator``          [B] int64        the operator's index
    ``index``             [B] int64        the sample's index in the file
    ====================  ===============  ======================================================

    Operators are split, stratified by the variant of their first probe, so that all probes of an
    operator fall into one split. `predict_dataloader` serves all samples in the file's order.

    Args:
        path: The dataset file; built by `prepare_data` when it is missing.
        generation: What the dataset is made from; for a file at hand, ``read_info(path).config``.
        batch_size: Samples in a batch.
        val_fraction: Fraction of the operators for validation.
        test_fraction: Fraction of the operators for testing.
        split_seed: Seed of the split.
        scaling: How features are scaled; fitted on the training split. See `FeatureScaler`.
        num_workers: Worker processes of each loader.
        pin_memory: Whether batches are copied to page-locked memory.
        device: Where to generate. None: the trainer's device when attached, else the first CUDA
            device, else the CPU.
        executor: Computes the dataset's shards, for example on a cluster; see
            `spinlock.executors`. None: this process does.
        progress: Whether generation shows its progress.
        prepare_data_per_node: Whether each node builds a file of its own (on local disks).

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        generation: GenerationConfig,
        *,
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        scaling: Scaling = "signed_log",
        num_workers: int = 0,
        pin_memory: bool = False,
        device: str | None = None,
        executor: Executor | None = None,
        progress: bool = True,
        prepare_data_per_node: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigurationError(f"batch_size: must be at least 1, got {batch_size}")
        if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
            raise ConfigurationError(
                "val_fraction and test_fraction: must be >= 0 and leave something to train on, got "
                f"{val_fraction} and {test_fraction}"
            )
        if split_seed < 0:
            raise ConfigurationError(f"split_seed: must be at least 0, got {split_seed}")
        if scaling not in get_args(Scaling):
            raise ConfigurationError(
                f"scaling: must be one of {get_args(Scaling)}, got {scaling!r}"
            )
        if isinstance(generation, dict):
            # What a checkpoint holds of it.
            generation = GenerationConfig.from_dict(generation)
        self.path = Path(path)
        self.generation = generation
        self.batch_size = batch_size
        self.fractions = (1 - val_fraction - test_fraction, val_fraction, test_fraction)
        self.split_seed = split_seed
        self.scaling: Scaling = scaling
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.device = device
        self.executor = executor
        self.progress = progress
        self.prepare_data_per_node = prepare_data_per_node
        self._columns: Batch | None = None
        self._split: Tensor | None = None
        # Primitives only: a checkpoint has to load with weights_only=True.
        self.save_hyperparameters(
            {
                "path": os.fspath(path),
                "generation": dataclasses.asdict(generation),
                "batch_size": batch_size,
                "val_fraction": val_fraction,
                "test_fraction": test_fraction,
                "split_seed": split_seed,
                "scaling": scaling,
            }
        )

    def prepare_data(self) -> None:
        """Build the dataset file, unless it is there.

        Raises:
            DatasetError: If the file is there and is another dataset, or no dataset.
        """
        try:
            generate(
                self.generation,
                self.path,
                device=self._build_device(),
                executor=self.executor,
                progress=self.progress,
            )
        finally:
            # The dataset is there: workers would only hold memory.
            if self.executor is not None:
                self.executor.shutdown()

    def setup(self, stage: str | None = None) -> None:
        """Read the columns, split the operators and scale the features.

        Args:
            stage: ``fit``, ``validate``, ``test``, ``predict`` or None; all are alike.

        Raises:
            DatasetNotFoundError: If the file is missing.
            DatasetError: If it is another dataset or no dataset.
            ConfigurationError: If the training split is empty.
        """
        if self._columns is not None:
            return
        self._require_file()
        config = self.generation
        custom = self._custom_arrays
        columns = read_columns(self.path, (*_COLUMNS, *custom.values()), config.num_samples)
        operator = torch.from_numpy(columns[schema.OPERATOR_INDEX])
        ic_type = _positions(columns[schema.IC_TYPES], self.ic_names)
        first_probe = ic_type[:: config.probes_per_operator]
        self._split = torch.from_numpy(
            split_operators(first_probe, self.fractions, self.split_seed)
        )[operator]
        training = self._split == SPLITS.index("train")
        if not training.any():
            raise ConfigurationError(
                f"the training split of {self.path} is empty: {config.num_samples} samples split "
                f"as {self.fractions}; generate more, or lower val_fraction and test_fraction"
            )
        last, first = [columns[schema.PER_TIMESTEP][:, -1]], [columns[schema.INITIAL_FEATURES]]
        if custom:
            last.append(columns[custom["per_timestep"]][:, -1])
            first.append(columns[custom["initial"]])
        features = torch.from_numpy(np.concatenate(last, axis=-1))
        initial = torch.from_numpy(np.concatenate(first, axis=-1))
        self.feature_scaler = FeatureScaler.fit(features[training], self.scaling)
        self.initial_feature_scaler = FeatureScaler.fit(initial[training], self.scaling)
        self._columns = {
            "features": self.feature_scaler.transform(features),
            "initial_features": self.initial_feature_scaler.transform(initial),
            "ic_type": torch.from_numpy(ic_type),
            "ic_family": torch.from_numpy(
                _positions(columns[schema.IC_FAMILIES], self.family_names)
            ),
            "params": torch.from_numpy(columns[schema.PARAMS]),
            "operator": operator,
            "index": torch.arange(config.num_samples),
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training split."""
        return self._dataloader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation split."""
        return self._dataloader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split."""
        return self._dataloader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of all samples, in the file's order."""
        return self._dataloader(None)

    @property
    def ic_names(self) -> tuple[str, ...]:
        """Variants of initial conditions; ``ic_type`` counts in this order."""
        return Mixture(self.generation.initial_conditions).names

    @property
    def family_names(self) -> tuple[str, ...]:
        """Families of initial conditions; ``ic_family`` counts in this order."""
        return tuple(dict.fromkeys(Mixture(self.generation.initial_conditions).families))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the F columns of ``features`` and ``initial_features``, the user's own last."""
        return PER_TIMESTEP_NAMES + custom_columns(self.generation.features).get("initial", ())

    @property
    def _custom_arrays(self) -> dict[str, str]:
        """Array of the user's own features of fields -> its dataset."""
        present = custom_columns(self.generation.features)
        wanted = ("per_timestep", "initial")
        return {array: schema.custom_features(array) for array in wanted if array in present}

    def _require_file(self) -> None:
        """Check that the file is there, whole and long enough."""
        held = require_dataset(self.path, self.generation).config.num_samples
        if held < self.generation.num_samples:
            raise DatasetError(
                f"{self.path} holds {held} samples, {self.generation.num_samples} are asked for; "
                "call prepare_data() to extend it"
            )

    def _build_device(self) -> torch.device | str | None:
        if self.device is not None or self.executor is not None or self.trainer is None:
            return self.device
        device = self.trainer.strategy.root_device
        # Generation needs 64-bit integers and floats, which other accelerators lack.
        return device if device.type in ("cpu", "cuda") else "cpu"

    def _dataloader(self, split: str | None) -> DataLoader[Batch]:
        if self._columns is None or self._split is None:
            raise RuntimeError("call setup() before asking for a dataloader")
        columns = self._columns
        if split is not None:
            rows = self._split == SPLITS.index(split)
            if not rows.any():
                raise ConfigurationError(
                    f"the {split} split of {self.path} is empty: {len(self._split)} samples split "
                    f"as {self.fractions} (train, val, test); generate more samples or raise "
                    f"{split}_fraction"
                )
            columns = {key: column[rows] for key, column in columns.items()}
        return DataLoader(
            FeatureDataset(columns),
            batch_size=self.batch_size,
            shuffle=split == "train",
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            collate_fn=_as_it_is,
            persistent_workers=self.num_workers > 0,
        )


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 (torch types it as a list of samples)
    """`FeatureDataset.__getitems__` returns whole batches: there is nothing left to collate."""
    return batch


def _positions(values: NDArray[np.str_], names: tuple[str, ...]) -> NDArray[np.int64]:
    """The position of each text in ``names``."""
    position = {name: number for number, name in enumerate(names)}
    return np.array([position[value] for value in values.tolist()], dtype=np.int64)
