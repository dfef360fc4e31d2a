"""Verification: what a file holds against the digests that it carries."""

import hashlib
import json

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage import schema
from spinlock.storage.chunks import (
    chunk_offsets,
    combined_digest,
    content_digest,
    sample_digests,
)
from spinlock.storage.compression import decode_chunk
from spinlock.storage.layout import open_hdf5, read_configuration, validate_layout
from spinlock.storage.shards import Shard


def verify_shard(shard: Shard, config: GenerationConfig) -> None:
    """Read a whole shard and compare it with its digest.

    Raises:
        DatasetError: If it is damaged, incomplete or of another dataset.
    """
    try:
        with open_hdf5(shard.path) as file:
            stored = read_configuration(file)
            if stored.fingerprint != config.fingerprint:
                raise DatasetError(f"{shard.path} belongs to another dataset")
            validate_layout(file, config, shard.stop - shard.start)
            digests = file_digests(file, stored)
            same = combined_digest(digests) == file.attrs["digest"]
            same &= np.array_equal(digests, file[schema.DIGESTS][...])
            for name in schema.PROVENANCE:
                json.loads(file.attrs[name])
    except DatasetError:
        raise
    except Exception as error:
        # A damaged byte can make HDF5, the decompressor or a parser fail in any way.
        raise DatasetError(f"{shard.path} is damaged: {error}") from error
    if not same:
        raise DatasetError(f"{shard.path} is damaged: its digest does not match")


def file_digests(file: h5py.File, config: GenerationConfig) -> NDArray[np.bytes_]:
    """The digest of every sample of a file, computed from its content.

    Args:
        file: A dataset or shard.
        config: The configuration stored in it.
    """
    specs = [spec for spec in schema.dataset_specs(config) if spec.name != schema.DIGESTS]
    columns = {spec.name: file[spec.name][...] for spec in specs if spec.chunk is None}
    fields: dict[str, list[bytes]] = {}
    for spec in specs:
        if spec.chunk is not None:
            data = file[spec.name]
            fields[spec.name] = [_entry_digest(data, spec, row, config) for row in range(len(data))]
    return sample_digests(specs, columns, fields)


def _entry_digest(
    data: h5py.Dataset, spec: schema.DatasetSpec, row: int, config: GenerationConfig
) -> bytes:
    digests = []
    for offset in chunk_offsets(spec):
        skipped_filters, chunk = data.id.read_direct_chunk((row, *offset))
        if skipped_filters:
            raise OSError(f"{spec.name}: a chunk of row {row} has filters switched off")
        values = decode_chunk(chunk, config.storage.compression, spec.dtype.itemsize)
        digests.append(hashlib.sha256(values).digest())
    return content_digest(digests)
