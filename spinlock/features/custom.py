"""Features of the user's own: a function, the registry row that its decorator adds, a yaml line.

    @custom_feature(formula="⟨|u|⟩", unit="u", range="[0, ∞)", exponent=1)
    def mean_modulus(fields: Tensor) -> Tensor:
        return fields.abs().mean((-2, -1))

    features: {per_field: [my_package.mean_modulus]}

They are stored beside the built-in ones, in arrays of their own that are made in the same way. The
column is named after the function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spinlock.configuration.generation_config import CustomFeatureConfig
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
    """A feature function with its registry row; made by `custom_feature`.

    Attributes:
        function: Maps fields [B, H, W], or trajectories [A, T, H, W], to one number each.
        row: What the number means.
    """

    function: FeatureFunction
    row: Feature

    def __call__(self, fields: Tensor) -> Tensor:
        """The function itself, its result checked.

        Raises:
            ConfigurationError: If it does not return one finite real number per item.
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
    """Give a function its registry row. Arguments as for `spinlock.features.Feature`.

    The function gets float32 fields [B, H, W], or, if ``min_timesteps`` is given, trajectories
    [A, T, H, W] with T >= min_timesteps, on the device in use, and returns one finite number for
    each, [B] or [A]. It must treat every item by itself and draw no random numbers, or samples
    would depend on what they are computed with; and it must leave its input as it is.
    """

    def decorate(function: FeatureFunction) -> CustomFeature:
        name = getattr(function, "__name__", type(function).__name__)
        group: Literal["spatial", "temporal"] = "spatial" if min_timesteps is None else "temporal"
        row = Feature(
            name,
            group,
            formula,
            unit,
            range,
            exponent,
            min_timesteps=min_timesteps,
            reference=reference,
        )
        return CustomFeature(function, row)

    return decorate


def custom_columns(selection: Selection) -> dict[str, tuple[str, ...]]:
    """The arrays of custom features that a dataset holds, with their column names.

    Needs none of the user's code: a file can be read where that code is not installed.

    Args:
        selection: ``GenerationConfig.features``.

    Returns:
        Array -> names. ``per_timestep`` and ``initial`` have the features of fields,
        ``per_trajectory`` and ``aggregated`` those of trajectories; an array without columns is
        left out.
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
    """The custom features of a configuration, imported.

    Args:
        selection: ``GenerationConfig.features``.
        trusted: Modules that import paths may name besides this package; None: every module.

    Raises:
        ConfigurationError: If one cannot be imported, or is not a `custom_feature` of its kind.
    """

    def __init__(self, selection: Selection, trusted: Trusted = None) -> None:
        per_field, per_trajectory = (
            ((), ()) if selection == "sdf" else (selection.per_field, selection.per_trajectory)
        )
        self.per_field = tuple(_imported("per_field", path, trusted) for path in per_field)
        self.per_trajectory = tuple(
            _imported("per_trajectory", path, trusted) for path in per_trajectory
        )

    @property
    def rows(self) -> tuple[Feature, ...]:
        """Registry rows, in the order of the columns."""
        return tuple(feature.row for feature in (*self.per_field, *self.per_trajectory))

    def extract(self, initial: Tensor, fields: Tensor) -> dict[str, Tensor]:
        """Evaluate all of them.

        Args:
            initial: float32 [N, C, H, W], initial conditions.
            fields: float32 [N, M, T, C, H, W].

        Returns:
            Array -> float32 tensor, as `custom_columns` lists them: ``per_timestep`` [N, T, K],
            ``per_trajectory`` [N, M, L], ``aggregated`` [N, 3L], ``initial`` [N, K].
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
            f"{where}: is {type(feature).__name__}; decorate the function with "
            "@spinlock.features.custom_feature(...)"
        )
    if feature.row.name != attribute:
        raise ConfigurationError(
            f"{where}: the function is called {feature.row.name}; name it {attribute}, as the "
            "column will be"
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
