"""Reads the configuration that a dataset file or a shard stores."""

import dataclasses
from collections.abc import Collection

import h5py

from spinlock.configuration.stored_config import StoredConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.storage import schema
from spinlock.storage.hdf5_access import text_attribute

# Attributes without which nothing in a file can be interpreted.
_IDENTITY = ("schema_version", "configuration", "fingerprint")


def read_configuration(file: h5py.File, trust: Collection[str] = ()) -> StoredConfig:
    """Return the configuration of a file. Nothing that it names is imported.

    Args:
        file: Dataset file or shard.
        trust: Modules whose classes a computation with the configuration may import.

    Raises:
        DatasetError: If a root attribute is missing or not valid.
        ConfigurationError: If ``trust`` is a single name instead of a list of names.
    """
    if isinstance(trust, str):
        raise ConfigurationError(f"trust: must be a list of modules, got {trust!r}")
    missing = [name for name in _IDENTITY if name not in file.attrs]
    if missing:
        raise DatasetError(
            f"{file.filename} is no Spinlock dataset: it lacks the root attribute(s) "
            f"{', '.join(missing)}"
        )
    version, text, _ = (text_attribute(file, name) for name in _IDENTITY)
    if version != schema.SCHEMA_VERSION:
        raise DatasetError(
            f"{file.filename} has schema version {version[:20]}; this package reads "
            f"{schema.SCHEMA_VERSION}"
        )
    try:
        config = dataclasses.replace(StoredConfig.from_json(text), trusted=tuple(trust))
        # The axes of the operator family are checked only when they are first used.
        _ = config.space
    except ConfigurationError as error:
        raise DatasetError(f"{file.filename}: its configuration is not valid: {error}") from error
    return config
