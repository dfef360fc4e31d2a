"""Settings of what a file holds: stored fields and custom features."""

from dataclasses import dataclass
from typing import Literal

from spinlock.configuration.import_path import is_import_path
from spinlock.errors import ConfigurationError


@dataclass(frozen=True)
class Every:
    """Store every k-th timestep: ``every: 5`` stores steps 5, 10, 15, ...

    Args:
        every: Number of timesteps k from one stored timestep to the next.

    Example:
        >>> from spinlock import GenerationConfig
        >>> storage = StorageConfig(fields=Every(2))
        >>> GenerationConfig(10, num_timesteps=7, storage=storage).stored_steps
        (2, 4, 6)
    """

    every: int


@dataclass(frozen=True)
class StorageConfig:
    """Which fields are stored, and how.

    Args:
        fields: Timesteps whose fields are stored: ``all``, ``last``, ``{every: k}``, or ``none``
            (features only; initial conditions are not stored either); default: ``all``.
        compression: Filters of the fields: ``deflate`` (byte shuffle and deflate, standard HDF5
            filters) or ``none``; default: ``deflate``.
        shard_size: Number of samples in a shard, a multiple of ``block_size``. An interruption
            costs at most two shards. Default: 128, or 1,024 if one process computes all shards on a
            CUDA device, but at most as many samples as fit into 4 GiB.
        layout: Files of a new dataset: ``single`` puts everything into one file. ``virtual`` keeps
            the shards, in the folder ``<path>.shards``, and the file refers to them. A dataset
            keeps its layout when it is extended. Default: ``single``.

    Example:
        >>> StorageConfig(fields="last", layout="virtual")
        StorageConfig(fields='last', compression='deflate', shard_size=None, layout='virtual')
    """

    fields: Literal["all", "last", "none"] | Every = "all"
    compression: Literal["deflate", "none"] = "deflate"
    shard_size: int | None = None
    layout: Literal["single", "virtual"] = "single"


@dataclass(frozen=True)
class CustomFeatureConfig:
    """Custom features, which are added to Summary Descriptor Features 1.0.

    Args:
        per_field: Import paths ``package.module.function`` of features of single fields, in the
            order of the columns. Each function is decorated with
            `spinlock.features.custom_feature`, and its column is named after it.
        per_trajectory: Import paths of features of trajectories.

    Example:
        >>> CustomFeatureConfig(per_field=("my_package.skewness",)).names("per_field")
        ('skewness',)
    """

    per_field: tuple[str, ...] = ()
    per_trajectory: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A list and a tuple of the same paths must be the same configuration.
        object.__setattr__(self, "per_field", tuple(self.per_field))
        object.__setattr__(self, "per_trajectory", tuple(self.per_trajectory))

    def names(self, kind: Literal["per_field", "per_trajectory"]) -> tuple[str, ...]:
        """Return the column names, which are the last parts of the import paths."""
        paths = self.per_field if kind == "per_field" else self.per_trajectory
        return tuple(path.rpartition(".")[2] for path in paths)


def check_custom_features(features: CustomFeatureConfig) -> None:
    """Check that import paths are valid and name every column once.

    Raises:
        ConfigurationError: If there are no paths, or one is not valid or repeats a name.
    """
    # Not in __post_init__: jsonargparse would then report that no member of the union fits.
    paths = (*features.per_field, *features.per_trajectory)
    if not paths:
        raise ConfigurationError(
            "features: per_field and per_trajectory are empty; list custom features, or write "
            "`features: sdf`"
        )
    for path in paths:
        if not is_import_path(path):
            raise ConfigurationError(
                f"features: expected import paths such as my_package.my_feature, got {path!r}"
            )
    columns = (*features.names("per_field"), *features.names("per_trajectory"))
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"features: {', '.join(twice)} occurs twice; columns are named after the functions, "
            "which must have different names"
        )
