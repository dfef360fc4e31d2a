"""The seal of a dataset file: digests of its columns and attributes, besides those of its samples.

`metadata/digests` covers every value of a sample, but only a reader of all of it can verify it. A
column's own digest lets a reader of that column verify what it read, and the digest of attributes
covers what says how to read the file.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage import schema
from spinlock.storage.attributes import read_attribute
from spinlock.storage.chunks import combined_digest

_DIGEST = "attributes_digest"
_SPEC_ATTRIBUTES = ("description", "dimensions", "names", schema.COLUMN_DIGEST)
# Rows of a column in memory at a time.
ROWS_AT_A_TIME = 1024


def column_digest(column: h5py.Dataset) -> str:
    """SHA-256 (hexadecimal) of a dataset's values, row after row."""
    digest = hashlib.sha256()
    for rows in row_blocks(len(column)):
        digest.update(np.ascontiguousarray(column[rows.start : rows.stop]).data)
    return digest.hexdigest()


def row_blocks(num_samples: int) -> Iterator[range]:
    """The rows ``0 .. num_samples`` in consecutive blocks."""
    for start in range(0, num_samples, ROWS_AT_A_TIME):
        yield range(start, min(start + ROWS_AT_A_TIME, num_samples))


def seal(file: h5py.File, config: GenerationConfig) -> None:
    """Write the digests of columns, of samples together, and of attributes; the last step of all.

    Args:
        file: Complete dataset file, open for writing.
        config: Configuration stored in it.
    """
    for spec in schema.dataset_specs(config):
        if spec.chunk is None:
            file[spec.name].attrs[schema.COLUMN_DIGEST] = column_digest(file[spec.name])
    file.attrs["digest"] = combined_digest(file[schema.DIGESTS][...])
    file.attrs[_DIGEST] = attributes_digest(file, config)


def attributes_digest(file: h5py.File, config: GenerationConfig) -> str:
    """SHA-256 (hexadecimal) of the attributes that the schema names, but this digest itself.

    Attributes that a user added do not enter.
    """
    content = [
        [where, name, _plain(read_attribute(holder, name))]
        for where, holder, names in _holders(file, config)
        for name in names
        if name in holder.attrs
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def require_seal(file: h5py.File, config: GenerationConfig) -> None:
    """Check the digest of attributes, and that of the digests of samples.

    Raises:
        DatasetError: If one does not match: the file was changed after it was written.
    """
    found = {
        _DIGEST: attributes_digest(file, config),
        "digest": combined_digest(file[schema.DIGESTS][...]),
    }
    for name, digest in found.items():
        if read_attribute(file, name) != digest:
            covered = "attributes" if name == _DIGEST else schema.DIGESTS
            raise DatasetError(
                f"{file.filename}: {covered} do not match the root attribute {name}; the file was "
                "changed or damaged after it was written. `spinlock check --full` lists what is "
                "wrong with it"
            )


def _holders(
    file: h5py.File, config: GenerationConfig
) -> Iterator[tuple[str, h5py.HLObject, Iterable[str]]]:
    yield "/", file, [name for name in schema.ROOT_ATTRIBUTES if name != _DIGEST]
    for spec in schema.dataset_specs(config):
        yield spec.name, file[spec.name], _SPEC_ATTRIBUTES


def _plain(value: object) -> object:
    """An attribute's value as JSON can hold it; text that came as bytes becomes text."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float) else repr(value)
