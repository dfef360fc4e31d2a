"""Assembly: files that each hold some samples -> one dataset file.

Compressed chunks are copied as they are. The dataset is written under a temporary name, synced and
renamed, so that a file with the dataset's name is complete.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py

from spinlock.config import GenerationConfig
from spinlock.design import design_quality, make_design
from spinlock.storage import schema
from spinlock.storage.chunks import chunk_offsets, chunk_slices, combined_digest
from spinlock.storage.compression import encode_chunk
from spinlock.storage.layout import create_layout, open_hdf5, read_configuration
from spinlock.storage.shards import Shard, publish

# Rows of a column copied at a time, so that memory does not grow with the dataset.
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Segment:
    """Samples ``start .. stop`` of the dataset, to be taken from a file that holds them."""

    source: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """How a dataset comes about: segments that exist, and gaps that are to be computed."""

    segments: list[Segment]
    gaps: list[range]


def plan_assembly(num_samples: int, sources: Iterable[Shard]) -> Plan:
    """Cover ``0 .. num_samples`` with sources, each sample once, and list what is missing."""
    remaining = sorted(sources, key=lambda source: (source.start, -source.stop))
    segments, gaps, position = [], [], 0
    for source in remaining:
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
    *,
    replace: bool,
) -> None:
    """Write the dataset file from segments that cover it.

    Args:
        config: The dataset.
        segments: Consecutive segments from sample 0 to ``config.num_samples``.
        path: The dataset's file, which comes into being in one step.
        folder: Where the file is written first, on the same file system.
        summary: What the run did, stored in the file; the design's quality, sizes and the time of
            assembly are added.
        replace: Whether there is a file, which the new one extends.

    Raises:
        FileExistsError: If there is a file that is not to be replaced.
    """
    start = time.monotonic()
    temporary = folder / f"{path.name}.tmp"
    try:
        with h5py.File(temporary, "w") as target:
            create_layout(target, config, config.num_samples, _provenance(segments))
            for segment in segments:
                with open_hdf5(segment.source.path) as source:
                    _copy(config, source, target, segment)
            target.attrs["digest"] = combined_digest(target[schema.DIGESTS][...])
            operators = make_design(config).params[:: config.probes_per_operator]
            summary["design_quality"] = design_quality(operators)
            target.attrs["design_quality"] = json.dumps(summary["design_quality"])
            summary |= _sizes(config, target)
            summary["assembly_seconds"] = time.monotonic() - start
            target.attrs["run_summary"] = json.dumps(summary)
        publish(temporary, path, replace=replace)
    finally:
        temporary.unlink(missing_ok=True)


def _sizes(config: GenerationConfig, target: h5py.File) -> dict[str, float]:
    """Bytes of the fields, as values and as stored, and their ratio."""
    names = [spec.name for spec in schema.dataset_specs(config) if spec.chunk is not None]
    values = sum(target[name].nbytes for name in names)
    stored = sum(target[name].id.get_storage_size() for name in names)
    return {
        "field_bytes": values,
        "stored_field_bytes": stored,
        "compression_ratio": stored / values if values else 1.0,
    }


def _provenance(segments: list[Segment]) -> dict[str, str]:
    """What computed the segments, each distinct record once."""
    collected: dict[str, list[object]] = {name: [] for name in schema.PROVENANCE}
    for segment in segments:
        with open_hdf5(segment.source.path) as source:
            for name, records in collected.items():
                records += [r for r in json.loads(source.attrs[name]) if r not in records]
    return {name: json.dumps(records) for name, records in collected.items()}


def _copy(config: GenerationConfig, source: h5py.File, target: h5py.File, segment: Segment) -> None:
    compression = config.storage.compression
    same_filters = read_configuration(source).storage.compression == compression
    shift = segment.source.start
    for spec in schema.dataset_specs(config):
        old, new = source[spec.name], target[spec.name]
        if spec.chunk is None:
            for start in range(segment.start, segment.stop, _ROWS_AT_A_TIME):
                stop = min(start + _ROWS_AT_A_TIME, segment.stop)
                new[start:stop] = old[start - shift : stop - shift]
            continue
        for row, offset in product(range(segment.start, segment.stop), chunk_offsets(spec)):
            if same_filters:
                _, chunk = old.id.read_direct_chunk((row - shift, *offset))
            else:
                values = old[(row - shift, *chunk_slices(spec, offset))]
                chunk = encode_chunk(values, compression)
            new.id.write_direct_chunk((row, *offset), chunk)
