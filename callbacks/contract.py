"""The contract between data, models and callbacks: what a batch and a step's output hold.

A callback knows neither the data module nor the model it meets. It relies on this:

- a *batch* is a dict with the entries of :data:`BATCH`, of which it asks for those it needs;
- ``validation_step`` and ``test_step`` return a dict with the entries of :data:`OUTPUTS`, likewise;
- the model may have ``codebook_size: int``; without it the callback takes the largest token met;
- the data module may have ``ic_names``, ``family_names`` and ``feature_names``: the names that
  ``ic_type``, ``ic_family`` and the columns of ``features`` index. Without them, or with plain data
  loaders, things are numbered.

Dimensions: B samples in the batch, F features (46 per timestep), P parameter axes (15).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lightning.pytorch import Trainer
from torch import Tensor

from spinlock.errors import SpinlockError

__all__ = [
    "BATCH",
    "FEATURE_COLUMNS",
    "OUTPUTS",
    "ContractError",
    "from_batch",
    "from_outputs",
    "known_names",
    "numbered_name",
]

BATCH: Mapping[str, str] = MappingProxyType(
    {
        "features": "[B, F] float32, features of the evolved field, scaled",
        "initial_features": "[B, F] float32, the same features of the initial condition, scaled",
        "ic_type": "[B] int64, the initial condition's variant",
        "ic_family": "[B] int64, the initial condition's family",
        "params": "[B, P] float32, the operator's parameters in the unit cube",
        "operator": "[B] int64, the operator's number",
        "index": "[B] int64, the sample's index in the dataset",
    }
)

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "scalar float32",
        "tokens": "[B] int64, the codebook index of each sample",
        "reconstruction": "[B, F] float32, decoded features, in the scale of batch['features']",
        "latent": "[B, D] float32, the encoder's output before quantization",
    }
)

FEATURE_COLUMNS = frozenset({"features", "initial_features", "reconstruction"})
"""Entries whose columns are the features that the data module's ``feature_names`` name."""


class ContractError(SpinlockError, ValueError):
    """A batch or a step's output lacks what a callback or a model needs of it."""


def from_batch(batch: object, key: str, *, needed_by: str) -> Tensor:
    """The tensor that a batch holds under a key.

    Args:
        batch: What the data loader gave.
        key: One of :data:`BATCH`.
        needed_by: Name of the callback or model that asks, for the message.

    Raises:
        ContractError: The batch is no dict, or has no tensor there.
    """
    need = f"{needed_by} needs batch[{key!r}] ({BATCH[key]})"
    return _entry(batch, key, need, "the batch", "Have the dataset return a dict with that entry")


def from_outputs(outputs: object, key: str, *, needed_by: str, given_by: str) -> Tensor:
    """The tensor that a validation or test step returned under a key.

    Args:
        outputs: What the step returned.
        key: One of :data:`OUTPUTS`.
        needed_by: Name of the callback that asks, for the message.
        given_by: Name of the model's class.

    Raises:
        ContractError: The output is no dict, or has no tensor there.
    """
    need = f"{needed_by} needs outputs[{key!r}] ({OUTPUTS[key]})"
    step = f"{given_by}'s validation_step or test_step"
    return _entry(outputs, key, need, f"the output of {step}", f"Return it from {step}")


def known_names(trainer: Trainer, attribute: str) -> tuple[str, ...] | None:
    """The names that the data module has for something, None where it has none.

    Args:
        trainer: With or without a data module.
        attribute: ``ic_names``, ``family_names`` or ``feature_names``.
    """
    # Trainer.datamodule is there at runtime, set when data are attached, but it is not declared.
    names: Sequence[str] | None = getattr(getattr(trainer, "datamodule", None), attribute, None)
    return None if names is None else tuple(names)


def numbered_name(names: tuple[str, ...] | None, number: int, kind: str) -> str:
    """``names[number]``, or for example ``"variant 3"`` where there is no such name."""
    return names[number] if names and 0 <= number < len(names) else f"{kind} {number}"


def _entry(holder: object, key: str, need: str, whose: str, remedy: str) -> Tensor:
    if not isinstance(holder, Mapping):
        raise ContractError(f"{need}, but {whose} is of type {type(holder).__name__}. {remedy}.")
    if key not in holder:
        keys = ", ".join(repr(k) for k in holder) or "none"
        raise ContractError(f"{need}, but {whose} has the keys: {keys}. {remedy}.")
    value = holder[key]
    if not isinstance(value, Tensor):
        raise ContractError(f"{need}, but {whose} has a {type(value).__name__} there. {remedy}.")
    return value
