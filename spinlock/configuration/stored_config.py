"""Configurations that come from a file, a shard or a checkpoint: data, not instructions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.import_path import Trusted


@dataclass(frozen=True, eq=False)
class StoredConfig(GenerationConfig):
    """A configuration that was read from a file, a shard or a checkpoint.

    It is equal to the `GenerationConfig` with the same settings. The difference is trust: a
    stranger may have written it, so a computation imports the classes that it names only from this
    package and from the modules listed here. `dataclasses.replace` keeps the list.

    Args:
        trusted: Modules that the user trusts; a package includes its submodules.
    """

    trusted: tuple[str, ...] = ()

    @property
    def trusted_modules(self) -> Trusted:
        """Modules that class paths may name besides this package."""
        return self.trusted

    @property
    def vouched_modules(self) -> tuple[str, ...]:
        """Modules that the user trusts; that the configuration names others does not count."""
        return self.trusted

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from nested mappings, which cannot declare themselves trusted.

        Raises:
            ConfigurationError: As for `GenerationConfig.from_dict`.
        """
        return cls(**vars(GenerationConfig.from_dict(values)))
