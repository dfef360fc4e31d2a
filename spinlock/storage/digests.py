"""Computes the digests of samples, columns and attributes, and seals a finished dataset file.

`metadata/digests` covers every value of a sample, but verifying it takes reading all of them. The
digest of a column lets a reader of that column verify what it has read, and the digest of the
attributes covers what describes how to read the file.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import ordered_map, row_blocks
from spinlock.runtime.threads import available_cores, shared_pool
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.hdf5_access import is_refusal, read_attribute
from spinlock.storage.shard_index import INDEX, INDEX_ATTRIBUTES

_ATTRIBUTES_DIGEST = "attributes_digest"


def chunk_digest(values: NDArray[Any]) -> bytes:
    """Return the digest of a chunk's values, which are contiguous in memory."""
    return hashlib.sha256(values.data).digest()


def content_digest(chunks: Iterable[bytes]) -> bytes:
    """Return the digest of a sample's field from the digests of its chunks."""
    return hashlib.sha256(b"".join(chunks)).digest()


def combined_digest(digests: NDArray[np.bytes_]) -> str:
    """Return the SHA-256 (hexadecimal) of the digests of consecutive samples."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def sample_digests(
    specs: Iterable[schema.DatasetSpec],
    samples: Sequence[int],
    columns: Mapping[str, NDArray[Any]],
    fields: Mapping[str, Sequence[bytes]],
) -> NDArray[np.bytes_]:
    """Return the SHA-256 of the content of n samples, which does not depend on its compression.

    The row of an operator belongs to the content of its first sample.

    Args:
        specs: Datasets of the file, in order.
        samples: Indices of the samples.
        columns: Name of a column -> values of these samples, in the type of the file.
        fields: Name of a chunked dataset -> n digests, see `content_digest`.

    Returns:
        (n,) hexadecimal digests of 64 ASCII bytes.
    """
    hashes = [hashlib.sha256() for _ in samples]
    for spec in specs:
        if spec.name == schema.DIGESTS:
            continue
        owners = [
            digest
            for index, digest in zip(samples, hashes, strict=True)
            if not index % spec.samples_per_row
        ]
        for row, digest in enumerate(owners):
            digest.update(spec.name.encode())
            if spec.chunk is None:
                digest.update(columns[spec.name][row].tobytes())
            else:
                digest.update(fields[spec.name][row])
    return np.array([digest.hexdigest().encode() for digest in hashes], schema.DIGEST_DTYPE)


def field_digests(dataset: DatasetFile, rows: range) -> dict[str, list[bytes]]:
    """Return the `content_digest` of the fields in some rows, computed by several threads.

    Returns:
        Name of a chunked dataset -> digest for each row; empty bytes if the row cannot be read.

    Raises:
        OSError: If the system refuses to read the file.
        DatasetError: If a shard is not the one that the dataset lists, or the system refuses to
            open it.
    """
    threads = available_cores()
    pool = shared_pool("verify", threads)
    return {
        spec.name: list(
            ordered_map(pool, partial(_field_digest, dataset, spec.name), rows, 2 * threads)
        )
        for spec in dataset.fields
    }


def _field_digest(dataset: DatasetFile, name: str, row: int) -> bytes:
    try:
        places = dataset.specs[name].chunk_slices
        return content_digest(chunk_digest(dataset.chunk(name, row, place)) for place in places)
    except Exception as error:
        # A shard that is not the one that the dataset lists names itself.
        if is_refusal(error) or isinstance(error, DatasetError):
            raise
        # Damaged bytes can fail in any way. No digest is empty, so the sample will not match.
        return b""


def columns_of(dataset: DatasetFile, rows: range) -> dict[str, NDArray[Any]]:
    """Return the values of every column for the samples in ``rows``."""
    return {spec.name: dataset.column(spec.name, rows) for spec in dataset.columns}


def computed_digests(dataset: DatasetFile, rows: range) -> NDArray[np.bytes_]:
    """Return the digests of the content of some rows."""
    fields = field_digests(dataset, rows)
    samples, columns = dataset.samples[rows.start : rows.stop], columns_of(dataset, rows)
    return sample_digests(dataset.specs.values(), samples, columns, fields)


def column_digest(dataset: DatasetFile, name: str) -> str:
    """Return the SHA-256 (hexadecimal) of the values of a column."""
    digest = hashlib.sha256()
    for rows in row_blocks(dataset.rows):
        digest.update(np.ascontiguousarray(dataset.column(name, rows)).data)
    return digest.hexdigest()


def attributes_digest(dataset: DatasetFile) -> str:
    """Return the SHA-256 (hexadecimal) of the attributes that the schema names, except this digest.

    Attributes that a user added are not covered.
    """
    content = [
        [where, name, _plain(value)]
        for where, holder, names in _holders(dataset)
        for name in names
        if (value := read_attribute(holder, name)) is not None
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def seal(dataset: DatasetFile) -> None:
    """Write the digests of the columns, of the samples together and of the attributes.

    Args:
        dataset: Complete dataset file, open for writing. Nothing may be changed in it afterwards.
    """
    for spec in dataset.columns:
        dataset.file[spec.name].attrs[schema.COLUMN_DIGEST] = column_digest(dataset, spec.name)
    dataset.file.attrs["digest"] = combined_digest(dataset.column(schema.DIGESTS))
    dataset.file.attrs[_ATTRIBUTES_DIGEST] = attributes_digest(dataset)


def require_seal(dataset: DatasetFile) -> None:
    """Check the digest of the attributes and that of the digests of the samples.

    Raises:
        DatasetError: If one does not match: the file was changed after it was written.
    """
    found = {
        _ATTRIBUTES_DIGEST: attributes_digest(dataset),
        "digest": combined_digest(dataset.column(schema.DIGESTS)),
    }
    for name, digest in found.items():
        if read_attribute(dataset.file, name) != digest:
            covered = "attributes" if name == _ATTRIBUTES_DIGEST else schema.DIGESTS
            raise DatasetError(
                f"{dataset.path}: {covered} do not match the root attribute {name}; the file was "
                "changed or damaged after it was written. `spinlock check --full` lists what is "
                "wrong with it"
            )


def _holders(dataset: DatasetFile) -> Iterator[tuple[str, h5py.HLObject, Iterable[str]]]:
    yield "/", dataset.file, [n for n in schema.ROOT_ATTRIBUTES if n != _ATTRIBUTES_DIGEST]
    for name in dataset.specs:
        yield name, dataset.file[name], schema.DATASET_ATTRIBUTES
    if dataset.shards is not None:
        yield INDEX, dataset.file[INDEX], INDEX_ATTRIBUTES


def _plain(value: object) -> object:
    """Return an attribute's value as JSON can hold it; bytes become text."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float) else repr(value)
