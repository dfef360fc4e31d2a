"""Writing a dataset file anew with other features, everything else as it is.

The new file takes the old one's place in one step, after every sample in it has been compared with
the old digests: whatever happens, a file with the dataset's name is complete.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.output_files import publish
from spinlock.storage import schema
from spinlock.storage.chunks import sample_digests
from spinlock.storage.copying import copy_samples
from spinlock.storage.foreign import copy_foreign
from spinlock.storage.layout import (
    create_layout,
    open_hdf5,
    read_configuration,
    text_attribute,
)
from spinlock.storage.seal import require_seal, row_blocks, seal
from spinlock.storage.verify import (
    damaged_samples,
    digested_specs,
    field_digests,
    name_samples,
)

# Root attributes that are written anew, besides those that `create_layout` and `seal` write.
_KEPT = ("design_quality", "run_summary")


def feature_specs(config: GenerationConfig) -> list[schema.DatasetSpec]:
    """The datasets of features that a file of this configuration holds."""
    return [spec for spec in schema.dataset_specs(config) if spec.name.startswith("features/")]


def update_features(
    path: Path, config: GenerationConfig, computed: h5py.File, provenance: dict[str, str]
) -> None:
    """Replace a dataset file by one that holds other features.

    Args:
        path: Dataset file, which has been verified; not a link.
        config: Configuration of the new file; may differ from the old one in its features.
        computed: File that holds the datasets of `feature_specs` for all samples.
        provenance: Root attributes that describe what computed the features; see
            `spinlock.simulation.provenance`.

    Raises:
        DatasetError: If a sample of the new file differs from the old digests. The file is as it
            was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open_hdf5(path) as old, h5py.File(temporary, "x") as new:
            create_layout(new, config, config.num_samples, _merged(old, provenance))
            for name in _KEPT:
                new.attrs[name] = text_attribute(old, name)
            copy_foreign(old, new, read_configuration(old))
            features = [spec.name for spec in feature_specs(config)]
            everything = range(config.num_samples)
            copy_samples(old, new, config, everything, without=features)
            _copy_features(computed, new, features)
            _write_digests(old, new, config)
            seal(new, config)
        with open_hdf5(temporary) as new:
            require_seal(new, config)
            if wrong := damaged_samples(new, config):
                raise DatasetError(f"{temporary}: {name_samples(wrong)} were not written correctly")
        publish(temporary, path, replace=True)
    finally:
        temporary.unlink(missing_ok=True)


def _merged(old: h5py.File, provenance: dict[str, str]) -> dict[str, str]:
    """What computed the file so far, and now; each distinct record once."""
    merged = {}
    for name in schema.PROVENANCE:
        records: list[Any] = json.loads(provenance[name])
        if name != "features":
            held = json.loads(text_attribute(old, name))
            records = held + [record for record in records if record not in held]
        merged[name] = json.dumps(records)
    return merged


def _copy_features(computed: h5py.File, new: h5py.File, names: list[str]) -> None:
    for name in names:
        for rows in row_blocks(len(new[name])):
            new[name][rows.start : rows.stop] = computed[name][rows.start : rows.stop]


def _write_digests(old: h5py.File, new: h5py.File, config: GenerationConfig) -> None:
    """Compute the digests of the new file, comparing what was copied with the old ones."""
    replaced = {spec.name for spec in feature_specs(config)}
    before, after = digested_specs(read_configuration(old)), digested_specs(config)
    for rows in row_blocks(config.num_samples):
        part = slice(rows.start, rows.stop)
        fields = field_digests(new, config, rows)
        columns = {spec.name: new[spec.name][part] for spec in after if spec.chunk is None}
        held = {
            spec.name: old[spec.name][part]
            if spec.name in replaced or spec.name not in columns
            else columns[spec.name]
            for spec in before
            if spec.chunk is None
        }
        differs = sample_digests(before, held, fields) != old[schema.DIGESTS][part]
        if differs.any():
            wrong = (np.flatnonzero(differs) + rows.start).tolist()
            raise DatasetError(
                f"{old.filename}: {name_samples(wrong)} differ from their digests: the file was "
                "changed or damaged since it was verified. It was left as it is"
            )
        digests = sample_digests(after, columns, fields)
        new[schema.DIGESTS][part] = digests.astype(new[schema.DIGESTS].dtype)
