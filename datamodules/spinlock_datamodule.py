"""The Lightning data module: builds the dataset file when it is missing, and serves batches."""

import inspect
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spinlock.configuration import validation
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.datamodules.arguments import Balance, StartMethod, check_arguments
from spinlock.datamodules.described import DescribedDataModule
from spinlock.datamodules.description import describe
from spinlock.datamodules.feature_dataset import Batch, FeatureDataset, PairDataset
from spinlock.datamodules.field_dataset import FieldDataset
from spinlock.datamodules.field_reader import FieldReader
from spinlock.datamodules.loaders import LoaderOptions
from spinlock.datamodules.sampling import EpochSampler
from spinlock.datamodules.scaling import FeatureScaler, Scaling
from spinlock.datamodules.selection import VariantSelection, masks_of
from spinlock.datamodules.served import Served, ServingOptions, serve
from spinlock.datamodules.state import check_state, make_state, primitive, restore_scalers
from spinlock.datamodules.views import FIELD_VIEWS, Realizations, View, check_view
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation import generate
from spinlock.storage import require_dataset


class SpinlockDataModule(DescribedDataModule):
    """Builds and serves a dataset of random stochastic neural operators.

    A batch is a dictionary. Every view but ``fields`` has

    ====================  =================  ====================================================
    ``features``          [B, F] float32     scaled features of one timestep, mean over noise
    ``initial_features``  [B, F] float32     the same features of the initial condition, scaled
    ====================  =================  ====================================================

    and every view has

    ====================  =================  ====================================================
    ``variant``           [B] int64          variant, position in `variant_names`
    ``family``         [B] int64          family, position in `family_names`
    ``update_policy``            [B] int64          update policy, position in `update_policy_names`
    ``normalization``     [B] int64          position in `normalization_names`
    ``parameter_count``   [B] int64          number of weights of the operator
    ``params``            [B, 15] float32    the operator as a point of the unit cube
    ``operator``          [B] int64          the operator's index
    ``index``             [B] int64          the sample's index in the file
    ====================  =================  ====================================================

    ``features``: the above. ``sequence``: ``features`` is [B, T, F], of every timestep. ``pairs``:
    two probes of one operator in each row; the second one's entries are ``other_features``,
    ``other_initial_features``, ``other_variant``, ``other_family`` and ``other_index``; every
    sample is paired with the next probe of its operator. ``fields``: ``input_fields``
    [B, C, H, W] and ``output_fields`` [B, M, C, H, W] float32, for T > 1 [B, M, T', C, H, W] with
    the T' stored timesteps, decompressed from the file for each batch. ``both``: features and
    fields.

    Operators are split by a hash of their index (`split_operators`), so that all probes of an
    operator fall into one split. Scaling is fitted on the samples that are trained on. The order of
    training samples is a pure function of a seed and the epoch. `predict_dataloader` serves all
    samples in the file's order.

    Where evaluation includes both variants that are trained on and variants that are not, the
    validation and test loaders are lists of two: held-in, then held-out (`eval_parts`).

    Args:
        path: The dataset file; built by `prepare_data` when it is missing.
        generation: Configuration of the dataset. To open an existing file, read its configuration:
            ``read_info(path).config``.
        view: What a batch holds: ``features``, ``sequence``, ``pairs``, ``fields`` or ``both``.
        timestep: Whose ``features`` the views of one timestep hold, in 1..T; by default the last.
        realizations: Of ``output_fields``: their ``mean`` (M = 1), ``one`` at random each epoch
            (M = 1; in evaluation always the same one) or ``all``. Features are always means over
            realizations, which is what the file holds.
        batch_size: Samples in a batch.
        val_fraction: Fraction of the operators for validation.
        test_fraction: Fraction of the operators for testing.
        split_seed: Seed of the split.
        scaling: How features are scaled: ``standard``, ``robust``, ``rank`` or ``none``; see
            `FeatureScaler`.
        signed_log: Whether a logarithm comes before ``standard``, ``robust`` or ``rank``.
        train_variants: Variants or families of initial conditions to train on; by default all.
        eval_variants: Those to validate and test on; by default those trained on; ``all``: all.
        balance: Whether training batches hold each ``variant``, or each ``family``, equally often.
        max_samples: Train on the first so many training samples only.
        sampling_seed: Seed of the order of training samples and of random realizations; by default
            that of ``seed_everything``, or 0.
        num_workers: Worker processes of each loader.
        pin_memory: Whether batches are copied to page-locked memory.
        prefetch_factor: Batches that each worker prepares ahead; by default 2.
        persistent_workers: Whether workers outlive an epoch.
        multiprocessing_context: How workers start: ``fork``, ``spawn`` or ``forkserver``; by
            default as the system does.
        allow_transfer: Whether a checkpoint of another dataset, split or scaling is accepted; its
            scaling is then applied.
        device: Where to generate. None: the trainer's device when attached, else the first CUDA
            device, else the CPU.
        executor: Computes the dataset's shards, for example on a cluster; see
            `spinlock.generation.executors`. None: this process does.
        progress: Whether generation shows its progress.
        prepare_data_per_node: Whether each node builds a file of its own (on local disks).

    Raises:
        ConfigurationError: If an argument is out of range, or the dataset does not have the view or
            a variant.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        generation: GenerationConfig,
        *,
        view: View = "features",
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
        balance: Balance = "none",
        max_samples: int | None = None,
        sampling_seed: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        persistent_workers: bool = True,
        multiprocessing_context: StartMethod | None = None,
        allow_transfer: bool = False,
        device: str | None = None,
        executor: Executor | None = None,
        progress: bool = True,
        prepare_data_per_node: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _ARGUMENTS}
        held: Any = generation
        if not isinstance(held, GenerationConfig):
            # From a checkpoint, which a stranger may have written.
            validation.check_arguments(SpinlockDataModule.__init__, given | {"executor": executor})
            generation = StoredConfig.from_dict(held)
        check_arguments(given)
        check_view(generation, view, realizations, timestep)
        super().__init__(generation)
        self.path = Path(path)
        self.realizations: Realizations = realizations
        self.serving = ServingOptions(
            view=view,
            timestep=generation.num_timesteps if timestep is None else timestep,
            fractions=(1 - val_fraction - test_fraction, val_fraction, test_fraction),
            split_seed=split_seed,
            masks=masks_of(self.label_names, train_variants, eval_variants),
            max_samples=max_samples,
            scaling=scaling,
            signed_log=signed_log,
        )
        self.batch_size = batch_size
        self.loading = LoaderOptions(
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            multiprocessing_context=multiprocessing_context,
        )
        self.balance: Balance = balance
        self.sampling_seed = sampling_seed
        self.allow_transfer = allow_transfer
        self.device = device
        self.executor = executor
        self.progress = progress
        self.prepare_data_per_node = prepare_data_per_node
        self.served: Served | None = None
        self._restored: dict[str, FeatureScaler] | None = None
        # Primitives only: a checkpoint has to load with weights_only=True.
        self.save_hyperparameters({name: primitive(value) for name, value in given.items()})

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
        except BaseException:
            if self.executor is not None:
                # Not after the running shards: whatever went wrong, they would be waited for.
                self.executor.shutdown(wait=False, cancel_futures=True)
            raise
        # The dataset is there: workers would only hold memory.
        if self.executor is not None:
            self.executor.shutdown()

    def setup(self, stage: str | None = None) -> None:
        """Read the columns, split the operators and scale the features.

        Args:
            stage: ``fit``, ``validate``, ``test``, ``predict`` or None; all are alike.

        Raises:
            DatasetNotFoundError: If the file is missing.
            DatasetError: If it is another dataset or not a dataset, or if a column that is read was
                changed, has values out of range or is stored in another file.
            ConfigurationError: If no sample is left to train on.
        """
        if self.served is None:
            held = require_dataset(self.path, self.generation).config.num_samples
            if held < self.generation.num_samples:
                raise DatasetError(
                    f"{self.path} holds {held} samples, {self.generation.num_samples} are asked "
                    "for; call prepare_data() to extend it"
                )
            self._serve()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the samples to train on, in another order each epoch; see `TrainingLoader`.

        Raises:
            ConfigurationError: If a batch is larger than the split.
        """
        served = self._ready()
        rows = served.subsets.require("train", "train")
        if self.batch_size > len(rows):
            raise ConfigurationError(
                f"batch_size: {self.batch_size} is larger than the training split; there "
                f"are {served.subsets.describe()} samples. Lower batch_size or generate more "
                "samples"
            )
        sampler = EpochSampler(
            len(rows),
            seed=self._sampling_seed,
            classes=served.classes(rows, self.balance),
            epoch=0 if self.trainer is None else self.trainer.current_epoch,
            stamp_epoch=self.serving.view in FIELD_VIEWS,
        )
        dataset = self._dataset(rows)
        return self.loading.training_loader(dataset, self.batch_size, sampler, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the validation split; a loader for each of `eval_parts`."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the test split; a loader for each of `eval_parts`."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of all samples (or pairs) in the file's order, whatever their variant."""
        return self._loader(self._ready().everything)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: identity of dataset and split, and the scaling."""
        return make_state(
            self.generation, self.serving.settings, self.served.scalers if self.served else {}
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the scaling of a checkpoint, with which its model has learned.

        Raises:
            DatasetError: If the checkpoint is of another dataset, split or scaling, unless
                ``allow_transfer`` is set; or if it scales other features.
        """
        if not self.allow_transfer:
            check_state(state_dict, self.generation, self.serving.settings, self.path)
        self._restored = restore_scalers(state_dict, self.num_features)
        if self.served is not None:
            self._serve()

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (Lightning's)
        """Make the data module whose arguments a checkpoint holds; see Lightning's method.

        The arguments are data: a class that the checkpoint names is not imported.
        """
        kwargs.setdefault("weights_only", True)
        # Lightning would have its command line parser instantiate what the checkpoint names.
        return super().load_from_checkpoint(*args, **kwargs, _instantiator=None)

    def __str__(self) -> str:
        """What is served: dataset, view, splits by variant, scaling of each column."""
        return describe(self)

    @property
    def eval_parts(self) -> tuple[str, ...]:
        """What the validation and test loaders serve, in order: ``held_in``, ``held_out``."""
        return tuple(self.serving.masks.evaluation)

    @property
    def feature_scaler(self) -> FeatureScaler:
        """The scaling of ``features``; known after `setup`."""
        return self._ready().scaler("features")

    @property
    def initial_feature_scaler(self) -> FeatureScaler:
        """The scaling of ``initial_features``; known after `setup`."""
        return self._ready().scaler("initial_features")

    @property
    def _sampling_seed(self) -> int:
        if self.sampling_seed is not None:
            return self.sampling_seed
        # Where seed_everything leaves its seed; Lightning's own samplers take it from there too.
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    def _serve(self) -> None:
        self.served = serve(
            self.path, self.generation, self.label_names, self.serving, self._restored
        )

    def _ready(self) -> Served:
        if self.served is None:
            raise RuntimeError("call setup() before asking for a dataloader or a scaler")
        return self.served

    def _build_device(self) -> torch.device | str | None:
        if self.device is not None or self.executor is not None or self.trainer is None:
            return self.device
        device = self.trainer.strategy.root_device
        # Generation needs 64-bit integers and floats, which other accelerators lack.
        return device if device.type in ("cpu", "cuda") else "cpu"

    def _evaluation(self, split: str) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        subsets = self._ready().subsets
        loaders = [self._loader(subsets.require(split, part)) for part in self.eval_parts]
        return loaders[0] if len(loaders) == 1 else loaders

    def _loader(self, rows: Tensor) -> DataLoader[Batch]:
        return self.loading.loader(self._dataset(rows), self.batch_size)

    def _dataset(self, rows: Tensor) -> FeatureDataset:
        columns = self._ready().columns
        if self.serving.view == "pairs":
            return PairDataset(columns, rows)
        if self.serving.view in FIELD_VIEWS:
            return FieldDataset(
                columns,
                rows,
                FieldReader(self.path, self.generation, readers=max(1, self.loading.num_workers)),
                num_realizations=self.generation.num_realizations,
                realizations=self.realizations,
                seed=self._sampling_seed,
            )
        return FeatureDataset(columns, rows)


_ARGUMENTS = frozenset(inspect.signature(SpinlockDataModule).parameters) - {"executor"}
