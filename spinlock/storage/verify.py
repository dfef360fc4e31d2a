"""Verification: what a file holds against the digests and the design that it must agree with."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.threads import shared_pool
from spinlock.simulation.sobol_design import make_design
from spinlock.storage import schema
from spinlock.storage.attributes import read_attribute
from spinlock.storage.chunk_reader import ChunkReader
from spinlock.storage.chunks import (
    chunk_offsets,
    combined_digest,
    content_digest,
    sample_digests,
)
from spinlock.storage.layout import (
    open_hdf5,
    read_configuration,
    text_attribute,
    validate_layout,
)
from spinlock.storage.seal import require_seal, row_blocks
from spinlock.storage.shards import Shard, metadata_columns

# Columns that follow from the design exactly, on any machine: they tell which samples rows are.
_IDENTIFYING = (schema.PARAMS, schema.OPERATOR_INDEX, schema.IC_TYPES, schema.IC_FAMILIES)
# Samples that a message names.
_MOST_NAMED = 8


def verify_shard(shard: Shard, config: GenerationConfig) -> None:
    """Read a whole shard, and compare it with its digests and with the samples that it must hold.

    Raises:
        DatasetError: If it is damaged, incomplete, of another dataset or of other samples.
    """
    try:
        with open_hdf5(shard.path) as file:
            stored = read_configuration(file)
            if stored.fingerprint != config.fingerprint:
                raise DatasetError(f"{shard.path} belongs to another dataset")
            require_range(file, shard)
            validate_layout(file, stored, shard.stop - shard.start)
            digests = file[schema.DIGESTS][...]
            same = combined_digest(digests) == text_attribute(file, "digest")
            wrong = damaged_samples(file, stored) or foreign_samples(file, config, shard.start)
            for name in schema.PROVENANCE:
                json.loads(text_attribute(file, name))
    except DatasetError:
        raise
    except Exception as error:
        # A damaged byte can make HDF5, the decompressor or a parser fail in any way.
        raise DatasetError(f"{shard.path} is damaged: {error}") from error
    if wrong or not same:
        raise DatasetError(f"{shard.path} is damaged: its digest does not match")


def require_range(file: h5py.File, shard: Shard) -> None:
    """Check that a shard says that it holds the samples that its name says.

    Raises:
        DatasetError: If it does not.
    """
    held = np.asarray(read_attribute(file, schema.SAMPLES)).tolist()
    if held != [shard.start, shard.stop]:
        raise DatasetError(
            f"{file.filename} says that it holds samples {held}, its name says "
            f"[{shard.start}, {shard.stop}]"
        )


def require_intact(path: Path, remedy: str) -> None:
    """Read a whole dataset file and check it, before something is made of it.

    Args:
        path: Dataset file.
        remedy: What the user can do about damage, as a sentence.

    Raises:
        DatasetError: If a value differs from what the file's digests cover. Names the samples.
    """
    with open_hdf5(path) as file:
        config = read_configuration(file)
        validate_layout(file, config, config.num_samples)
        require_seal(file, config)
        if wrong := damaged_samples(file, config):
            raise DatasetError(
                f"{path}: {name_samples(wrong)} differ from their digests: the file was changed or "
                f"damaged after it was written. It was left as it is. {remedy}"
            )
        if wrong := foreign_samples(file, config, 0):
            raise DatasetError(
                f"{path}: {name_samples(wrong)} are not those of its configuration. It was left as "
                f"it is. {remedy}"
            )


def damaged_samples(file: h5py.File, config: GenerationConfig) -> list[int]:
    """Rows whose content differs from their digest, or cannot be read.

    Args:
        file: Dataset or shard.
        config: Configuration stored in it.
    """
    specs = digested_specs(config)
    wrong: list[int] = []
    for rows in row_blocks(len(file[schema.DIGESTS])):
        part = slice(rows.start, rows.stop)
        columns = {spec.name: file[spec.name][part] for spec in specs if spec.chunk is None}
        digests = sample_digests(specs, columns, field_digests(file, config, rows))
        differs = digests != file[schema.DIGESTS][part]
        wrong += (np.flatnonzero(differs) + rows.start).tolist()
    return wrong


def foreign_samples(file: h5py.File, config: GenerationConfig, start: int) -> list[int]:
    """Rows that hold other samples than the design says.

    Args:
        file: Dataset or shard.
        config: The dataset.
        start: Sample that the first row must hold.
    """
    stop = start + len(file[schema.OPERATOR_INDEX])
    expected = metadata_columns(config, make_design(config, start, stop))
    differs = np.zeros(stop - start, dtype=bool)
    for name in _IDENTIFYING:
        differs |= (file[name][...] != expected[name]).reshape(len(differs), -1).any(axis=1)
    return (np.flatnonzero(differs) + start).tolist()


def digested_specs(config: GenerationConfig) -> list[schema.DatasetSpec]:
    """The datasets whose values enter a sample's digest, in order."""
    return [spec for spec in schema.dataset_specs(config) if spec.name != schema.DIGESTS]


def field_digests(file: h5py.File, config: GenerationConfig, rows: range) -> dict[str, list[bytes]]:
    """Digests of the fields of some samples, computed by several threads.

    Args:
        file: Dataset or shard.
        config: Configuration stored in it.
        rows: Rows to read.

    Returns:
        Name of a chunked dataset -> `content_digest` of each row's entry; empty bytes where the
        entry cannot be read.
    """
    pool = shared_pool("verify", os.cpu_count() or 1)
    digests = {}
    for spec in digested_specs(config):
        if spec.chunk is not None:
            reader = ChunkReader(file, spec, config.storage.compression)
            offsets = list(chunk_offsets(spec))
            entries = pool.map(lambda row, r=reader, o=offsets: _entry_digest(r, row, o), rows)
            digests[spec.name] = list(entries)
    return digests


def _entry_digest(reader: ChunkReader, row: int, offsets: Sequence[tuple[int, ...]]) -> bytes:
    try:
        chunks = (np.ascontiguousarray(reader.values(row, offset)).data for offset in offsets)
        return content_digest([hashlib.sha256(chunk).digest() for chunk in chunks])
    except Exception:
        # Damaged bytes can fail in any way; no digest is empty, so the sample will not match.
        return b""


def name_samples(samples: Sequence[int]) -> str:
    """Samples as the subject of a sentence in the plural, at most a few by number."""
    shown = ", ".join(map(str, samples[:_MOST_NAMED]))
    more = len(samples) - _MOST_NAMED
    return f"samples {shown}" + (f" and {more} more" if more > 0 else "")
