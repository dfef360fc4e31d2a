"""Updating a dataset file: other features in place of those it holds, everything else as it is.

The changes are made in a copy, which takes the file's place in one step: whatever happens, a file
with the dataset's name is complete. What users added to their file is copied along.
"""

import json
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.config import GenerationConfig
from spinlock.storage import schema
from spinlock.storage.chunks import combined_digest
from spinlock.storage.shards import publish
from spinlock.storage.verify import file_digests

Columns = dict[str, NDArray[np.float32]]

_FEATURES = "features/"
_CUSTOM = "features/custom"


def feature_specs(config: GenerationConfig) -> list[schema.DatasetSpec]:
    """The datasets of features that a file of this configuration holds."""
    return [spec for spec in schema.dataset_specs(config) if spec.name.startswith(_FEATURES)]


def missing_features(file: h5py.File, old: GenerationConfig, new: GenerationConfig) -> list[str]:
    """The datasets that a file of one configuration lacks to be one of the other."""
    changed = old.features != new.features
    return [
        spec.name
        for spec in feature_specs(new)
        if spec.name not in file
        or file[spec.name].shape != (new.num_samples, *spec.shape)
        or (changed and spec.name.startswith(_CUSTOM))
    ]


def update_features(
    path: Path,
    config: GenerationConfig,
    missing: list[str],
    parts: Iterable[tuple[range, Columns]],
    provenance: dict[str, str],
) -> None:
    """Replace a dataset file by a copy that holds other features.

    Args:
        path: The file; no link.
        config: What it is a dataset of from now on; may differ from before in its features.
        missing: Datasets that are to be created.
        parts: Consecutive samples and their features, dataset -> values.
        provenance: What computed them; see `spinlock.provenance`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.copy(path, temporary)
        with h5py.File(temporary, "r+") as file:
            _create(file, config, missing)
            for samples, columns in parts:
                for name, values in columns.items():
                    file[name][samples.start : samples.stop] = values
            _record(file, config, provenance)
        publish(temporary, path, replace=True)
    finally:
        temporary.unlink(missing_ok=True)


def _create(file: h5py.File, config: GenerationConfig, missing: list[str]) -> None:
    """Create datasets that are to be filled, and remove what the configuration does not name."""
    specs = {spec.name: spec for spec in feature_specs(config)}
    if _CUSTOM in file and not any(
        name in specs and name not in missing for name in map(schema.custom_features, file[_CUSTOM])
    ):
        del file[_CUSTOM]
    for name in missing:
        spec = specs[name]
        if name in file:
            del file[name]
        dataset = file.create_dataset(name, (config.num_samples, *spec.shape), spec.dtype)
        dataset.attrs["description"] = spec.description
        dataset.attrs["dimensions"] = list(spec.dims)
        dataset.attrs["names"] = list(spec.names)


def _record(file: h5py.File, config: GenerationConfig, provenance: dict[str, str]) -> None:
    """Say in the file what it is now, and what computed it besides what did before."""
    file.attrs["configuration"] = config.to_json()
    file.attrs["fingerprint"] = config.fingerprint
    for name in schema.PROVENANCE:
        records: list[Any] = json.loads(provenance[name])
        if name != "features":
            held = json.loads(file.attrs[name])
            records = held + [record for record in records if record not in held]
        file.attrs[name] = json.dumps(records)
    digests = file_digests(file, config)
    file[schema.DIGESTS][...] = digests.astype(file[schema.DIGESTS].dtype)
    file.attrs["digest"] = combined_digest(digests)
