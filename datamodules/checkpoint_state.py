"""What a checkpoint stores of a data module: its state and its arguments."""

import inspect
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spinlock.configuration.config_difference import explain_difference
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.plain_data import plain
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.validation import check_arguments, structured
from spinlock.datamodules.invariant_columns import InvariantColumns
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.errors import ConfigurationError, DatasetError

_REMEDY = (
    "Use the data that the model was trained on, or set allow_transfer=True: the checkpoint's "
    "scaling is then applied to these data, and samples that the model was trained on may occur in "
    "the validation and test splits. For a loaded model, model.data_state = None scales the data "
    "anew, by their own training samples"
)

FittedScaling = tuple[dict[str, FeatureScaler], InvariantColumns | None]
"""Scaler of each scaled entry of a batch, and the selection of the columns of ``features``."""


@dataclass(frozen=True)
class CheckpointState:
    """State of a data module in a checkpoint.

    Args:
        fingerprint: Fingerprint of the dataset.
        configuration: Configuration of the dataset, JSON.
        settings: Settings of the data module.
        scalers: State of the scaler of each scaled entry of a batch.
        columns: Names of the columns of each scaled entry.
        invariant: State of the selection of columns, if there is one.
    """

    fingerprint: str
    configuration: str
    settings: dict[str, Any]
    scalers: dict[str, Any]
    columns: dict[str, tuple[str, ...]]
    invariant: dict[str, Any] | None = None

    def check(self, config: GenerationConfig, settings: Mapping[str, object]) -> None:
        """Check that the checkpoint belongs to a dataset and to settings.

        Args:
            config: Configuration of the dataset.
            settings: Settings of the data module.

        Raises:
            DatasetError: If the dataset or a setting differs. Names the difference.
        """
        found = self.fingerprint
        if found != config.fingerprint:
            difference = explain_difference(StoredConfig.from_json(self.configuration), config)
            raise DatasetError(
                f"the checkpoint was trained on another dataset (fingerprint {found[:12]}, these "
                f"data have {config.fingerprint[:12]}): {difference}. {_REMEDY}"
            )
        differing = "; ".join(
            f"{name}: {reprlib.repr(self.settings.get(name))} there, {settings.get(name)!r} here"
            for name in {**settings, **self.settings}
            if self.settings.get(name) != settings.get(name)
        )
        if differing:
            raise DatasetError(
                f"the checkpoint was trained with other data settings: {differing}. {_REMEDY}"
            )

    def difference_of_columns(self, key: str, count: int, names: tuple[str, ...]) -> str:
        """Describe how the columns of a scaled entry differ from those of the data.

        Args:
            key: Entry of a batch.
            count: Number of columns that the scaler of the checkpoint has.
            names: Names of the columns of the data.

        Returns:
            Text for a message; empty if the columns are equal.
        """
        there = self.columns.get(key, ())
        if there != names:
            return _difference(there, names)
        return "" if count == len(names) else f"{count} there, {len(names)} here"


def _difference(there: tuple[str, ...], here: tuple[str, ...]) -> str:
    """Describe how names differ."""
    only = {"there": set(there) - set(here), "here": set(here) - set(there)}
    parts = [f"only {where}: {reprlib.repr(sorted(own))}" for where, own in only.items() if own]
    return ", ".join(parts) or "the same columns in another order"


def _check_selection(there: tuple[str, ...] | None, here: tuple[str, ...] | None) -> None:
    """Check that a checkpoint selects among the columns that the data have.

    Args:
        there: Names of the columns that the checkpoint selects from; None if it selects none.
        here: Names of the columns that the data module selects from, likewise.

    Raises:
        DatasetError: If they differ.
    """
    if there != here:
        given, expected = (
            "no columns" if names is None else f"from {len(names)} columns"
            for names in (there, here)
        )
        difference = _difference(there, here) if there and here else ""
        raise DatasetError(
            f"the checkpoint selects {given}, and this data module {expected}: it was made with "
            f"another view or feature set" + (f" ({difference})" if difference else "")
        )


def restored_scaling(
    state_dict: Mapping[str, Any],
    config: GenerationConfig,
    settings: Mapping[str, object] | None,
    candidate_names: Callable[[str], tuple[str, ...]],
    *,
    selects_columns: bool,
) -> FittedScaling:
    """Return the scalers and the selected columns in a checkpoint, after checking that they fit.

    Args:
        state_dict: State of a data module in a checkpoint. Its author is not trusted.
        config: Configuration of the dataset.
        settings: Settings of the data module; None accepts another dataset and other settings.
        candidate_names: Function that returns the names of the columns of a scaled entry of a
            batch, before a selection.
        selects_columns: Whether the data module selects columns of ``features``.

    Returns:
        Scaler of each scaled entry of a batch, and the selection. There is no scaler of dynamics if
        the checkpoint scales others than the data have: only training needs them.

    Raises:
        DatasetError: If it is not a state of a data module, or does not fit the data.
    """
    try:
        state = structured(CheckpointState, state_dict)
        scalers = {
            key: FeatureScaler.from_state_dict(stored) for key, stored in state.scalers.items()
        }
        stored = state.invariant
        invariant = None if stored is None else InvariantColumns.from_state_dict(stored)
        if settings is not None:
            state.check(config, settings)
    except ConfigurationError as error:
        raise DatasetError(
            f"the checkpoint's state of the data module is not valid: {error}"
        ) from error
    candidates = candidate_names("features") if selects_columns else None
    _check_selection(None if invariant is None else invariant.names, candidates)
    for key in list(scalers):
        names = candidate_names(key)
        if invariant is not None and key == "features":
            names = invariant.selected
        difference = state.difference_of_columns(key, len(scalers[key].center), names)
        if difference and key != "dynamics":
            raise DatasetError(
                f"the checkpoint scales other columns of {key} than the data have: "
                f"{difference}. Use the columns and the feature set of its training data"
            )
        if difference:
            del scalers[key]
    return scalers, invariant


def stored_arguments(kind: type[object], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a data module as plain data, which checkpoints store.

    Args:
        kind: Class whose constructor takes the arguments.
        values: Arguments by name, such as the local variables of the constructor; other names are
            ignored.

    Returns:
        All arguments, so that checkpoints load with ``weights_only=True``.

    Raises:
        ConfigurationError: If the arguments come from a checkpoint, and one has another type than
            its annotation. Names the argument.
    """
    given = {name: values[name] for name in inspect.signature(kind).parameters}
    if not isinstance(given["generation"], GenerationConfig):
        # The arguments come from a checkpoint, whose author is not trusted.
        check_arguments(kind.__init__, given)
    return {name: plain(value) for name, value in given.items()}
