"""The contract between data, models and callbacks: what a batch and a step's output hold.

A callback knows neither the data module nor the model it meets. It relies on this:

- a *batch* is a dict with the entries of :data:`BATCH`, of which it asks for those it needs;
- ``validation_step`` and ``test_step`` return a dict with the entries of :data:`OUTPUTS`, likewise;
- the model may have ``codebook_size: int`` (of each level); without it the callback takes the
  largest token met;
- the model may have ``decode(tokens, batch) -> [B, F]``, the features that it reconstructs from
  tokens ``[B]`` or ``[B, Q]`` under the initial conditions of `batch` (its ``initial_features`` and
  ``variant``); only ``OperatorConsistency`` needs it;
- the data module may have ``variant_names``, ``family_names``, ``update_policy_names``,
  ``normalization_names``, ``feature_names`` and ``parameter_axes``: the names that ``variant``,
  ``family``, ``update_policy``, ``normalization`` and the columns of ``features`` and ``params`` index.
  Without them, or with plain data loaders, things are numbered. Its ``parameter_space`` tells which
  axes are continuous.

Dimensions: B samples in the batch, F features (46 per timestep), T timesteps, P parameter axes
(15), Q levels of a residual or grouped codebook, D latent dimensions.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
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
    "known_property",
    "numbered_name",
    "target_of",
    "tokens_of",
]

BATCH: Mapping[str, str] = MappingProxyType(
    {
        "features": "[B, F] or [B, T, F] float32, features of the evolved field, scaled",
        "initial_features": "[B, F] float32, the same features of the initial condition, scaled",
        "variant": "[B] int64, the initial condition's variant",
        "family": "[B] int64, the initial condition's family",
        "update_policy": "[B] int64, the operator's update policy",
        "normalization": "[B] int64, the operator's normalization",
        "params": "[B, P] float32, the operator's parameters in the unit cube",
        "parameter_count": "[B] int64, the operator's number of weights",
        "operator": "[B] int64, the operator's number",
        "index": "[B] int64, the sample's index in the dataset",
        "other_features": "[B, F] float32, features of the same operator under another probe",
        "other_initial_features": "[B, F] float32, those of that probe's initial condition",
        "other_variant": "[B] int64, that probe's variant",
        "other_family": "[B] int64, that probe's family",
        "other_index": "[B] int64, that sample's index",
        "input_fields": "[B, C, H, W] float32, the initial condition",
        "output_fields": "[B, M, (T,) C, H, W] float32, the realizations of the evolved field",
    }
)

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "scalar float32",
        "tokens": "[B] or [B, Q] int64, the codebook index of each sample",
        "reconstruction": "[B, F] float32, decoded features, in the scale of batch['features']",
        "latent": "[B, D] float32, the encoder's output before quantization",
        "token_sequence": "[B, T] int64, the codebook index of each timestep",
    }
)

FEATURE_COLUMNS = frozenset(
    {
        "features",
        "initial_features",
        "other_features",
        "other_initial_features",
        "reconstruction",
    }
)
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


def tokens_of(outputs: object, *, needed_by: str, given_by: str) -> Tensor:
    """The tokens that a validation or test step returned, ``[B, Q]`` int64; Q = 1 of ``[B]``.

    Args:
        outputs: What the step returned.
        needed_by: Name of the callback that asks, for the message.
        given_by: Name of the model's class.

    Raises:
        ContractError: There are none, or they are of another shape or type.
    """
    tokens = from_outputs(outputs, "tokens", needed_by=needed_by, given_by=given_by)
    integers = (
        not (tokens.is_floating_point() or tokens.is_complex()) and tokens.dtype != torch.bool
    )
    if tokens.ndim not in (1, 2) or not integers:
        raise ContractError(
            f"{needed_by} needs outputs['tokens'] ({OUTPUTS['tokens']}), but {given_by} gave "
            f"{list(tokens.shape)} {tokens.dtype}"
        )
    return tokens if tokens.ndim == 2 else tokens[:, None]


def target_of(batch: object, reconstruction: Tensor, *, needed_by: str) -> Tensor:
    """The features that a reconstruction is of: of a sequence ``[B, T, F]`` the last timestep's.

    Args:
        batch: With ``features``.
        reconstruction: ``[B, F]``, or of the features' shape.
        needed_by: Name of the callback that asks, for the message.

    Raises:
        ContractError: There are no features, or they are of another shape.
    """
    features = from_batch(batch, "features", needed_by=needed_by)
    if features.ndim == 3 and reconstruction.ndim == 2:
        features = features[:, -1]
    if features.shape != reconstruction.shape:
        shapes = f"{list(reconstruction.shape)} and {list(features.shape)}"
        raise ContractError(f"{needed_by}: reconstruction and features are of shapes {shapes}")
    return features


def known_property(trainer: Trainer, attribute: str) -> Any:  # noqa: ANN401 (whatever it holds)
    """What the data module has under a name, None where it has nothing or there is none."""
    # Trainer.datamodule is there at runtime, set when data are attached, but it is not declared.
    return getattr(getattr(trainer, "datamodule", None), attribute, None)


def known_names(trainer: Trainer, attribute: str) -> tuple[str, ...] | None:
    """The names that the data module has for something, None where it has none.

    Args:
        trainer: With or without a data module.
        attribute: For example ``variant_names``.
    """
    names: Sequence[str] | None = known_property(trainer, attribute)
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
