"""Replaces the features of a dataset by others, in a new file or in new shards."""

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import row_blocks
from spinlock.runtime.output_files import publish
from spinlock.storage import schema
from spinlock.storage.assemble import Assembly, held_files
from spinlock.storage.assembly_plan import Segment
from spinlock.storage.copying import copy_additions, copy_samples
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import (
    columns_of,
    combined_digest,
    field_digests,
    require_seal,
    sample_digests,
    seal,
)
from spinlock.storage.origins import ORIGINS, merged_provenance, merged_records
from spinlock.storage.reader import json_attribute
from spinlock.storage.shard_files import Shard, remove_shards, shard_folder, shard_path
from spinlock.storage.verify import (
    name_samples,
    require_fingerprint,
    require_range,
    wrong_samples,
)

Features = Mapping[str, NDArray[np.float32]]

# Root attributes that are copied from the old file.
_KEPT = ("design_quality", "run_summary")


def update_features(
    path: Path,
    config: GenerationConfig,
    features: Features,
    provenance: dict[str, str],
    num_computed: int,
) -> None:
    """Replace the features of a dataset by others.

    A file that holds its fields is replaced by a new one. The shards of a virtual dataset are
    copied with the new features, and removed when the new file refers to the copies.

    Args:
        path: Dataset file, which has been verified. It must not be a symbolic link.
        config: Configuration of the new file, which may differ from the old one in its features.
        features: Mapping of names of columns to features (N, ...) of all samples.
        provenance: Root attributes that describe what computed the features; see
            `spinlock.simulation.provenance`.
        num_computed: Number of samples, from the first, whose features were computed.

    Raises:
        DatasetError: If the copied data, with the old features, differ from the old digests. The
            dataset is left unchanged.
    """
    with DatasetFile.open(path) as old:
        if old.shards is None:
            _update_file(old, path, config, features, provenance, num_computed)
        else:
            _update_shards(old, path, config, features, provenance, num_computed)


def _update_file(
    old: DatasetFile,
    path: Path,
    config: GenerationConfig,
    features: Features,
    provenance: dict[str, str],
    num_computed: int,
) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")

    def complete(new: DatasetFile) -> None:
        for name in _KEPT:
            new.file.attrs[name] = old.text(name)
        copy_additions(old, new)
        seal(new)

    try:
        merged = _provenance(old, old.samples, config, provenance, num_computed)
        _copy(old, temporary, config, features, merged, complete, old.samples)
        with DatasetFile.open(temporary) as written:
            require_seal(written)
            _require_sound(written, path)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _update_shards(
    old: DatasetFile,
    path: Path,
    config: GenerationConfig,
    features: Features,
    provenance: dict[str, str],
    num_computed: int,
) -> None:
    assert old.shards is not None
    index, folder = old.shards.index, shard_folder(config, path)
    edition = index.edition + 1
    folder.mkdir(parents=True, exist_ok=True)

    def complete(new: DatasetFile) -> None:
        new.file.attrs[schema.SAMPLES] = [new.samples.start, new.samples.stop]
        new.file.attrs["digest"] = combined_digest(new.column(schema.DIGESTS))

    try:
        with Assembly(config, path, folder, replaces=True) as assembly:
            for piece in index.pieces:
                file = shard_path(folder, piece.first, piece.last, edition)
                shard = Shard(file, piece.first, piece.last, edition)
                temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
                held = range(piece.start, piece.stop)
                with DatasetFile.open(index.path(piece), samples=held) as source:
                    # Before anything is read: a shard could lead to data elsewhere.
                    require_fingerprint(source, old.config)
                    require_range(source)
                    source.validate()
                    merged = _provenance(source, shard.samples, config, provenance, num_computed)
                    _copy(source, temporary, config, features, merged, complete, shard.samples)
                publish(temporary, file)
                assembly.add(Segment(shard, shard.start, shard.stop))
            summary = {name: json_attribute(old, name) for name in _KEPT}
            assembly.finish(summary["run_summary"] | {"design_quality": summary["design_quality"]})
    finally:
        # Whether or not the file was replaced: what it refers to stays, the other edition goes.
        kept = held_files(path)
        for each in {folder, index.folder}:
            remove_shards(each, len(old.samples), kept)


def _provenance(
    source: DatasetFile,
    samples: range,
    config: GenerationConfig,
    new: Mapping[str, str],
    num_computed: int,
) -> dict[str, str]:
    """Return the provenance of some samples of a file with new features of the first samples."""
    everything = range(config.num_samples)
    found = {
        name: [(json_attribute(source, name), source.samples, samples)]
        for name in schema.PROVENANCE
    }
    merged = merged_provenance(found, len(everything), new, num_computed)
    if samples == everything:
        return merged
    for name in ORIGINS:
        records = [(json.loads(merged[name]), everything, samples)]
        merged[name] = json.dumps(merged_records(records, len(everything)))
    return merged


def _copy(
    old: DatasetFile,
    temporary: Path,
    config: GenerationConfig,
    features: Features,
    provenance: dict[str, str],
    complete: Callable[[DatasetFile], None],
    samples: range,
) -> None:
    """Write a file with some samples of another file, new features and new digests."""
    try:
        with DatasetFile.create(temporary, config, samples, provenance) as new:
            copy_samples(old, new, samples, without=features)
            for name, values in features.items():
                new.file[name][...] = values[samples.start : samples.stop]
            # What is lost would look like damage.
            new.check_disk()
            _write_digests(old, new)
            complete(new)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_digests(old: DatasetFile, new: DatasetFile) -> None:
    """Write the digests of the new file after comparing what was copied with the old ones."""
    features = schema.feature_specs(old.config)
    shift = new.samples.start - old.samples.start
    for rows in row_blocks(new.rows):
        held = range(rows.start + shift, rows.stop + shift)
        samples = new.samples[rows.start : rows.stop]
        fields, columns = field_digests(new, rows), columns_of(new, rows)
        copied = columns | {name: old.column(name, held) for name in features}
        expected = old.column(schema.DIGESTS, held)
        differs = sample_digests(old.specs.values(), samples, copied, fields) != expected
        if differs.any():
            wrong = (np.flatnonzero(differs) + samples.start).tolist()
            raise DatasetError(
                f"{old.path}: {name_samples(wrong)} differ from their digests: the file was "
                "changed or damaged since it was verified. It was left as it is"
            )
        digests = sample_digests(new.specs.values(), samples, columns, fields)
        new.file[schema.DIGESTS][rows.start : rows.stop] = digests


def _require_sound(written: DatasetFile, path: Path) -> None:
    _, problem = wrong_samples(written)
    if problem:
        raise DatasetError(
            f"{problem}, copied from {path}: the file was changed or damaged since it was "
            "verified. No dataset was written or replaced. Restore the file from a copy, or "
            "generate the dataset to another path"
        )
