"""What a checkpoint keeps of a data module, and whether it fits another one."""

import json
import os
from dataclasses import asdict, is_dataclass
from typing import Any

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.storage.layout import explain_difference


def primitive(value: Any) -> Any:  # noqa: ANN401 (any argument)
    """An argument as checkpoints can hold it: a path as text, a configuration as dictionaries."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, GenerationConfig):
        return json.loads(value.to_json())
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def make_state(
    config: GenerationConfig, settings: dict[str, object], scalers: dict[str, FeatureScaler]
) -> dict[str, Any]:
    """What a checkpoint keeps: primitives only.

    Args:
        config: The dataset.
        settings: What else must agree: name -> primitive.
        scalers: Entry of a batch -> its scaling.
    """
    return {
        "fingerprint": config.fingerprint,
        "configuration": config.to_json(),
        "settings": settings,
        "scalers": {key: scaler.state_dict() for key, scaler in scalers.items()},
    }


def check_state(
    state: dict[str, Any], config: GenerationConfig, settings: dict[str, object], path: object
) -> None:
    """Refuse the state of another dataset, another split or another scaling.

    Args:
        state: State of a checkpoint, in any form: a stranger may have written it.
        config: Dataset of the data module.
        settings: Further settings that must agree: name -> primitive.
        path: Dataset file, for messages.

    Raises:
        DatasetError: If it is not a state as `make_state` makes it, or differs; names what differs
            and what to do.
    """
    remedy = (
        "Use the data that the model was trained on, or set allow_transfer=True: the checkpoint's "
        "scaling is then applied to these data, and nothing keeps samples that the model was "
        "trained on out of the validation and test splits"
    )
    fingerprint = str(_entry(state, "fingerprint", str))
    if fingerprint != config.fingerprint:
        try:
            trained_on = StoredConfig.from_json(_entry(state, "configuration", str))
        except ConfigurationError as error:
            raise DatasetError(f"the checkpoint's configuration is not valid: {error}") from error
        raise DatasetError(
            f"the checkpoint was trained on another dataset (fingerprint {fingerprint[:12]}) than "
            f"{path} ({config.fingerprint[:12]}): {explain_difference(trained_on, config)}. "
            f"{remedy}"
        )
    theirs = _entry(state, "settings", dict)
    differing = [name for name, value in settings.items() if not _equal(theirs.get(name), value)]
    if differing:
        told = "; ".join(
            f"{name}: {theirs.get(name)!r} there, {settings[name]!r} here" for name in differing
        )
        raise DatasetError(f"the checkpoint was trained with other data settings: {told}. {remedy}")


def restore_scalers(state: dict[str, Any], num_features: int) -> dict[str, FeatureScaler] | None:
    """The scalers of a checkpoint; None if it has none, since its view had no features.

    Raises:
        DatasetError: If they are not scalers, or for another number of columns.
    """
    try:
        scalers = {
            key: FeatureScaler.from_state_dict(held)
            for key, held in _entry(state, "scalers", dict).items()
        }
    except ConfigurationError as error:
        raise DatasetError(f"the checkpoint's scaling is not valid: {error}") from error
    for key, scaler in scalers.items():
        if len(scaler.center) != num_features:
            raise DatasetError(
                f"the checkpoint scales {len(scaler.center)} columns of {key}, the dataset has "
                f"{num_features}: it was made with another feature set"
            )
    return scalers or None


def _equal(one: object, two: object) -> bool:
    """Whether two primitives are equal; a tensor, say, equals none."""
    return type(one) is type(two) and bool(one == two)


def _entry(state: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 (any of a state)
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, kind):
        raise DatasetError(
            f"the checkpoint's state of the data module is not valid: {name} must be of type "
            f"{kind.__name__}, got {type(value).__name__}"
        )
    return value
