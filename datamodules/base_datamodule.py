"""Base class of the data modules: names and sizes of the dataset, loaders, checkpoint state."""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from spinlock.configuration.config_difference import explain_difference
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.plain_data import plain
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.validation import check_arguments, require_at_least, structured
from spinlock.datamodules.datasets import Batch, BatchDataset, FeatureDataset
from spinlock.datamodules.labels import LabelNames, feature_names
from spinlock.datamodules.loading import EpochSampler, LoaderOptions
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.datamodules.training_loader import TrainingLoader
from spinlock.errors import ConfigurationError, DatasetError

DEFAULT_LOADER = LoaderOptions()

_REMEDY = (
    "Use the data that the model was trained on, or set allow_transfer=True: the checkpoint's "
    "scaling is then applied to these data, and samples that the model was trained on may occur in "
    "the validation and test splits"
)


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
    ``feature_names``            names of the F columns of ``features`` and ``initial_features``;
                                 custom features are last
    ``parameter_axes``           names of the 15 columns of ``params``
    ``parameter_space``          map between the coordinates ``params`` and parameter values
    ``num_features``             number F of feature columns
    ``num_timesteps``            number T of timesteps of a trajectory
    ``num_variants``             number V of variants of initial conditions
    ``scalers``                  scaler of each scaled entry of a batch; available after `setup`
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
        self.feature_names = feature_names(generation)
        self.parameter_space = generation.space
        self.parameter_axes = generation.space.names
        self.num_features, self.num_variants = len(self.feature_names), len(names.variants)
        self.num_timesteps = generation.num_timesteps
        self.batch_size = batch_size
        if not isinstance(loader, LoaderOptions):
            loader = structured(LoaderOptions, loader, "loader")
        self.loader = loader
        self.sampling_seed = sampling_seed
        self.allow_transfer = allow_transfer
        self.scalers: dict[str, FeatureScaler] = {}
        self.settings: dict[str, object] = {}

    @property
    def feature_scaler(self) -> FeatureScaler:
        """Scaler of ``features``; available after `setup`."""
        return self._scaler("features")

    @property
    def initial_feature_scaler(self) -> FeatureScaler:
        """Scaler of ``initial_features``; available after `setup`."""
        return self._scaler("initial_features")

    def column_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch."""
        return self.feature_names

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores: identity of the dataset, settings and scalers."""
        return {
            "fingerprint": self.generation.fingerprint,
            "configuration": self.generation.to_json(),
            "settings": self.settings,
            "scalers": {key: scaler.state_dict() for key, scaler in self.scalers.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Adopt the scaling of a checkpoint.

        Args:
            state_dict: State in a checkpoint. Its author is not trusted.

        Raises:
            DatasetError: If it is not a state as `state_dict` returns it; if the dataset or the
                settings differ, unless ``allow_transfer`` is set; or if it scales other columns.
        """
        try:
            state = structured(_State, state_dict)
            scalers = {
                key: FeatureScaler.from_state_dict(stored) for key, stored in state.scalers.items()
            }
            if not self.allow_transfer:
                self._check_state(state)
        except ConfigurationError as error:
            raise DatasetError(
                f"the checkpoint's state of the data module is not valid: {error}"
            ) from error
        for key, scaler in scalers.items():
            found, expected = len(scaler.center), len(self.column_names(key))
            if found != expected:
                raise DatasetError(
                    f"the checkpoint scales {found} columns of {key}, the dataset has {expected}: "
                    "it was made with another feature set"
                )
        self.scalers = scalers

    def _check_state(self, state: "_State") -> None:
        """Raise `DatasetError` if the dataset or a setting differs."""
        config, found = self.generation, state.fingerprint
        if found != config.fingerprint:
            difference = explain_difference(StoredConfig.from_json(state.configuration), config)
            raise DatasetError(
                f"the checkpoint was trained on another dataset (fingerprint {found[:12]}, these "
                f"data have {config.fingerprint[:12]}): {difference}. {_REMEDY}"
            )
        differing = "; ".join(
            f"{name}: {state.settings.get(name)!r} there, {value!r} here"
            for name, value in self.settings.items()
            if state.settings.get(name) != value
        )
        if differing:
            raise DatasetError(
                f"the checkpoint was trained with other data settings: {differing}. {_REMEDY}"
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


def stored_arguments(kind: type[BaseDataModule], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a data module as plain data, which checkpoints store.

    Args:
        kind: Class whose constructor takes the arguments.
        values: Arguments by name, such as the local variables of the constructor; other names are
            ignored.

    Returns:
        All arguments except ``executor``, so that checkpoints load with ``weights_only=True``.

    Raises:
        ConfigurationError: If the arguments come from a checkpoint, and one has another type than
            its annotation. Names the argument.
    """
    given = {name: values[name] for name in inspect.signature(kind).parameters}
    if not isinstance(given["generation"], GenerationConfig):
        # The arguments come from a checkpoint, whose author is not trusted.
        check_arguments(kind.__init__, given)
    return {name: plain(value) for name, value in given.items() if name != "executor"}


@dataclass(frozen=True)
class _State:
    """State of a data module in a checkpoint."""

    fingerprint: str
    configuration: str
    settings: dict[str, Any]
    scalers: dict[str, Any]
