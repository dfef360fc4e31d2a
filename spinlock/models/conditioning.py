"""What an encoder or a decoder is told beside its own input."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinlock import contract
from spinlock.errors import ConfigurationError
from spinlock.features import extract_per_timestep

Condition = Literal["initial_features", "variant", "increment"]


class Conditioning(nn.Module):
    """Appends what is known of a sample's initial condition to the columns of a tensor.

    - ``initial_features``: ``batch["initial_features"]``;
    - ``variant``: one-hot of ``batch["variant"]``; in evaluation all zeros for a variant that never
      occurred in training, whose weights have learned nothing;
    - ``increment``: the features of u_1 - u_0, the initial condition taken from the first stored
      timestep, from ``batch["input_fields"]`` and ``batch["output_fields"]`` (the data module's
      view ``both``), mapped by sign(x) ln(1 + |x|) and batch normalization.

    Args:
        conditions: Which of these.
        num_features: Columns F of ``increment``.
        num_initial_features: Columns of ``initial_features``.
        num_variants: V.

    Raises:
        ConfigurationError: On an unknown condition, or one given twice.
        ContractError: By `forward`, where a batch lacks an entry or has another number of columns.
    """

    seen: Tensor

    def __init__(
        self,
        conditions: Sequence[Condition],
        *,
        num_features: int,
        num_initial_features: int,
        num_variants: int,
    ) -> None:
        super().__init__()
        known = get_args(Condition)
        if len(set(conditions)) < len(conditions) or not set(conditions) <= set(known):
            raise ConfigurationError(
                f"conditions: must be some of {', '.join(known)}, each once; got {list(conditions)}"
            )
        self.conditions = tuple(conditions)
        self.num_initial_features = num_initial_features
        self.num_variants = num_variants
        #: Variants that occurred in training.
        self.register_buffer("seen", torch.zeros(num_variants, dtype=torch.bool))
        widths = {
            "initial_features": num_initial_features,
            "variant": num_variants,
            "increment": num_features,
        }
        self.width = sum(widths[condition] for condition in self.conditions)
        if "increment" in self.conditions:
            self.scaling = nn.BatchNorm1d(num_features, affine=False)

    def forward(self, values: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """``[B, D + width]`` of values ``[B, D]``."""
        parts = {
            "initial_features": self._initial_features,
            "variant": self._variant,
            "increment": self._increment,
        }
        added = [parts[condition](batch).to(values.dtype) for condition in self.conditions]
        return torch.cat([values, *added], dim=-1)

    def _initial_features(self, batch: Mapping[str, Tensor]) -> Tensor:
        key, columns = "initial_features", self.num_initial_features
        return feature_columns(batch, key, columns)

    def _variant(self, batch: Mapping[str, Tensor]) -> Tensor:
        variant = variants(batch, self.num_variants)
        if self.training:
            self.seen[variant] = True
            return functional.one_hot(variant, self.num_variants)
        return functional.one_hot(variant, self.num_variants) * self.seen

    def _increment(self, batch: Mapping[str, Tensor]) -> Tensor:
        before = contract.batch_entry(batch, "input_fields")
        after = contract.batch_entry(batch, "output_fields")
        first = after if after.ndim == 5 else after[:, :, 0]
        with torch.no_grad():
            increment = extract_per_timestep((first - before[:, None])[:, :, None])[:, 0]
        logarithm = increment.sign() * increment.abs().log1p()
        scaled: Tensor = self.scaling(logarithm)
        return scaled


def feature_columns(batch: Mapping[str, Tensor], key: str, columns: int) -> Tensor:
    """The features ``[B, columns]`` that a batch holds under a key.

    Raises:
        ContractError: There are none, or they have another shape.
    """
    values = contract.batch_entry(batch, key)
    if values.ndim != 2 or values.shape[1] != columns:
        setting = "num_initial_features" if "initial" in key else "num_features"
        shape = f"{list(values.shape)}, expected [B, {columns}]"
        raise contract.ContractError(f"batch[{key!r}] is {shape}: set the model's {setting}")
    return values


def variants(batch: Mapping[str, Tensor], num_variants: int) -> Tensor:
    """The variants ``[B]`` of a batch.

    Raises:
        ContractError: There are none, or one is beyond the number that the model was made for.
    """
    variant = contract.batch_entry(batch, "variant")
    if len(variant) and int(variant.max()) >= num_variants:
        raise contract.ContractError(
            f"batch['variant'] has variant {int(variant.max())}, but the model has "
            f"{num_variants} variants: set its num_variants to the data module's"
        )
    return variant
