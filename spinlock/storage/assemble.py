"""Assembly: files that each hold some samples -> one dataset file.

Compressed chunks are copied as they are. The dataset is written under a temporary name, synced and
renamed, so that a file with the dataset's name is complete.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py

from spinlock.config import GenerationConfig
from spinlock.design import design_quality, make_design
from spinlock.storage import schema
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


def assemble(config: GenerationConfig, segments: list[Segment], path: Path) -> None:
    """Write the dataset file from segments that cover it.

    Args:
        config: The dataset.
        segments: Consecutive segments from sample 0 to ``config.num_samples``.
        path: The dataset's file, replaced in one step.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as target:
            create_layout(target, config, config.num_samples, _provenance(config, segments))
            for segment in segments:
                with open_hdf5(segment.source.path) as source:
                    _copy(config, source, target, segment)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _provenance(config: GenerationConfig, segments: list[Segment]) -> dict[str, str]:
    """What computed the segments (each distinct record once), and the design's quality."""
    collected: dict[str, list[object]] = {name: [] for name in schema.PROVENANCE}
    for segment in segments:
        with open_hdf5(segment.source.path) as source:
            for name, records in collected.items():
                records += [r for r in json.loads(source.attrs[name]) if r not in records]
    operators = make_design(config).params[:: config.probes_per_operator]
    return {
        **{name: json.dumps(records) for name, records in collected.items()},
        "design_quality": json.dumps(design_quality(operators)),
    }


def _copy(config: GenerationConfig, source: h5py.File, target: h5py.File, segment: Segment) -> None:
    compression = config.storage.compression
    same_filters = read_configuration(source).storage.compression == compression
    shift = segment.source.start
    for spec in schema.dataset_specs(config):
        old, new = source[spec.name], target[spec.name]
        if not spec.is_field:
            for start in range(segment.start, segment.stop, _ROWS_AT_A_TIME):
                stop = min(start + _ROWS_AT_A_TIME, segment.stop)
                new[start:stop] = old[start - shift : stop - shift]
            continue
        for row in range(segment.start, segment.stop):
            origin = (0,) * (new.ndim - 1)
            if same_filters:
                _, chunk = old.id.read_direct_chunk((row - shift, *origin))
            else:
                chunk = encode_chunk(old[row - shift], compression)
            new.id.write_direct_chunk((row, *origin), chunk)
