"""What a checkpoint keeps of a data module, and whether it fits another one."""

import os
from dataclasses import asdict, is_dataclass
from typing import Any

from spinlock.config import GenerationConfig
from spinlock.datamodules.scaling import FeatureScaler
from spinlock.errors import DatasetError
from spinlock.storage.layout import explain_difference


def primitive(value: Any) -> Any:  # noqa: ANN401 (any argument)
    """An argument as checkpoints can hold it: a path as text, a configuration as dictionaries."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
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

    Raises:
        DatasetError: Naming what differs and what to do.
    """
    remedy = (
        "Use the data that the model was trained on, or set allow_transfer=True: the checkpoint's "
        "scaling is then applied to these data, and nothing keeps samples that the model was "
        "trained on out of the validation and test splits"
    )
    if state["fingerprint"] != config.fingerprint:
        trained_on = GenerationConfig.from_json(state["configuration"])
        raise DatasetError(
            f"the checkpoint was trained on another dataset (fingerprint "
            f"{state['fingerprint'][:12]}) than {path} ({config.fingerprint[:12]}): "
            f"{explain_difference(trained_on, config)}. {remedy}"
        )
    theirs = state["settings"]
    differing = [name for name, value in settings.items() if theirs.get(name) != value]
    if differing:
        told = "; ".join(
            f"{name}: {theirs.get(name)!r} there, {settings[name]!r} here" for name in differing
        )
        raise DatasetError(f"the checkpoint was trained with other data settings: {told}. {remedy}")


def restore_scalers(state: dict[str, Any], num_features: int) -> dict[str, FeatureScaler] | None:
    """The scalers of a checkpoint; None if it has none, since its view had no features.

    Raises:
        DatasetError: If they are for another number of columns.
    """
    scalers = {key: FeatureScaler.from_state_dict(of) for key, of in state["scalers"].items()}
    for key, scaler in scalers.items():
        if len(scaler.center) != num_features:
            raise DatasetError(
                f"the checkpoint scales {len(scaler.center)} columns of {key}, the dataset has "
                f"{num_features}: it was made with another feature set"
            )
    return scalers or None
