"""Base class of the data modules: names and sizes of the dataset, loaders, checkpoint state."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.plain_hyperparameters import PlainHyperparameters
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.validation import require_at_least, structured
from spinlock.datamodules.checkpoint_state import FittedScaling, restored_scaling
from spinlock.datamodules.datasets import Batch, BatchDataset, FeatureDataset
from spinlock.datamodules.invariant_columns import InvariantColumns
from spinlock.datamodules.labels import LabelNames, feature_names
from spinlock.datamodules.loading import EpochSampler, LoaderOptions
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.training_loader import TrainingLoader
from spinlock.errors import ConfigurationError, SpinlockError
from spinlock.runtime.checkpoint_file import check_checksums
from spinlock.simulation.dynamics_rows import dynamics_names

DEFAULT_LOADER = LoaderOptions()


class BaseDataModule(PlainHyperparameters, LightningDataModule):
    """A data module that knows names and sizes of its dataset before `setup`.

    Callbacks take names from here, and yaml files can link the sizes to arguments of models. A
    checkpoint stores the identity of the dataset, ``settings`` and ``scalers``.

    ===========================  ==================================================================
    ``variant_names``            names of the values of ``variant``
    ``variant_families``         family of each variant, in the order of ``variant_names``
    ``family_names``             names of the values of ``family``
    ``update_policy_names``      names of the values of ``update_policy``
    ``normalization_names``      names of the values of ``normalization``
    ``feature_names``            names of the F columns of ``features``; custom features are last
    ``initial_feature_names``    names of the F' columns of ``initial_features``
    ``dynamics_names``           names of the D columns of ``dynamics``; empty without dynamics
    ``parameter_axes``           names of the columns of ``params``
    ``parameter_space``          map between the coordinates ``params`` and parameter values
    ``num_features``             number F of columns of ``features``
    ``num_initial_features``     number F' of columns of ``initial_features``
    ``num_timesteps``            number T of timesteps of a trajectory
    ``num_variants``             number V of variants of initial conditions
    ``scalers``                  scaler of each scaled entry of a batch; available after `setup`
    ``invariant``                selection of the columns of ``features``, or None; available after
                                 `setup`, like the names and the number of the selected columns
    ``settings``                 settings that a checkpoint and the data must agree on
    ===========================  ==================================================================

    Args:
        generation: Configuration of the dataset.
        batch_size: Number of samples in a batch.
        loader: Options of the data loaders.
        sampling_seed: Seed of the order of training samples; default: the seed of
            ``seed_everything``, or 0.
        allow_transfer: Whether to accept a checkpoint of another dataset or of other settings.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    # A running executor is no setting of the data.
    unstored_arguments: ClassVar[tuple[str, ...]] = ("executor",)

    def __init__(
        self,
        generation: GenerationConfig | Mapping[str, Any],
        batch_size: int = 256,
        loader: LoaderOptions | Mapping[str, object] = DEFAULT_LOADER,
        sampling_seed: int | None = None,
        allow_transfer: bool = False,
    ) -> None:
        super().__init__()
        require_at_least({"batch_size": batch_size}, 1)
        require_at_least({"sampling_seed": sampling_seed}, 0)
        # A checkpoint holds the configuration and the options of loaders as dictionaries.
        if not isinstance(generation, GenerationConfig):
            generation = StoredConfig.from_dict(generation)
        self.generation = generation
        self.label_names = names = LabelNames.of(generation)
        self.variant_names, self.family_names = names.variants, names.families
        self.variant_families = names.family_of_variant
        self.update_policy_names = names.update_policies
        self.normalization_names = names.normalizations
        self.parameter_space = generation.space
        self.parameter_axes = generation.space.names
        self.dynamics_names = dynamics_names(generation)
        self.num_variants = len(names.variants)
        self.num_timesteps = generation.num_timesteps
        self.batch_size = self._given_batch_size = batch_size
        if not isinstance(loader, LoaderOptions):
            loader = structured(LoaderOptions, loader, "loader")
        self.loader = loader
        self.sampling_seed = sampling_seed
        self.allow_transfer = allow_transfer
        self.scalers: dict[str, FeatureScaler] = {}
        self.invariant: InvariantColumns | None = None
        self.settings: dict[str, object] = {}
        # Why `setup` could not prepare the samples.
        self._failure: SpinlockError | None = None
        # Scalers and selected columns from before those of a loaded model were adopted.
        self._own: FittedScaling | None = None

    @property
    def feature_scaler(self) -> FeatureScaler:
        """Scaler of ``features``; available after `setup`."""
        return self._scaler("features")

    @property
    def initial_feature_scaler(self) -> FeatureScaler:
        """Scaler of ``initial_features``; available after `setup`."""
        return self._scaler("initial_features")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of ``features``."""
        return self.column_names("features")

    @property
    def initial_feature_names(self) -> tuple[str, ...]:
        """Names of the columns of ``initial_features``."""
        return self.column_names("initial_features")

    @property
    def num_features(self) -> int:
        """Number F of columns of ``features``."""
        return len(self.feature_names)

    @property
    def num_initial_features(self) -> int:
        """Number F' of columns of ``initial_features``."""
        return len(self.initial_feature_names)

    @property
    def selects_columns(self) -> bool:
        """Whether the columns of ``features`` are selected by the training samples."""
        return False

    def candidate_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch, before a selection."""
        return self.dynamics_names if key == "dynamics" else feature_names(self.generation)

    def column_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch.

        Raises:
            ConfigurationError: If columns are to be selected and `setup` was not called yet.
        """
        if key != "features" or not self.selects_columns:
            return self.candidate_names(key)
        if self.invariant is None:
            raise ConfigurationError(
                "the columns of features are selected by the training samples (selection: "
                "invariant), so their names and number are known after setup()"
            )
        return self.invariant.selected

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores: identity, settings, scalers and their columns."""
        selection = {} if self.invariant is None else {"invariant": self.invariant.state_dict()}
        return {
            "fingerprint": self.generation.fingerprint,
            "configuration": self.generation.to_json(),
            "settings": self.settings,
            "scalers": {key: scaler.state_dict() for key, scaler in self.scalers.items()},
            "columns": {key: list(self.column_names(key)) for key in self.scalers},
            **selection,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Adopt the scaling and the selected columns of a checkpoint.

        Args:
            state_dict: State in a checkpoint. Its author is not trusted.

        Raises:
            DatasetError: If it is not a state as `state_dict` returns it; if the dataset or the
                settings differ, unless ``allow_transfer`` is set; or if it scales or selects other
                columns. If it scales other dynamics, batches have no ``dynamics``.
        """
        restored = restored_scaling(
            state_dict,
            self.generation,
            None if self.allow_transfer else self.settings,
            self.candidate_names,
            selects_columns=self.selects_columns,
        )
        before, same = (self.scalers, self.invariant), self._is_scaled_by(restored)
        self._scale_by(restored)
        if state_dict is self._state_of_model():
            self._own = self._own or before
        elif not same:
            self._own = None
        self._failure = None

    def _state_of_model(self) -> Any:  # noqa: ANN401 (a checkpoint's)
        """Return the state in the checkpoint that the trainer's model was loaded from, or None."""
        model = None if self.trainer is None else self.trainer.lightning_module
        return getattr(model, "data_state", None)

    def _adopt(self) -> bool:
        """Scale the data as for the trainer's model, or as before if it comes from no checkpoint.

        Returns:
            Whether that did not fail. A failure is raised by the loaders: the trainer may be about
            to load another checkpoint.
        """
        self._failure = None
        state = self._state_of_model()
        try:
            if state is not None:
                self.load_state_dict(state)
            elif self._own is not None:
                self._scale_by(self._own)
                self._own = None
        except SpinlockError as error:
            self._failure = error
        return self._failure is None

    def _is_scaled_by(self, fitted: FittedScaling) -> bool:
        """Whether scalers and selected columns are those of this data module."""
        here, there = (
            {key: scaler.state_dict() for key, scaler in scalers.items()}
            for scalers in (self.scalers, fitted[0])
        )
        return here == there and self.invariant == fitted[1]

    def _scale_by(self, fitted: FittedScaling) -> None:
        """Scale and select columns in another way; `setup` fits scalers if there are none."""
        self.scalers, self.invariant = fitted

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (Lightning's)
        """Make the data module whose arguments a checkpoint holds; see Lightning's method.

        The arguments are data: a class that the checkpoint names is not imported.
        """
        kwargs.setdefault("weights_only", True)
        check_checksums(args[0] if args else kwargs.get("checkpoint_path"))
        # Otherwise Lightning's command line parser would instantiate what the checkpoint names.
        return super().load_from_checkpoint(*args, **kwargs, _instantiator=None)

    def _scaler(self, key: str) -> FeatureScaler:
        if key not in self.scalers:
            raise ConfigurationError(
                f"no scaler of {key}; call setup() and use a view with features"
            )
        return self.scalers[key]

    @property
    def _sampling_seed(self) -> int:
        if self.sampling_seed is not None:
            return self.sampling_seed
        # The variable in which seed_everything stores its seed; Lightning's samplers read it too.
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    def _limit_batch_size(self, samples: int, splits: object) -> None:
        """Refuse a batch larger than the training split; one that was set later is lowered."""
        if self.batch_size <= samples:
            return
        if self.batch_size == self._given_batch_size:
            raise ConfigurationError(
                f"batch_size: {self.batch_size} is larger than the training split; there are "
                f"{splits} samples. Lower batch_size or generate more samples"
            )
        # Lightning's tuner doubles the batch size until a batch fails or is the whole split.
        rank_zero_warn(f"batch_size: {self.batch_size} is lowered to the training split, {samples}")
        self.batch_size = samples
        if "batch_size" in self.hparams:
            self.hparams["batch_size"] = samples

    def _loader(self, dataset: FeatureDataset, batch_size: int) -> DataLoader[Batch]:
        """Return a loader of a dataset in its order."""
        return DataLoader(dataset, batch_size=batch_size, **self.loader.arguments)

    def _training_loader(
        self,
        dataset: FeatureDataset | BatchDataset,
        batch_size: int,
        stamp_epoch: bool,
        classes: NDArray[np.int64] | None = None,
    ) -> TrainingLoader:
        """Return a loader of a dataset in random order that can be resumed."""
        sampler = EpochSampler(
            len(dataset),
            seed=self._sampling_seed,
            classes=classes,
            epoch=0 if self.trainer is None else self.trainer.current_epoch,
            stamp_epoch=stamp_epoch,
        )
        options = self.loader.arguments | {"sampler": sampler, "trainer": self.trainer}
        return TrainingLoader(dataset, batch_size=batch_size, **options)
