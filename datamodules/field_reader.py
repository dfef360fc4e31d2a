"""Reads fields of a dataset file in parallel: raw chunks, decompressed outside of HDF5.

HDF5 reads with one thread at a time, and holds Python's lock meanwhile. The places of the chunks in
the file are therefore looked up once; from then on threads read, inflate and unshuffle chunks
without HDF5, undisturbed by forks and other processes.
"""

import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import h5py
import numpy as np
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError, in_a_line
from spinlock.runtime.ordered_map import ordered_map
from spinlock.runtime.output_files import file_identity
from spinlock.runtime.threads import available_cores, shared_pool
from spinlock.storage import schema
from spinlock.storage.compression import FILTERS, decode_chunk, packed_natively
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.hdf5_access import storage_problem
from spinlock.storage.schema import DatasetSpec
from spinlock.storage.stored_data import StoredData

Fields = NDArray[np.float32]


@dataclass(frozen=True)
class _ChunkTable:
    """Places of the chunks of a dataset in its files: (N, chunks of a sample) int64 each."""

    spec: DatasetSpec
    offset: NDArray[np.int64]
    size: NDArray[np.int64]


class _File(NamedTuple):
    """File that holds the fields of some samples: its path, first sample and what identifies it."""

    path: Path
    first: int
    identity: tuple[int, int, int] | None
    compression: str


class FieldReader:
    """Reads the fields of given samples. A reader may be copied to other processes.

    Args:
        path: Path of the dataset file.
        config: Configuration of the dataset, whose first ``num_samples`` samples can be read.
        readers: Number of processes on this machine that read at the same time and share its
            cores.

    Raises:
        DatasetError: If the fields are not stored as the configuration requires.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: GenerationConfig, *, readers: int = 1
    ) -> None:
        self._path = Path(path)
        self._threads = max(1, available_cores() // readers)
        self._files: list[_File] = []
        with DatasetFile.open(self._path) as dataset:
            self._tables = self._read_tables(dataset, config)
        self._firsts = [file.first for file in self._files]
        # Process -> its file descriptor; a forked child opens the file again. The shards of a
        # virtual dataset may be too many to keep them open.
        self._descriptors: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": {}}

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptors", {}).pop(os.getpid(), None)
        if descriptor is not None:
            os.close(descriptor)

    def _read_tables(
        self, dataset: DatasetFile, config: GenerationConfig
    ) -> dict[str, _ChunkTable]:
        specs = [spec for spec in schema.dataset_specs(config) if spec.chunk is not None]
        parts: dict[str, list[_ChunkTable]] = {spec.name: [] for spec in specs}
        first = 0
        for file, rows in dataset.stored_rows(range(config.num_samples)):
            packing: str = config.storage.compression
            if dataset.shards is not None and specs:
                # Shards may have been computed before the setting was changed.
                packing = _packing(file.file[specs[0].name], specs[0]) or packing
            for spec in specs:
                parts[spec.name].append(_chunk_table(file, spec, rows, packing))
            self._files.append(_File(file.path, first, file_identity(file.path), packing))
            first += len(rows)
        return {
            spec.name: _ChunkTable(
                spec,
                np.concatenate([part.offset for part in parts[spec.name]]),
                np.concatenate([part.size for part in parts[spec.name]]),
            )
            for spec in specs
        }

    def read(
        self,
        name: str,
        rows: NDArray[np.int64],
        take: Literal["all", "mean"] | NDArray[np.int64] = "all",
    ) -> Fields:
        """Return entries of samples, or a part of each.

        Args:
            name: Name of the dataset.
            rows: (n,) samples.
            take: ``all``: whole entries. ``mean``: means over the first dimension of each entry,
                which is kept with size 1. Or (n,) positions in the first dimension: one item of
                each entry, with the dimension kept.

        Returns:
            (n, ...) entries as in the file, or (n, 1, ...).

        Raises:
            DatasetError: If the file is damaged or was replaced.
        """
        table = self._tables[name]
        spec, places = table.spec, table.spec.chunk_slices
        chunk = cast("tuple[int, ...]", spec.chunk)
        whole, mean = (isinstance(take, str) and take == mode for mode in ("all", "mean"))
        shape = spec.shape if whole else (1, *spec.shape[1:])
        out = np.empty((len(rows), *shape), np.float32)

        def work(task: tuple[int, int]) -> None:
            row, number = task
            sample, place = int(rows[row]), places[number]
            size, offset = int(table.size[sample, number]), int(table.offset[sample, number])
            file = self._files[bisect_right(self._firsts, sample) - 1]
            stored = self._stored(file, size, offset)
            part = slice(None) if isinstance(take, str) else slice(take[row], take[row] + 1)
            try:
                values = decode_chunk(stored, file.compression, chunk, spec.dtype, part)
            except (IsalError, ValueError) as error:  # type: ignore[misc] # isal declares a value
                raise DatasetError(
                    f"{file.path}: {name} of sample {sample} is damaged ({in_a_line(error)})"
                ) from error
            out[row][place if whole else (slice(None), *place[1:])] = (
                values.mean(axis=0, keepdims=True) if mean else values
            )

        if len(self._files) == 1:
            self._descriptor()
        pool = shared_pool("read", self._threads)
        # In the order of the file.
        tasks = product(np.argsort(rows, kind="stable").tolist(), range(len(places)))
        for _ in ordered_map(pool, work, tasks, len(rows) * len(places)):
            pass
        return out

    def _stored(self, file: _File, size: int, offset: int) -> bytes:
        if len(self._files) == 1:
            return os.pread(self._descriptor(), size, offset)
        descriptor = _opened(file)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def _descriptor(self) -> int:
        """Return this process's descriptor of the only file."""
        process = os.getpid()
        if process not in self._descriptors:
            self._descriptors[process] = _opened(self._files[0])
        return self._descriptors[process]


def _opened(file: _File) -> int:
    """Return a new descriptor of a file."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise DatasetError(f"{file.path} was removed since setup()") from error
    if file_identity(descriptor) != file.identity:
        os.close(descriptor)
        raise DatasetError(f"{file.path} was replaced since setup(); set the data module up again")
    return descriptor


def _packing(data: h5py.Dataset, spec: DatasetSpec) -> str | None:
    """Return how this package packed a dataset; None if it did not."""
    assert spec.chunk is not None
    return next((name for name in FILTERS if packed_natively(data, spec.chunk, name)), None)


def _chunk_table(
    dataset: StoredData, spec: DatasetSpec, rows: range, compression: str
) -> _ChunkTable:
    """Look up the chunks of some rows, and check that they are packed as this package does."""
    where = f"{dataset.path}: {spec.name}"
    if problem := storage_problem(dataset.file, spec.name):
        raise DatasetError(f"{where} {problem}")
    data = dataset.file[spec.name]
    assert spec.chunk is not None
    if not packed_natively(data, spec.chunk, compression):
        raise DatasetError(
            f"{where} has other chunks or filters than its configuration (compression: "
            f"{compression}) requires: another program has repacked it. Generate it again to train "
            "on its fields"
        )
    number = {tuple(part.start for part in place): i for i, place in enumerate(spec.chunk_slices)}
    offset = np.zeros((len(rows), len(number)), np.int64)
    size = np.zeros_like(offset)

    def look(info: Any) -> None:  # noqa: ANN401 (h5py's StoreInfo)
        row, *inside = info.chunk_offset
        if row in rows:
            place = row - rows.start, number[tuple(inside)]
            offset[place] = info.byte_offset
            # A chunk that skips a filter would need other decoding.
            size[place] = 0 if info.filter_mask else info.size

    data.id.chunk_iter(look)
    if not size.all():
        sample = dataset.samples[rows[int(np.argwhere(size == 0)[0, 0])]]
        raise DatasetError(f"{where} of sample {sample} is missing or packed otherwise")
    return _ChunkTable(spec, offset, size)
