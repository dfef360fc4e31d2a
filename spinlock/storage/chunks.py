"""How one sample's fields are cut into chunks, and what identifies their content.

A chunk holds one channel of a sample with all its realizations and timesteps. Deflate looks back 32
KiB, and after the byte shuffle neighbouring realizations of a 128 x 128 channel lie 16 KiB apart:
it finds the leading bytes that they share, which it would not with all channels in one chunk.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.storage.schema import DatasetSpec


def chunk_offsets(spec: DatasetSpec) -> Iterator[tuple[int, ...]]:
    """First element of each chunk of a sample's entry, in storage order."""
    if spec.chunk is None:
        raise ValueError(f"{spec.name} is not chunked")
    steps = (range(0, size, step) for size, step in zip(spec.shape, spec.chunk, strict=True))
    yield from product(*steps)


def chunk_slices(spec: DatasetSpec, offset: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the chunk at an offset lies in a sample's entry."""
    assert spec.chunk is not None
    return tuple(slice(o, o + c) for o, c in zip(offset, spec.chunk, strict=True))


def sample_digests(
    specs: Sequence[DatasetSpec],
    columns: Mapping[str, NDArray[Any]],
    field_digests: Mapping[str, Sequence[bytes]],
) -> NDArray[np.bytes_]:
    """SHA-256 of each sample's content, whatever its compression and wherever it is stored.

    Args:
        specs: The datasets, in the order in which they are digested.
        columns: Dataset name -> values of n samples, in the file's type.
        field_digests: Name of a chunked dataset -> `content_digest` of each sample's entry.

    Returns:
        (n,) hexadecimal digests, 64 ASCII bytes each.
    """
    hashes = [hashlib.sha256() for _ in next(iter(columns.values()))]
    for spec in specs:
        for row, digest in enumerate(hashes):
            digest.update(spec.name.encode())
            if spec.chunk is None:
                digest.update(columns[spec.name][row].tobytes())
            else:
                digest.update(field_digests[spec.name][row])
    return np.array([digest.hexdigest().encode() for digest in hashes])


def content_digest(chunks: Sequence[bytes]) -> bytes:
    """Digest of a sample's field from the SHA-256 of each of its chunks, uncompressed."""
    return hashlib.sha256(b"".join(chunks)).digest()


def combined_digest(digests: NDArray[np.bytes_]) -> str:
    """Digest of a range of samples: SHA-256 (hexadecimal) of theirs, in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()
