"""Writes dataset files: assembles them from files that hold some samples, or replaces features.

A dataset is written under a temporary name, every sample in it is read back and compared with its
digest, and only then is the file synced and renamed: a file with the dataset's name is complete.
"""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import row_blocks
from spinlock.runtime.output_files import publish
from spinlock.simulation.sobol_design import design_quality
from spinlock.storage import schema
from spinlock.storage.copying import copy_additions, copy_samples
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import columns_of, field_digests, require_seal, sample_digests, seal
from spinlock.storage.origins import ORIGINS, merged_records, with_features
from spinlock.storage.reader import json_attribute
from spinlock.storage.shards import Shard
from spinlock.storage.verify import (
    name_samples,
    require_fingerprint,
    require_range,
    wrong_samples,
)

# Root attributes that `update_features` copies from the old file.
_KEPT = ("design_quality", "run_summary")


@dataclass(frozen=True)
class Segment:
    """Samples ``start`` to ``stop - 1`` of the dataset, copied from a file that holds them."""

    source: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Segments of a dataset that can be copied, and ranges of samples that must be computed."""

    segments: list[Segment]
    gaps: list[range]


def plan_assembly(num_samples: int, sources: Iterable[Shard]) -> Plan:
    """Cover the first ``num_samples`` samples with sources, each sample once, and list the gaps."""
    ordered = sorted(sources, key=lambda source: (source.start, -source.stop))
    segments, gaps, position = [], [], 0
    for source in ordered:
        stop = min(source.stop, num_samples)
        if stop <= max(position, source.start):
            continue
        if source.start > position:
            gaps.append(range(position, source.start))
            position = source.start
        segments.append(Segment(source, position, stop))
        position = stop
    if position < num_samples:
        gaps.append(range(position, num_samples))
    return Plan(segments, gaps)


def assemble(
    config: GenerationConfig,
    segments: list[Segment],
    path: Path,
    folder: Path,
    summary: dict[str, Any],
) -> None:
    """Write the dataset file from segments that cover it.

    Args:
        config: Configuration of the dataset.
        segments: Consecutive segments from sample 0 to ``config.num_samples``. If the source
            of one is the file at ``path`` itself, the new file replaces that file, and what the
            user added to it is kept.
        path: Path of the dataset file, which is created in one step.
        folder: Folder in which the file is written first, on the same file system.
        summary: Statistics of the run, which are stored in the file. This dictionary is changed in
            place: the quality of the design, sizes and the time of assembly are added.

    Raises:
        DatasetError: If a sample of the new file differs from its digest or from the design. The
            message names the samples and the source of the first; nothing is replaced.
        FileExistsError: If a file exists at ``path`` and is not the source of a segment.
    """
    start = time.monotonic()
    temporary = folder / f"{path.name}.{uuid.uuid4().hex}.tmp"
    with _new_dataset(temporary, path, config, segments) as new:
        for segment in segments:
            _add(new, segment, own=segment.source.path == path)
        params = new.design.params[:: config.probes_per_operator]
        summary["design_quality"] = design_quality(params)
        new.file.attrs["design_quality"] = json.dumps(summary["design_quality"])
        summary |= _sizes(new)
        summary["assembly_seconds"] = time.monotonic() - start
        new.file.attrs["run_summary"] = json.dumps(summary)


def update_features(
    path: Path,
    config: GenerationConfig,
    features: Mapping[str, NDArray[np.float32]],
    provenance: dict[str, str],
    num_computed: int,
) -> None:
    """Replace a dataset file by one with other features.

    Args:
        path: Dataset file, which has been verified. It must not be a symbolic link.
        config: Configuration of the new file, which may differ from the old one in its features.
        features: Mapping of names of columns to features (N, ...) of all samples.
        provenance: Root attributes that describe what computed the features; see
            `spinlock.simulation.provenance`.
        num_computed: Number of samples, from the first, whose features were computed.

    Raises:
        DatasetError: If the copied data, with the old features, differ from the old digests. The
            file is left unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    segment = Segment(Shard(path, 0, config.num_samples), 0, config.num_samples)
    with (
        DatasetFile.open(path) as old,
        _new_dataset(temporary, path, config, [segment], provenance, num_computed) as new,
    ):
        for name in _KEPT:
            new.file.attrs[name] = old.text(name)
        copy_additions(old, new)
        copy_samples(old, new, old.samples, without=features)
        for name, values in features.items():
            new.file[name][...] = values
        _write_digests(old, new)


@contextmanager
def _new_dataset(
    temporary: Path,
    path: Path,
    config: GenerationConfig,
    segments: list[Segment],
    feature_provenance: Mapping[str, str] = MappingProxyType({}),
    num_computed: int = 0,
) -> Iterator[DatasetFile]:
    """Let the body write a dataset; then seal and verify it, and move it to its path.

    Sealing writes the digests of columns and attributes, see `spinlock.storage.digests.seal`.

    Args:
        temporary: Path under which the dataset is written.
        path: Final path. A file there is replaced if it is the source of a segment.
        config: Configuration of the dataset.
        segments: Segments that are copied.
        feature_provenance: Root attributes that describe what computed new features; empty if all
            features are copied.
        num_computed: Number of samples, from the first, whose features are new.

    Raises:
        DatasetError: If a sample differs from its digest or from the design.
    """
    merged = _merged_provenance(segments, feature_provenance, num_computed)
    try:
        everything = range(config.num_samples)
        with DatasetFile.create(temporary, config, everything, merged) as new:
            yield new
            seal(new)
        with DatasetFile.open(temporary) as written:
            require_seal(written)
            wrong, problem = wrong_samples(written)
        if wrong:
            source = next(s.source.path for s in segments if s.start <= wrong[0] < s.stop)
            own = "Restore the file from a copy, or generate the dataset to another path"
            shard = "Run the same command again: damaged shards are computed again"
            raise DatasetError(
                f"{problem}, copied from {source}: the file was changed or damaged since it was "
                "verified. No dataset was written or replaced. "
                + (own if source == path else shard)
            )
        publish(temporary, path, replace=any(s.source.path == path for s in segments))
    finally:
        temporary.unlink(missing_ok=True)


def _merged_provenance(
    segments: list[Segment], feature_provenance: Mapping[str, str], num_computed: int
) -> dict[str, str]:
    """Merge the provenance of all segments with that of new features, without duplicates."""
    found: dict[str, list[tuple[list[dict[str, Any]], range, range]]] = defaultdict(list)
    for segment in segments:
        taken = range(segment.start, segment.stop)
        with DatasetFile.open(segment.source.path) as source:
            for name in schema.PROVENANCE:
                found[name].append((json_attribute(source, name), segment.source.samples, taken))
    total = segments[-1].stop
    registries = [records for records, _, _ in found["features"]]
    if feature_provenance:
        # The registry must describe only the features of the new file.
        registries = [json.loads(feature_provenance["features"])]
    merged: dict[str, list[Any]] = {"features": []}
    for records in registries:
        merged["features"] += [r for r in records if r not in merged["features"]]
    for name in ORIGINS:
        merged[name] = merged_records(found[name], total)
        if name in feature_provenance:
            new = json.loads(feature_provenance[name])
            merged[name] = with_features(merged[name], new, num_computed, total)
    return {name: json.dumps(merged[name]) for name in schema.PROVENANCE}


def _add(new: DatasetFile, segment: Segment, *, own: bool) -> None:
    """Copy a segment, and from the dataset's own file also what its user added."""
    with DatasetFile.open(segment.source.path, samples=segment.source.samples) as source:
        require_fingerprint(source, new.config)
        source.validate()
        if own:
            copy_additions(source, new)
        else:
            require_range(source)
        copy_samples(source, new, range(segment.start, segment.stop))


def _sizes(dataset: DatasetFile) -> dict[str, float]:
    """Return the size of the fields in bytes, uncompressed and stored, and their ratio."""
    data = [dataset.file[spec.name] for spec in dataset.fields]
    values = sum(each.nbytes for each in data)
    stored = sum(each.id.get_storage_size() for each in data)
    return {
        "field_bytes": values,
        "stored_field_bytes": stored,
        "compression_ratio": stored / values if values else 1.0,
    }


def _write_digests(old: DatasetFile, new: DatasetFile) -> None:
    """Write the digests of the new file after comparing what was copied with the old ones."""
    features = schema.feature_specs(old.config)
    for rows in row_blocks(new.rows):
        fields, columns = field_digests(new, rows), columns_of(new, rows)
        copied = columns | {name: old.column(name, rows) for name in features}
        expected = old.column(schema.DIGESTS, rows)
        differs = sample_digests(old.specs.values(), rows, copied, fields) != expected
        if differs.any():
            wrong = (np.flatnonzero(differs) + rows.start).tolist()
            raise DatasetError(
                f"{old.path}: {name_samples(wrong)} differ from their digests: the file was "
                "changed or damaged since it was verified. It was left as it is"
            )
        digests = sample_digests(new.specs.values(), rows, columns, fields)
        new.file[schema.DIGESTS][rows.start : rows.stop] = digests
