"""Copying samples from one file of a dataset to another."""

from collections.abc import Collection
from itertools import product

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.storage import schema
from spinlock.storage.chunk_reader import ChunkReader
from spinlock.storage.chunks import chunk_offsets
from spinlock.storage.compression import encode_chunk
from spinlock.storage.layout import read_configuration
from spinlock.storage.seal import ROWS_AT_A_TIME


def copy_samples(
    source: h5py.File,
    target: h5py.File,
    config: GenerationConfig,
    samples: range,
    *,
    first: int = 0,
    without: Collection[str] = (),
) -> None:
    """Copy consecutive samples. Chunks that this package packed are copied as they are.

    Args:
        source: Dataset or shard.
        target: File of the same dataset with all its samples, open for writing.
        config: Configuration of the target.
        samples: Samples to copy.
        first: Sample in the first row of the source.
        without: Datasets to leave out.
    """
    held = read_configuration(source).storage.compression
    wanted = config.storage.compression
    for spec in schema.dataset_specs(config):
        if spec.name in without:
            continue
        if spec.chunk is None:
            old, new = source[spec.name], target[spec.name]
            for start in range(samples.start, samples.stop, ROWS_AT_A_TIME):
                stop = min(start + ROWS_AT_A_TIME, samples.stop)
                new[start:stop] = old[start - first : stop - first]
            continue
        reader, chunks = ChunkReader(source, spec, held), target[spec.name].id
        for sample, offset in product(samples, chunk_offsets(spec)):
            packed = reader.packed(sample - first, offset) if held == wanted else None
            if packed is None:
                values = np.ascontiguousarray(reader.values(sample - first, offset))
                packed = encode_chunk(values, wanted)
            chunks.write_direct_chunk((sample, *offset), packed)
