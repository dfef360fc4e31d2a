"""Computes user-defined features.

A custom feature is a function with the decorator `custom_feature` that the configuration names:

    features: {per_field: [my_package.mean_modulus]}

Custom features are averaged like the built-in ones and stored in separate arrays. The name of the
function is the name of the column.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.configuration.import_path import Trusted, imported
from spinlock.errors import ConfigurationError
from spinlock.features.batches import (
    aggregate,
    aggregated_names,
    check_fields,
    field_averages,
    trajectory_averages,
)
from spinlock.features.registry import FEATURES, Feature

FeatureFunction = Callable[[Tensor], Tensor]
Selection = Literal["sdf"] | CustomFeatureConfig


@dataclass(frozen=True)
class CustomFeature:
    """A feature function with its description; see `custom_feature`.

    Attributes:
        function: Function that maps fields [B, H, W] or trajectories [A, T, H, W] to one number
            each.
        row: Description of the feature.
    """

    function: FeatureFunction
    row: Feature

    def __call__(self, fields: Tensor) -> Tensor:
        """Evaluate the function and check its result.

        Args:
            fields: Fields [B, H, W] or trajectories [A, T, H, W].

        Returns:
            Features, float32 [B] or [A].

        Raises:
            ConfigurationError: If the result is not one finite real number per item.
        """
        values = self.function(fields)
        if not isinstance(values, Tensor) or values.shape != fields.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ConfigurationError(
                f"feature {self.row.name}: must return a tensor of one number for each of the "
                f"{len(fields)} items of its input {tuple(fields.shape)}, i.e. of shape "
                f"({len(fields)},), got {got}"
            )
        if values.is_complex():
            raise ConfigurationError(f"feature {self.row.name}: must return real numbers")
        values = values.float()
        if wrong := int((~values.isfinite()).sum()):
            raise ConfigurationError(
                f"feature {self.row.name}: must return finite numbers, got NaN or infinity for "
                f"{wrong} of {len(values)} items; give it a value for every field, constant ones "
                "included"
            )
        return values


def custom_feature(
    *,
    formula: str,
    unit: str,
    range: str,
    exponent: int,
    min_timesteps: int | None = None,
    reference: str = "",
) -> Callable[[FeatureFunction], CustomFeature]:
    """Mark a function as a feature and describe it.

    The function maps float32 fields [B, H, W] to one finite number each, [B]. With
    ``min_timesteps`` it maps trajectories [A, T, H, W] with T >= min_timesteps to [A] instead. It
    must treat every item independently, draw no random numbers and not modify its input.

    Args:
        formula: Definition of the feature.
        unit: Unit, where "u" is the unit of the field and "1" none.
        range: Interval of possible values.
        exponent: Exponent e in feature(a·u) = aᵉ·feature(u) for a > 0.
        min_timesteps: Length of the shortest trajectory that the feature is defined for; default:
            the function is a feature of single fields.
        reference: Source of the formula.

    Example:
        >>> import torch
        >>> from spinlock.features import custom_feature
        >>> @custom_feature(formula="⟨|u|⟩", unit="u", range="[0, ∞)", exponent=1)
        ... def mean_modulus(fields):
        ...     return fields.abs().mean((-2, -1))
        >>> mean_modulus(torch.full((2, 8, 8), -3.0))
        tensor([3., 3.])
    """

    def decorate(function: FeatureFunction) -> CustomFeature:
        name = getattr(function, "__name__", type(function).__name__)
        group: Literal["spatial", "temporal"] = "spatial" if min_timesteps is None else "temporal"
        row = Feature(
            name, group, formula, unit, range, exponent, False, min_timesteps, None, reference
        )
        return CustomFeature(function, row)

    return decorate


def custom_columns(selection: Selection) -> dict[str, tuple[str, ...]]:
    """Return the names of the columns of each array of custom features.

    This does not import the functions, so a file can be read where they are not installed.

    Args:
        selection: Value of ``GenerationConfig.features``.

    Returns:
        Array name -> column names. ``per_timestep`` and ``initial`` contain features of fields,
        ``per_trajectory`` and ``aggregated`` features of trajectories. Arrays without columns are
        omitted.

    Example:
        >>> from spinlock.configuration import CustomFeatureConfig
        >>> custom_columns(CustomFeatureConfig(per_field=["my_package.mean_modulus"]))
        {'per_timestep': ('mean_modulus',), 'initial': ('mean_modulus',)}
    """
    if selection == "sdf":
        return {}
    fields, trajectories = selection.names("per_field"), selection.names("per_trajectory")
    arrays = {
        "per_timestep": fields,
        "per_trajectory": trajectories,
        "aggregated": aggregated_names(trajectories),
        "initial": fields,
    }
    return {array: columns for array, columns in arrays.items() if columns}


class CustomFeatures:
    """The imported custom features of a configuration.

    Args:
        selection: Value of ``GenerationConfig.features``.
        trusted: Modules that import paths may name besides this package; None: every module.

    Raises:
        ConfigurationError: If a function cannot be imported or is not a `custom_feature` of the
            right kind.

    Example:
        >>> CustomFeatures("sdf").rows
        ()
    """

    def __init__(self, selection: Selection, trusted: Trusted = None) -> None:
        config = CustomFeatureConfig() if selection == "sdf" else selection
        self.per_field = tuple(_imported("per_field", path, trusted) for path in config.per_field)
        self.per_trajectory = tuple(
            _imported("per_trajectory", path, trusted) for path in config.per_trajectory
        )

    @property
    def rows(self) -> tuple[Feature, ...]:
        """Descriptions of the features, in the order of the columns."""
        return tuple(feature.row for feature in (*self.per_field, *self.per_trajectory))

    def extract(self, initial: Tensor, fields: Tensor) -> dict[str, Tensor]:
        """Evaluate all custom features.

        Args:
            initial: Initial conditions, float32 [N, C, H, W].
            fields: Fields, float32 [N, M, T, C, H, W].

        Returns:
            Array name -> float32 tensor, for the arrays of `custom_columns`: ``per_timestep``
            [N, T, K], ``per_trajectory`` [N, M, L], ``aggregated`` [N, 3L], ``initial`` [N, K].
        """
        check_fields(fields, ("N", "M", "T", "C", "H", "W"))
        arrays = {}
        if count := len(self.per_field):
            arrays["per_timestep"] = field_averages(fields, self._of_fields, count)
            arrays["initial"] = field_averages(initial[:, None, None], self._of_fields, count)[:, 0]
        if self.per_trajectory:
            arrays["per_trajectory"] = trajectory_averages(fields, self._of_trajectories)
            arrays["aggregated"] = aggregate(arrays["per_trajectory"])
        return arrays

    def _of_fields(self, fields: Tensor) -> Tensor:
        return torch.stack([feature(fields) for feature in self.per_field], dim=-1)

    def _of_trajectories(self, trajectories: Tensor) -> Tensor:
        count, steps = trajectories.shape[:2]
        undefined = trajectories.new_full((count,), math.nan)
        columns = [
            feature(trajectories) if steps >= (feature.row.min_timesteps or 0) else undefined
            for feature in self.per_trajectory
        ]
        return torch.stack(columns, dim=-1)


def _imported(
    kind: Literal["per_field", "per_trajectory"], path: str, trusted: Trusted
) -> CustomFeature:
    where = f"features.{kind}: {path}"
    feature, attribute = imported(path, where, trusted), path.rpartition(".")[2]
    if not isinstance(feature, CustomFeature):
        raise ConfigurationError(
            f"{where}: is a {type(feature).__name__}; decorate the function with "
            "@spinlock.features.custom_feature(...)"
        )
    if feature.row.name != attribute:
        raise ConfigurationError(
            f"{where}: the function is called {feature.row.name}; call it {attribute}, which is "
            "the name of the column"
        )
    if attribute in (row.name for row in FEATURES):
        raise ConfigurationError(f"{where}: {attribute} is a built-in feature; choose another name")
    if (feature.row.min_timesteps is not None) != (kind == "per_trajectory"):
        other = "per_field" if kind == "per_trajectory" else "per_trajectory"
        raise ConfigurationError(
            f"{where}: has min_timesteps={feature.row.min_timesteps}, so it belongs under {other} "
            "(features of trajectories have min_timesteps, features of fields have none)"
        )
    return feature
