"""Uses an existing dataset file whose stored fields are not those that were asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.datamodules.feature_view import FeatureView
from spinlock.errors import DatasetError
from spinlock.storage import read_info


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
    generation = _parsed(generation)
    if not path.exists():
        return generation
    try:
        theirs = read_info(path).config
    except DatasetError:
        return generation
    fields = theirs.storage.fields
    if fields == generation.storage.fields:
        return generation
    same = replace(generation, storage=replace(generation.storage, fields=fields))
    return same if same.fingerprint == theirs.fingerprint else generation


def warn_of_other_fields(
    path: Path, asked: GenerationConfig | Mapping[str, Any], view: FeatureView
) -> None:
    """Warn if a view reads fields, and the file stores other fields than were asked for.

    Args:
        path: Dataset file.
        asked: Configuration that was asked for, or that of a checkpoint as plain data.
        view: View of the configuration that `as_stored` returned.
    """
    wanted, fields = _parsed(asked).storage.fields, view.config.storage.fields
    if view.has_fields and wanted != fields:
        rank_zero_warn(
            f"{path} stores other fields than were asked for, and batches contain the stored ones "
            f"(storage.fields: {fields} there, {wanted} asked for). For other fields, generate "
            "another file"
        )


def _parsed(generation: GenerationConfig | Mapping[str, Any]) -> GenerationConfig:
    if isinstance(generation, GenerationConfig):
        return generation
    return StoredConfig.from_dict(generation)
