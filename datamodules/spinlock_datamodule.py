"""The data module of dataset files: builds the file if it is missing, and loads batches."""

import os
from concurrent.futures import Executor
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules.base_datamodule import DEFAULT_LOADER, BaseDataModule
from spinlock.datamodules.checkpoint_state import FittedScaling, stored_arguments
from spinlock.datamodules.column_groups import ViewOptions
from spinlock.datamodules.datasets import Batch, FeatureDataset, Realizations
from spinlock.datamodules.existing_file import as_stored, warn_of_other_fields
from spinlock.datamodules.field_reader import FieldReader
from spinlock.datamodules.loading import LoaderOptions
from spinlock.datamodules.operator_selection import OperatorSelection
from spinlock.datamodules.preparation import Balance, Preparation, PreparedSamples, require_samples
from spinlock.datamodules.scaling import Scaling
from spinlock.datamodules.selection import VariantSelection, select_variants
from spinlock.datamodules.trainer_device import trainer_device
from spinlock.datamodules.views import make_view
from spinlock.errors import ConfigurationError
from spinlock.generation import generate
from spinlock.runtime.local_paths import local_path
from spinlock.splits import split_fractions
from spinlock.storage import read_info


class SpinlockDataModule(BaseDataModule):
    """Builds a dataset of random stochastic neural operators and loads it.

    A batch is a dictionary with

    ====================  =================  ====================================================
    ``features``          [B, F] float32     scaled features of one timestep, mean over noise
    ``initial_features``  [B, F] float32     the same features of the initial condition, scaled
    ``variant``           [B] int64          variant, position in `variant_names`
    ``family``            [B] int64          family, position in `family_names`
    ``update_policy``     [B] int64          update policy, position in `update_policy_names`
    ``normalization``     [B] int64          position in `normalization_names`
    ``parameter_count``   [B] int64          number of weights of the operator
    ``params``            [B, 15] float32    unit-cube coordinates; a family's own axes are last
    ``dynamics``          [B, D] float32     scaled dynamics of the operator, if the file has any
    ``operator``          [B] int64          index of the operator
    ``index``             [B] int64          index of the sample in the file
    ====================  =================  ====================================================

    This is the view ``features``; `ViewOptions` describes the others. `split_operators` keeps all
    probes of an operator in one split. Scalers and selected columns are fitted on the training
    samples, whose order is a pure function of a seed and the epoch. `predict_dataloader` loads all
    samples in the order of the file. If evaluation includes both variants that are trained on and
    others, validation and test have two loaders: held-in, then held-out (`eval_parts`).

    Args:
        path: Dataset file; `prepare_data` builds it if it is missing. Variables and ``~`` are
            expanded; a relative path is made absolute.
        generation: Configuration of the dataset; default: that of the file. A file of the same
            samples that stores other fields is used with the fields that it stores.
        view: Contents of a batch: ``features``, ``sequence``, ``responses``, ``pairs``,
            ``probes``, ``fields`` or ``both``, or `ViewOptions` to choose columns.
        timestep: Timestep whose features are returned, in 1..T; default: the last.
        realizations: Realizations in ``output_fields``: their ``mean`` (M = 1), ``one`` at random
            in each epoch (M = 1; the same one in every evaluation) or ``all``. Features are always
            means over realizations, as in the file.
        batch_size: Number of samples in a batch.
        val_fraction: Fraction of the operators for validation.
        test_fraction: Fraction of the operators for testing.
        split_seed: Seed of the split.
        scaling: Method of `FeatureScaler`: ``standard``, ``robust``, ``rank`` or ``none``.
        signed_log: Whether a signed logarithm precedes the scaling.
        train_variants: Variants or families of initial conditions to train on; default: all.
        eval_variants: Variants or families to evaluate on, or ``all``; default: those trained on.
        train_operators: Operators to train on, by their values on axes: ``{axis: [value, ...]}``
            or ``{axis: {low: ..., high: ...}}``; default: all.
        eval_operators: Operators to evaluate on, in the same form; default: all, also those that
            are left out of training, to measure how well a model generalizes to them.
        balance: Label of which each value is drawn equally often in training: ``variant``,
            ``family`` or ``none``.
        max_samples: Number of training samples to use, the first of the split; default: all.
        sampling_seed: Seed of the order of training samples and of random realizations; default:
            the seed of ``seed_everything``, or 0.
        loader: Options of the data loaders; see `LoaderOptions`.
        allow_transfer: Whether to accept and apply a checkpoint of another dataset or scaling.
        device: Device that builds the dataset; default: the trainer's, else a GPU or the CPU.
        executor: Executor of `spinlock.generation.executors`; default: this process.
        progress: Whether to show the progress of generation.
        prepare_data_per_node: Whether each node builds its own file, on a local disk.

    Raises:
        ConfigurationError: If an argument is out of range, or the dataset lacks a view or variant.
        DatasetError: If there is no configuration and no dataset file.

    Example:
        >>> import tempfile
        >>> from spinlock import GenerationConfig, SpinlockDataModule
        >>> space = {"grid_size": [32], "base_channels": {"low": 2, "high": 4}}
        >>> config = GenerationConfig.from_dict({"num_samples": 12, "parameter_space": space})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/dataset.h5"
        ...     datamodule = SpinlockDataModule(path, config, batch_size=4, progress=False)
        ...     datamodule.prepare_data()
        ...     datamodule.setup()
        ...     batch = next(iter(datamodule.train_dataloader()))
        >>> batch["features"].shape
        torch.Size([4, 46])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        generation: GenerationConfig | None = None,
        *,
        view: str | ViewOptions = "features",
        timestep: int | None = None,
        realizations: Realizations = "mean",
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        scaling: Scaling = "standard",
        signed_log: bool = True,
        train_variants: VariantSelection | None = None,
        eval_variants: VariantSelection | Literal["all"] | None = None,
        train_operators: dict[str, Any] | None = None,
        eval_operators: dict[str, Any] | None = None,
        balance: Balance = "none",
        max_samples: int | None = None,
        sampling_seed: int | None = None,
        loader: LoaderOptions = DEFAULT_LOADER,
        allow_transfer: bool = False,
        device: str | None = None,
        executor: Executor | None = None,
        progress: bool = True,
        prepare_data_per_node: bool = False,
    ) -> None:
        self.path = local_path(path).absolute()
        generation = read_info(self.path).config if generation is None else generation
        stored = stored_arguments(SpinlockDataModule, locals())
        asked, generation = generation, as_stored(self.path, generation)
        super().__init__(generation, batch_size, loader, sampling_seed, allow_transfer)
        self.view = make_view(view, self.generation, timestep=timestep, realizations=realizations)
        warn_of_other_fields(self.path, asked, self.view)
        self.preparation = Preparation(
            view=self.view,
            fractions=split_fractions(val_fraction, test_fraction),
            split_seed=split_seed,
            masks=select_variants(self.label_names, train_variants, eval_variants),
            train_operators=OperatorSelection(train_operators, "train_operators"),
            eval_operators=OperatorSelection(eval_operators, "eval_operators"),
            max_samples=max_samples,
            balance=balance,
            scaling=scaling,
            signed_log=signed_log,
        )
        self.settings = self.preparation.settings
        self.device, self.executor, self.progress = device, executor, progress
        self.prepare_data_per_node = prepare_data_per_node
        self.prepared: PreparedSamples | None = None
        self.save_hyperparameters(stored)

    def prepare_data(self) -> None:
        """Build the dataset file if it is missing or has fewer samples than requested.

        Raises:
            DatasetError: If the file exists and is another dataset, or not a dataset.
        """
        config, device, executor, built = self.generation, self._device(), self.executor, False
        try:
            generate(config, self.path, device=device, executor=executor, progress=self.progress)
            built = True
        finally:
            if executor is not None:
                # Workers would only hold memory. After an error, running shards are not awaited.
                executor.shutdown(wait=built, cancel_futures=not built)

    def setup(self, stage: str | None = None) -> None:
        """Read the columns, split the operators and scale the features.

        Args:
            stage: Ignored.

        Raises:
            DatasetNotFoundError: If the file is missing.
            DatasetError: If it is another dataset or not a dataset, or if a column that is read was
                changed, has values out of range or is stored in another file.
            ConfigurationError: If no sample is left to train on, or no column is selected.
        """
        if self._adopt() and self.prepared is None:
            require_samples(self.path, self.generation)
            try:
                self._prepare((self.scalers, self.invariant))
            except ConfigurationError as error:
                # Lightning loads the scaling and the selected columns of a checkpoint after this.
                self._failure = error
                if not self.allow_transfer:
                    raise

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return batches of the training samples, in another order each epoch.

        Raises:
            ConfigurationError: If a batch is larger than the split.
        """
        prepared = self._prepared()
        rows = prepared.subsets.require("train")
        self._limit_batch_size(len(rows), prepared.subsets)
        balance = self.preparation.balance
        classes = None if balance == "none" else prepared.labels(rows, balance).numpy()
        dataset, random = self._dataset(rows), self.view.has_fields
        return self._training_loader(dataset, self.batch_size, random, classes)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return batches of the validation split; a loader for each of `eval_parts`."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return batches of the test split; a loader for each of `eval_parts`."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return batches of all samples (or pairs) of all variants, in the order of the file."""
        return self._loader(self._dataset(self._prepared().everything), self.batch_size)

    def stored_argument(self, name: str, value: Any) -> Any:  # noqa: ANN401 (any argument)
        """Return an argument as it is stored: plain data, and an absolute path."""
        return super().stored_argument(
            name, getattr(self, "path", value) if name == "path" else value
        )

    def __str__(self) -> str:
        """Describe the dataset, the view, the splits by variant and the scaling of each column."""
        config = self.generation
        rows = {
            "dataset": f"{self.path}, fingerprint {config.fingerprint[:12]}",
            "samples": f"{config.num_samples} ({config.probes_per_operator} probe(s) per operator, "
            f"{config.num_realizations} realizations, {config.num_timesteps} timesteps)",
            "batches": f"of {self.batch_size}, {self.loader.num_workers} worker(s)",
            **self.preparation.describe(self.label_names),
        }
        width = max(map(len, rows))
        lines = [type(self).__name__, *(f"{name:<{width}}  {text}" for name, text in rows.items())]
        if self.prepared is None:
            return "\n".join([*lines, "not set up: counts and scaling are known after setup()"])
        return "\n".join([*lines, *self.prepared.describe(self.variant_names, self.view)])

    @property
    def eval_parts(self) -> tuple[str, ...]:
        """Parts that the validation and test loaders return, in order, such as ``held_in``."""
        return tuple(self.preparation.masks.parts)

    @property
    def selects_columns(self) -> bool:
        """Whether the columns of ``features`` are selected by the training samples."""
        return self.view.selection == "invariant"

    @property
    def training_samples(self) -> Tensor:
        """Indices of the training samples, int64 ascending; there may be none. After `setup`."""
        return self._prepared().training_samples

    def candidate_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch, before a selection."""
        return self.view.column_names(key)

    def _scale_by(self, fitted: FittedScaling) -> None:
        changed = self.prepared is not None and not self._is_scaled_by(fitted)
        if changed or (self.prepared is None and self._failure is not None):
            self._prepare(fitted)
        else:
            super()._scale_by(fitted)

    def _prepare(self, fitted: FittedScaling) -> None:
        self.prepared = self.preparation.prepare(self.path, self.label_names, *fitted)
        self.scalers, self.invariant = self.prepared.scalers, self.prepared.invariant

    def _prepared(self) -> PreparedSamples:
        if self.prepared is None or self._failure is not None:
            raise self._failure or RuntimeError("call setup() before asking for a data loader")
        return self.prepared

    def _device(self) -> torch.device | str | None:
        given = self.device is not None or self.executor is not None
        return self.device if given else trainer_device(self.trainer)

    def _evaluation(self, split: str) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        subsets = self._prepared().subsets
        rows = [subsets.require(name) for name in subsets if name.split()[0] == split]
        loaders = [self._loader(self._dataset(part), self.batch_size) for part in rows]
        return loaders[0] if len(loaders) == 1 else loaders

    def _dataset(self, rows: Tensor) -> FeatureDataset:
        readers = max(1, self.loader.num_workers)
        fields = partial(FieldReader, self.path, self.generation, readers=readers)
        return self.view.dataset(self._prepared().columns, rows, fields, self._sampling_seed)
