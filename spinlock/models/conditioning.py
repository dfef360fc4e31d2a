"""Conditioning inputs of an encoder or a decoder, and the entries of a batch that models read."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinlock import contract
from spinlock.errors import ConfigurationError

Batch = Mapping[str, Tensor]
Condition = Literal["initial_features", "variant"]
CONDITION_KEYS: tuple[Condition, ...] = get_args(Condition)


class Conditioning(nn.Module):
    """Appends features and variant of the initial condition to the columns of a tensor.

    - ``initial_features``: ``batch["initial_features"]``.
    - ``variant``: one-hot encoding of ``batch["variant"]``. In evaluation it is all zeros for a
      variant that never occurred in training, whose weights were never trained.

    Args:
        conditions: Inputs to append, in this order.
        num_initial_features: Number of columns of ``initial_features``.
        num_variants: Number of variants.

    Raises:
        ConfigurationError: A condition is repeated.
        ContractError: From `forward`, if a batch lacks an entry or an entry has another shape.
    """

    seen: Tensor

    def __init__(
        self, conditions: Sequence[Condition], *, num_initial_features: int, num_variants: int
    ) -> None:
        super().__init__()
        if len(set(conditions)) < len(conditions):
            raise ConfigurationError(f"conditions: list each once; got {list(conditions)}")
        self.conditions = tuple(conditions)
        self.num_initial_features = num_initial_features
        self.num_variants = num_variants
        #: Above 0 if a variant has occurred in training. Averages of weights need numbers.
        self.register_buffer("seen", torch.zeros(num_variants))
        widths = {"initial_features": num_initial_features, "variant": num_variants}
        self.width = sum(widths[condition] for condition in self.conditions)

    def forward(self, values: Tensor, batch: Batch) -> Tensor:
        """Return ``[B, D + width]`` for values ``[B, D]``."""
        added = {"initial_features": self._initial_features, "variant": self._variant}
        columns = [added[condition](batch).to(values.dtype) for condition in self.conditions]
        return torch.cat([values, *columns], dim=-1)

    def _initial_features(self, batch: Batch) -> Tensor:
        return feature_columns(batch, "initial_features", self.num_initial_features)

    def _variant(self, batch: Batch) -> Tensor:
        variant = variants(batch, self.num_variants)
        one_hot = functional.one_hot(variant, self.num_variants)
        if self.training:
            self.seen[variant] = 1.0
            return one_hot
        return one_hot * (self.seen > 0)


def feature_columns(batch: Batch, key: str, num_columns: int) -> Tensor:
    """Return the features ``[B, num_columns]`` of a batch under a key.

    Raises:
        ContractError: There are none, or they have another shape.
    """
    values = contract.batch_entry(batch, key)
    if values.ndim != 2 or values.shape[1] != num_columns:
        setting = "num_initial_features" if "initial" in key else "num_features"
        raise contract.ContractError(
            f"batch[{key!r}] is {list(values.shape)}, expected [B, {num_columns}]: set the model's "
            f"{setting}"
        )
    return values


def variants(batch: Batch, num_variants: int) -> Tensor:
    """Return the variants ``[B]`` of a batch.

    Raises:
        ContractError: There are none, or one is not in [0, num_variants).
    """
    variant = contract.batch_entry(batch, "variant")
    if len(variant) and int(variant.max()) >= num_variants:
        raise contract.ContractError(
            f"batch['variant'] has variant {int(variant.max())}, but the model has {num_variants} "
            "variants: set its num_variants to the data module's"
        )
    return variant
