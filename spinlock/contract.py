"""The contract between data, models and callbacks: entries of a batch and of a step's output.

A callback depends on neither the data module nor the model. It relies on this contract:

- A *batch* is a dict with entries of :data:`BATCH`. A callback asks for the entries it needs.
- ``validation_step`` and ``test_step`` return a dict with entries of :data:`OUTPUTS`.
- The model has the attributes of :data:`MODEL`, and the data module those of :data:`DATA`, that a
  callback needs.

A missing entry or attribute raises :class:`ContractError`, which names what to add. Nothing is
guessed.

Dimensions: B samples in the batch, F features (46 per timestep), T timesteps, A parameter axes
(15, and those of the operator family), Q levels of a residual or grouped codebook, D latent
dimensions, P probes of an operator (in the view ``probes``, whose rows are sets with one token).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from spinlock.errors import SpinlockError

__all__ = [
    "BATCH",
    "DATA",
    "FEATURE_COLUMNS",
    "MODEL",
    "OUTPUTS",
    "ContractError",
    "StepOutputs",
    "batch_entry",
    "data_attribute",
    "known_property",
    "model_attribute",
]

BATCH: Mapping[str, str] = MappingProxyType(
    {
        "features": "[B, F] or [B, T, F] float32, scaled features of the evolved field or the "
        "step; [B, P, F] in the view probes",
        "initial_features": "[B, F] float32, scaled features of the initial condition; [B, P, F] "
        "in the view probes",
        "variant": "[B] int64, the initial condition's variant; [B, P] in the view probes",
        "family": "[B] int64, the initial condition's family; [B, P] in the view probes",
        "update_policy": "[B] int64, the operator's update policy",
        "normalization": "[B] int64, the operator's normalization",
        "params": "[B, A] float32, the operator's parameters in the unit cube",
        "parameter_count": "[B] int64, the operator's number of weights",
        "dynamics": "[B, D] float32, scaled dynamics of the operator",
        "operator": "[B] int64, the operator's number",
        "index": "[B] int64, the sample's index in the dataset; [B, P] in the view probes",
        "other_features": "[B, F] float32, features of the same operator under another probe",
        "other_initial_features": "[B, F] float32, features of the other probe",
        "other_variant": "[B] int64, variant of the other probe",
        "other_family": "[B] int64, family of the other probe",
        "other_index": "[B] int64, index of the sample with the other probe",
        "input_fields": "[B, C, H, W] float32, the initial condition",
        "output_fields": "[B, M, (T,) C, H, W] float32, the realizations of the evolved field",
    }
)
"""Entries of a batch."""

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "scalar float32",
        "tokens": "[B] or [B, Q] int64, the codebook index of each sample",
        "reconstruction": "[B, F] float32, decoded features, in the scale of batch['features']",
        "latent": "[B, D] float32, the encoder's output before quantization",
        "dynamics": "[B, D] float32, decoded dynamics, in the scale of batch['dynamics']",
        "token_sequence": "[B, T] int64, the codebook index of each timestep",
    }
)
"""Entries of what ``validation_step`` and ``test_step`` return."""

MODEL: Mapping[str, str] = MappingProxyType(
    {
        "codebook_size": "int, the number of codes of each level",
        "quantize": "method quantize(latent) -> [B] or [B, Q]: tokens of latents [B, D]",
        "decode": "method decode(tokens, batch) -> [B, F]: features that tokens [B] or [B, Q] "
        "represent under the initial conditions of a batch (initial_features and variant)",
        "codes": "method codes(tokens) -> [B, D]: points of the latent space that tokens [B] or "
        "[B, Q] stand for",
    }
)
"""Attributes of a model."""

DATA: Mapping[str, str] = MappingProxyType(
    {
        "path": "path of the dataset file",
        "variant_names": "names that batch['variant'] indexes",
        "variant_families": "family name of each variant",
        "family_names": "names that batch['family'] indexes",
        "update_policy_names": "names that batch['update_policy'] indexes",
        "normalization_names": "names that batch['normalization'] indexes",
        "feature_names": "names of the columns of batch['features']",
        "initial_feature_names": "names of the columns of batch['initial_features']",
        "dynamics_names": "names of the columns of batch['dynamics']",
        "training_samples": "[n] int64, indices of the training samples, which may repeat",
        "parameter_space": "ParameterSpace that batch['params'] are points of",
    }
)
"""Attributes of a data module."""

FEATURE_COLUMNS = frozenset(
    {"features", "initial_features", "other_features", "other_initial_features", "reconstruction"}
)
"""Entries whose columns are named by the data module's ``feature_names`` or, for those of initial
features, by its ``initial_feature_names``."""


class ContractError(SpinlockError, ValueError):
    """A batch, a step's output, a model or a data module lacks something that is needed."""


@dataclass(frozen=True)
class StepOutputs:
    """A batch, what a model's step returned for it, and the callback that reads both.

    Args:
        batch: Batch from the data loader.
        outputs: Return value of the model's ``validation_step`` or ``test_step``.
        model: Class name of the model, for messages.
        reader: Class name of the callback that reads the entries, for messages.
        loader: Number of the data loader.

    Example:
        >>> import torch
        >>> from spinlock.contract import StepOutputs
        >>> batch = {"variant": torch.tensor([0, 2])}
        >>> step = StepOutputs(batch, {"tokens": torch.tensor([5, 7])}, "MyModel", "MyCallback")
        >>> step.tokens
        tensor([[5],
                [7]])
        >>> step.entry("variant")
        tensor([0, 2])
    """

    batch: object
    outputs: object
    model: str
    reader: str
    loader: int = 0

    def entry(self, key: str) -> Tensor:
        """Return an entry of the batch.

        Args:
            key: Key of :data:`BATCH`.

        Raises:
            ContractError: The batch is no dict or has no such tensor.
        """
        return batch_entry(self.batch, key, reader=self.reader)

    def output(self, key: str) -> Tensor:
        """Return an entry of the outputs.

        Args:
            key: Key of :data:`OUTPUTS`.

        Raises:
            ContractError: The outputs are no dict or have no such tensor.
        """
        need = f"{self.reader} needs outputs[{key!r}] ({OUTPUTS[key]})"
        step = f"{self.model}'s validation_step or test_step"
        return _entry(self.outputs, key, need, f"the output of {step}", f"Return it from {step}")

    def has_entry(self, key: str) -> bool:
        """Return whether the batch has a key."""
        return isinstance(self.batch, Mapping) and key in self.batch

    def has_output(self, key: str) -> bool:
        """Return whether the outputs have a key."""
        return isinstance(self.outputs, Mapping) and key in self.outputs

    def require_single_samples(self) -> None:
        """Raise ContractError if rows of the batch are sets of P probes: ``index`` is [B, P]."""
        if self.has_entry("index") and self.entry("index").ndim > 1:
            raise ContractError(
                f"{self.reader} scores single samples, but batch['index'] is "
                f"{list(self.entry('index').shape)}: each row of the batch is a set of probes, as "
                "in the view probes. Evaluate with a view that has one sample in each row, such as "
                "pairs, features or responses."
            )

    @property
    def tokens(self) -> Tensor:
        """Tokens ``[B, Q]`` of integer type; Q = 1 for tokens ``[B]``."""
        tokens = self.output("tokens")
        is_integer = not (tokens.is_floating_point() or tokens.is_complex())
        if tokens.ndim not in (1, 2) or not is_integer or tokens.dtype == torch.bool:
            raise ContractError(
                f"{self.reader} needs outputs['tokens'] ({OUTPUTS['tokens']}), but {self.model} "
                f"returned {list(tokens.shape)} {tokens.dtype}"
            )
        return tokens if tokens.ndim == 2 else tokens[:, None]

    @property
    def errors(self) -> Tensor:
        """Mean squared error ``[B]`` of each sample's reconstruction.

        If the features are a sequence ``[B, T, F]`` and the reconstruction is ``[B, F]``, it is
        compared with the last timestep. Sets of probes are refused.
        """
        self.require_single_samples()
        reconstruction, features = self.output("reconstruction").detach(), self.entry("features")
        if features.ndim == 3 and reconstruction.ndim == 2:
            features = features[:, -1]
        if features.shape != reconstruction.shape:
            shapes = f"{list(reconstruction.shape)} and {list(features.shape)}"
            raise ContractError(
                f"{self.reader}: outputs['reconstruction'] and batch['features'] must have equal "
                f"shapes, got {shapes}"
            )
        # One pass, without storing the squares.
        difference = (reconstruction - features).flatten(1)
        norms: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return norms.square() / difference.shape[1]


def batch_entry(batch: object, key: str, *, reader: str = "the model") -> Tensor:
    """Return an entry of a batch.

    Args:
        batch: Batch from the data loader.
        key: Key of :data:`BATCH`.
        reader: Name of what reads the entry, for the message.

    Raises:
        ContractError: The batch is no dict or has no such tensor.
    """
    need = f"{reader} needs batch[{key!r}] ({BATCH[key]})"
    return _entry(batch, key, need, "the batch", "Have the dataset return a dict with that entry")


def model_attribute(model: object, name: str, *, reader: str) -> Any:  # noqa: ANN401
    """Return an attribute of a model.

    Args:
        model: The model.
        name: Key of :data:`MODEL`.
        reader: Name of what reads the attribute, for the message.

    Raises:
        ContractError: The model has no such attribute.
    """
    found = getattr(model, name, None)
    if found is None:
        raise ContractError(
            f"{reader} needs the model's {name} ({MODEL[name]}), but {type(model).__name__} has "
            "none. Add it to the model."
        )
    return found


def data_attribute(trainer: object, name: str, *, reader: str) -> Any:  # noqa: ANN401
    """Return an attribute of a trainer's data module.

    Args:
        trainer: The trainer.
        name: Key of :data:`DATA`.
        reader: Name of what reads the attribute, for the message.

    Raises:
        ContractError: The trainer has no data module, or it has no such attribute.
    """
    found = known_property(trainer, name)
    if found is None:
        raise ContractError(
            f"{reader} needs the data module's {name} ({DATA[name]}), but there is none. Add it to "
            "the data module; if you pass data loaders to the trainer, wrap them in a "
            "LightningDataModule that has it."
        )
    return found


def known_property(trainer: object, attribute: str) -> Any:  # noqa: ANN401
    """Return an attribute of a trainer's data module, or None where there is none."""
    # Trainer.datamodule exists at runtime once data are attached, but it is not declared.
    return getattr(getattr(trainer, "datamodule", None), attribute, None)


def _entry(holder: object, key: str, need: str, whose: str, remedy: str) -> Tensor:
    if not isinstance(holder, Mapping):
        raise ContractError(f"{need}, but {whose} is of type {type(holder).__name__}. {remedy}.")
    if key not in holder:
        keys = ", ".join(repr(k) for k in holder) or "none"
        raise ContractError(f"{need}, but {whose} has the keys: {keys}. {remedy}.")
    value = holder[key]
    if not isinstance(value, Tensor):
        raise ContractError(
            f"{need}, but {whose} has a {type(value).__name__} under that key. {remedy}."
        )
    return value
