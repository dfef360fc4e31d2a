"""Assembly: files that each hold some samples -> one dataset file.

The dataset is written under a temporary name, every sample in it is read back and compared with its
digest, and only then is the file synced and renamed: a file with the dataset's name is complete.
"""

import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.output_files import publish
from spinlock.simulation.sobol_design import design_quality, make_design
from spinlock.storage import schema
from spinlock.storage.copying import copy_samples
from spinlock.storage.foreign import copy_foreign
from spinlock.storage.layout import (
    create_layout,
    open_hdf5,
    read_configuration,
    text_attribute,
    validate_layout,
)
from spinlock.storage.seal import require_seal, seal
from spinlock.storage.shards import Shard
from spinlock.storage.verify import (
    damaged_samples,
    foreign_samples,
    name_samples,
    require_range,
)


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
) -> None:
    """Write the dataset file from segments that cover it.

    Args:
        config: The dataset.
        segments: Consecutive segments from sample 0 to ``config.num_samples``. If one of them is
            taken from the dataset's own file, the new file replaces it, and what its user added is
            kept.
        path: The dataset's file, which comes into being in one step.
        folder: Folder in which the file is written first, on the same file system.
        summary: Statistics of the run, which are stored in the file. The design's quality, sizes
            and the time of assembly are added.

    Raises:
        DatasetError: If a sample of the new file differs from its digest, or is not the one that
            the design says. Names the samples and their source; nothing is replaced.
        FileExistsError: If there is a file that is not to be replaced.
    """
    start = time.monotonic()
    temporary = folder / f"{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with h5py.File(temporary, "x") as target:
            create_layout(target, config, config.num_samples, _provenance(segments))
            for segment in segments:
                _add(target, config, segment, own=segment.source.path == path)
            operators = make_design(config).params[:: config.probes_per_operator]
            summary["design_quality"] = design_quality(operators)
            target.attrs["design_quality"] = json.dumps(summary["design_quality"])
            summary |= _sizes(config, target)
            summary["assembly_seconds"] = time.monotonic() - start
            target.attrs["run_summary"] = json.dumps(summary)
            seal(target, config)
        with open_hdf5(temporary) as written:
            _require_verified(written, config, segments)
        publish(temporary, path, replace=any(s.source.path == path for s in segments))
    finally:
        temporary.unlink(missing_ok=True)


def _add(target: h5py.File, config: GenerationConfig, segment: Segment, *, own: bool) -> None:
    """Copy a segment, and from the dataset's own file also what its user added."""
    samples = range(segment.start, segment.stop)
    with open_hdf5(segment.source.path) as source:
        stored = read_configuration(source)
        validate_layout(source, stored, segment.source.stop - segment.source.start)
        if own:
            copy_foreign(source, target, stored)
        else:
            require_range(source, segment.source)
        copy_samples(source, target, config, samples, first=segment.source.start)


def _require_verified(
    written: h5py.File, config: GenerationConfig, segments: list[Segment]
) -> None:
    """Compare every sample of the new file with its digest and with the design."""
    require_seal(written, config)
    wrong = damaged_samples(written, config) or foreign_samples(written, config, 0)
    if wrong:
        sources = [s.source.path for s in segments if s.start <= wrong[0] < s.stop]
        raise DatasetError(
            f"{name_samples(wrong)} of {sources[0]} differ from their digests or from the design: "
            "the file was changed or damaged since it was verified. No dataset was written or "
            "replaced. Run the same command again: damaged shards are computed again"
        )


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


def _records(source: h5py.File, name: str) -> list[object]:
    try:
        return list(json.loads(text_attribute(source, name)))
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{source.filename} is damaged: its attribute {name} is not a list in JSON ({error}). "
            "Run the same command again: damaged shards are computed again"
        ) from error


def _provenance(segments: list[Segment]) -> dict[str, str]:
    """What computed the segments, each distinct record once."""
    collected: dict[str, list[object]] = {name: [] for name in schema.PROVENANCE}
    for segment in segments:
        with open_hdf5(segment.source.path) as source:
            for name, records in collected.items():
                records += [r for r in _records(source, name) if r not in records]
    return {name: json.dumps(records) for name, records in collected.items()}
