"""Groups of feature columns that the batches of a view can contain."""

from dataclasses import dataclass
from typing import Literal, get_args

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.validation import check_types, require_choice
from spinlock.datamodules.labels import feature_names
from spinlock.errors import ConfigurationError
from spinlock.features import custom_columns
from spinlock.features.response import (
    NOISE_NAMES,
    TRANSPORT_NAMES,
    divergence_names,
    response_names,
)
from spinlock.storage import schema

Group = Literal["outputs", "responses", "transport", "noise", "divergence"]
Selection = Literal["all", "invariant"]

ADD_RESPONSES = (
    "response features (responses is false); `spinlock extract-features FILE --responses` adds "
    "them to a file with fields"
)


@dataclass(frozen=True)
class ViewOptions:
    """A view, which is what the batches of a data module contain, and its feature columns.

    ================  ============================================================================
    ``features``      ``features`` [B, F] of one timestep, ``initial_features`` [B, F']
    ``sequence``      ``features`` [B, T, F] of all timesteps
    ``responses``     like ``features``, with the columns ``responses`` and ``noise``
    ``pairs``         a sample and the next probe of its operator, whose entries are
                      ``other_features``, ``other_initial_features``, ``other_variant``,
                      ``other_family`` and ``other_index``
    ``probes``        all P probes of an operator: ``features`` [B, P, F], ``initial_features``
                      [B, P, F'], ``variant``, ``family`` and ``index`` [B, P]; operators that have
                      fewer probes of the selected variants than others are left out
    ``both``          ``features`` and fields: ``input_fields`` [B, C, H, W] and ``output_fields``
                      [B, M, C, H, W] float32 (for T > 1 [B, M, T', C, H, W] with the T' stored
                      timesteps), read from the file for each batch
    ``fields``        ``both`` without the features
    ================  ============================================================================

    The columns of ``features`` are one or more groups:

    ================  ============================================================================
    ``outputs``       the features of the output field, custom ones included
    ``responses``     the response features of the step that leads to the timestep
    ``transport``     how this step moves, smooths and scales the field, for operators that do
    ``noise``         the noise group, which describes the spread of the realizations
    ``divergence``    the growth of this spread, for several timesteps
    ================  ============================================================================

    ``noise`` and ``divergence`` belong to the sample: all timesteps have the same values. With one
    realization they are unknown, and left out.

    Args:
        name: Name of the view.
        columns: Groups of columns, in this order; default: ``outputs``, or ``responses`` and
            ``noise`` in the view ``responses``.
        selection: Columns to select: ``all``, or those that depend on the operator and hardly on
            the initial condition; see `InvariantColumns`.

    Raises:
        ConfigurationError: If an option is not one of the above, or a group is repeated.

    Example:
        >>> options = ViewOptions("pairs", columns=("responses", "noise"), selection="invariant")
    """

    name: str = "features"
    columns: tuple[Group, ...] | None = None
    selection: Selection = "all"

    def __post_init__(self) -> None:
        given: object = self.columns
        if isinstance(given, list):
            object.__setattr__(self, "columns", tuple(given))
        check_types(self, "view.")
        if self.columns is not None and not 0 < len(self.columns) == len(set(self.columns)):
            raise ConfigurationError(
                "view.columns: must be one or more different groups of "
                f"{', '.join(get_args(Group))}, got {list(self.columns)}"
            )


@dataclass(frozen=True)
class ColumnGroup:
    """Columns of a file that belong together.

    Args:
        names: Names of the columns.
        datasets: Datasets of the file that hold them.
        per_timestep: Whether the datasets have a row for each timestep.
    """

    names: tuple[str, ...]
    datasets: tuple[str, ...]
    per_timestep: bool


def column_group(name: str, config: GenerationConfig) -> ColumnGroup:
    """Return a group of columns of a dataset; it is empty if its values are unknown.

    Args:
        name: Name of the group.
        config: Configuration of the dataset.

    Raises:
        ConfigurationError: If there is no such group, or the dataset lacks it.

    Example:
        >>> from spinlock import GenerationConfig
        >>> column_group("outputs", GenerationConfig(1)).names[:2]
        ('spatial_mean', 'spatial_variance')
    """
    require_choice("view.columns", name, get_args(Group))
    if missing := missing_columns((name,), config):
        raise ConfigurationError(f"view.columns: {name} needs {missing}")
    if name == "outputs":
        custom = [schema.custom_features("per_timestep")] * (
            "per_timestep" in custom_columns(config.features)
        )
        return ColumnGroup(feature_names(config), (schema.PER_TIMESTEP, *custom), True)
    if name == "responses":
        return ColumnGroup(response_names(config.channels), (schema.RESPONSES,), True)
    if name == "transport":
        return ColumnGroup(TRANSPORT_NAMES, (schema.TRANSPORT_RESPONSES,), True)
    names, dataset = NOISE_NAMES, schema.NOISE_RESPONSES
    if name == "divergence":
        names, dataset = divergence_names(config.num_timesteps), schema.DIVERGENCE
    if config.num_realizations == 1 or not names:
        return ColumnGroup((), (), False)
    return ColumnGroup(names, (dataset,), False)


def missing_columns(groups: tuple[str, ...], config: GenerationConfig) -> str:
    """Describe what groups need and the dataset lacks; empty if nothing."""
    return "" if config.responses or set(groups) <= {"outputs"} else ADD_RESPONSES


def names_of_columns(groups: tuple[Group, ...], config: GenerationConfig) -> tuple[str, ...]:
    """Return the names of the columns of groups.

    Raises:
        ConfigurationError: If the dataset lacks a group, or all of the groups are empty.
    """
    names = tuple(name for group in groups for name in column_group(group, config).names)
    if not names:
        raise ConfigurationError(
            f"view.columns: {', '.join(groups)}: noise needs two or more realizations, and "
            "divergence also two or more timesteps; the dataset has num_realizations "
            f"{config.num_realizations} and num_timesteps {config.num_timesteps}"
        )
    return names
