"""Uses an existing dataset file whose stored fields are not those that were asked for."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.errors import DatasetError
from spinlock.storage import read_info

_LOG = logging.getLogger(__name__)


def as_stored(path: Path, generation: GenerationConfig | Mapping[str, Any]) -> GenerationConfig:
    """Return a configuration with the stored fields of an existing file of the same samples.

    Which fields are stored changes no sample, so it is no reason to refuse a file. A file that is
    missing, damaged or of other samples changes nothing here; reading it explains what is wrong.

    Args:
        path: Dataset file, which may be missing.
        generation: Configuration that was asked for, or that of a checkpoint as plain data.

    Example:
        >>> as_stored(Path("missing.h5"), GenerationConfig(4)).num_samples
        4
    """
    if not isinstance(generation, GenerationConfig):
        generation = StoredConfig.from_dict(generation)
    if not path.exists():
        return generation
    try:
        theirs = read_info(path).config
    except DatasetError:
        return generation
    fields, asked = theirs.storage.fields, generation.storage.fields
    same = replace(generation, storage=replace(generation.storage, fields=fields))
    if fields == asked or same.fingerprint != theirs.fingerprint:
        return generation
    _LOG.info("%s: storage.fields is %s, %s was asked for; used as it is", path, fields, asked)
    return same
