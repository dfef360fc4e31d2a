"""Configurations that were read from a file, and therefore are not trusted to name classes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.import_path import Trusted
from spinlock.configuration.parameter_axes import Axis


@dataclass(frozen=True, eq=False)
class StoredConfig(GenerationConfig):
    """A configuration that was read from a file, a shard or a checkpoint.

    It equals the `GenerationConfig` with the same settings. The difference is trust: anyone may
    have written it, so a computation imports the classes that it names only from this package and
    from ``trusted``. `dataclasses.replace` keeps the list.

    Args:
        trusted: Modules that the user trusts, including their submodules; default: none. The other
            arguments are those of `GenerationConfig`.

    Example:
        >>> stored = StoredConfig.from_json('{"num_samples": 3, "operator": "transport"}')
        >>> stored == GenerationConfig(3, operator="transport"), stored.trusted_modules
        (True, ())
    """

    trusted: tuple[str, ...] = ()

    @property
    def trusted_modules(self) -> Trusted:
        """Modules besides this package that class paths may name."""
        return self.trusted

    @property
    def vouched_modules(self) -> tuple[str, ...]:
        """Modules that the user trusts; naming other modules does not make them trusted."""
        return self.trusted

    def _declared_axes(self) -> dict[str, Axis] | None:
        """Return the axes of a family of this package.

        None for another family, which is not imported: the file holds all of its axes.
        """
        return super()._declared_axes() if isinstance(self.operator, str) else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from nested mappings, which cannot declare modules trusted.

        Raises:
            ConfigurationError: As for `GenerationConfig.from_dict`.
        """
        config = GenerationConfig.from_dict(values)
        return cls(**{field.name: getattr(config, field.name) for field in fields(config)})
