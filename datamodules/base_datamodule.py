"""Base class of the data modules: names and sizes of the dataset, loaders, checkpoint state."""

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.validation import require_at_least, structured
from spinlock.datamodules.checkpoint_state import CheckpointState
from spinlock.datamodules.datasets import Batch, BatchDataset, FeatureDataset
from spinlock.datamodules.invariant_columns import InvariantColumns
from spinlock.datamodules.labels import LabelNames, feature_names
from spinlock.datamodules.loading import EpochSampler, LoaderOptions
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.training_loader import TrainingLoader
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.simulation.dynamics_rows import dynamics_names

DEFAULT_LOADER = LoaderOptions()


class BaseDataModule(LightningDataModule):
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
        self.batch_size = batch_size
        if not isinstance(loader, LoaderOptions):
            loader = structured(LoaderOptions, loader, "loader")
        self.loader = loader
        self.sampling_seed = sampling_seed
        self.allow_transfer = allow_transfer
        self.scalers: dict[str, FeatureScaler] = {}
        self.invariant: InvariantColumns | None = None
        self.settings: dict[str, object] = {}
        # Why `setup` could not prepare the samples.
        self._failure: ConfigurationError | None = None

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
        """Return what a checkpoint stores: identity, settings, scalers and selected columns."""
        selection = {} if self.invariant is None else {"invariant": self.invariant.state_dict()}
        return {
            "fingerprint": self.generation.fingerprint,
            "configuration": self.generation.to_json(),
            "settings": self.settings,
            "scalers": {key: scaler.state_dict() for key, scaler in self.scalers.items()},
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
        try:
            state = structured(CheckpointState, state_dict)
            scalers = {
                key: FeatureScaler.from_state_dict(stored) for key, stored in state.scalers.items()
            }
            stored = state.invariant
            invariant = None if stored is None else InvariantColumns.from_state_dict(stored)
            if not self.allow_transfer:
                state.check(self.generation, self.settings)
        except ConfigurationError as error:
            raise DatasetError(
                f"the checkpoint's state of the data module is not valid: {error}"
            ) from error
        self._check_columns(scalers, invariant)
        dynamics = scalers.get("dynamics")
        # Only training needs dynamics, so batches have none if the checkpoint scales others. The
        # state has no names of columns; files with equally many columns have the same ones.
        if dynamics and len(dynamics.center) != len(self.candidate_names("dynamics")):
            del scalers["dynamics"]
        self.scalers, self.invariant = scalers, invariant

    def _check_columns(
        self, scalers: Mapping[str, FeatureScaler], invariant: InvariantColumns | None
    ) -> None:
        """Raise `DatasetError` if a checkpoint scales or selects other columns than there are."""
        given = None if invariant is None else invariant.names
        expected = self.candidate_names("features") if self.selects_columns else None
        if given != expected:
            there, here = (
                "no columns" if names is None else f"from {len(names)} columns"
                for names in (given, expected)
            )
            raise DatasetError(
                f"the checkpoint selects {there}, and this data module {here}: it was made with "
                "another view or feature set"
            )
        for key, scaler in scalers.items():
            if key == "dynamics":
                continue  # Others are left out of the batches.
            names = self.candidate_names(key)
            if invariant is not None and key == "features":
                names = invariant.selected
            if len(scaler.center) != len(names):
                raise DatasetError(
                    f"the checkpoint scales {len(scaler.center)} columns of {key}, the dataset has "
                    f"{len(names)}: it was made with another feature set"
                )

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 (Lightning's)
        """Make the data module whose arguments a checkpoint holds; see Lightning's method.

        The arguments are data: a class that the checkpoint names is not imported.
        """
        kwargs.setdefault("weights_only", True)
        # Otherwise Lightning's command line parser would instantiate what the checkpoint names.
        return super().load_from_checkpoint(*args, **kwargs, _instantiator=None)

    def _scaler(self, key: str) -> FeatureScaler:
        if key not in self.scalers:
            raise ConfigurationError(
                f"the data module has no scaler of {key}; call setup() and use a view with features"
            )
        return self.scalers[key]

    @property
    def _sampling_seed(self) -> int:
        if self.sampling_seed is not None:
            return self.sampling_seed
        # The variable in which seed_everything stores its seed; Lightning's samplers read it too.
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

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
