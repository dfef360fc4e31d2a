"""Reads fields of a dataset file in parallel: raw chunks, decompressed outside of HDF5.

HDF5 reads with one thread at a time, and holds Python's lock meanwhile. The places of the chunks in
the file are therefore looked up once; from then on threads read, inflate and unshuffle chunks
without HDF5, undisturbed by forks and other processes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import ordered_map
from spinlock.runtime.threads import shared_pool
from spinlock.storage.compression import inflate_planes, packed_natively, unshuffle
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.hdf5_access import open_hdf5, storage_problem
from spinlock.storage.schema import DatasetSpec

Fields = NDArray[np.float32]


@dataclass(frozen=True)
class _ChunkTable:
    """Places of the chunks of a dataset in the file: (N, chunks of a sample) int64 each."""

    spec: DatasetSpec
    offset: NDArray[np.int64]
    size: NDArray[np.int64]


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
        self._compressed = config.storage.compression == "deflate"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        self._threads = max(1, cores // readers)
        with DatasetFile(open_hdf5(self._path), config) as dataset:
            self._tables = {spec.name: _chunk_table(dataset, spec) for spec in dataset.fields}
            self._identity = _identity(os.stat(self._path))
        # Process -> its file descriptor; a forked child opens the file again.
        self._descriptors: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": {}}

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptors", {}).pop(os.getpid(), None)
        if descriptor is not None:
            os.close(descriptor)

    def read(self, name: str, rows: NDArray[np.int64]) -> Fields:
        """Return whole entries of samples.

        Args:
            name: Name of the dataset.
            rows: (n,) samples.

        Returns:
            (n, ...) entries as in the file.

        Raises:
            DatasetError: If the file is damaged or was replaced.
        """
        out = np.empty((len(rows), *self._tables[name].spec.shape), np.float32)
        self._run(name, rows, lambda chunk, row, place: chunk.join(out[row][place]))
        return out

    def read_mean(self, name: str, rows: NDArray[np.int64]) -> Fields:
        """Return means over the first dimension of each entry, which is kept with size 1."""
        out = self._empty_reduced(name, rows)

        def take(chunk: _Chunk, row: int, place: tuple[slice, ...]) -> None:
            values = np.empty(chunk.shape, np.float32)
            chunk.join(values)
            values.mean(axis=0, keepdims=True, out=out[row][(slice(None), *place[1:])])

        self._run(name, rows, take)
        return out

    def read_one(self, name: str, rows: NDArray[np.int64], which: NDArray[np.int64]) -> Fields:
        """Return one item along the first dimension of each entry, which is kept with size 1.

        Args:
            name: Name of the dataset.
            rows: (n,) samples.
            which: (n,) positions in the first dimension.
        """
        out = self._empty_reduced(name, rows)

        def take(chunk: _Chunk, row: int, place: tuple[slice, ...]) -> None:
            one = slice(which[row], which[row] + 1)
            chunk.join(out[row][(slice(None), *place[1:])], one)

        self._run(name, rows, take)
        return out

    def _empty_reduced(self, name: str, rows: NDArray[np.int64]) -> Fields:
        return np.empty((len(rows), 1, *self._tables[name].spec.shape[1:]), np.float32)

    def _run(
        self,
        name: str,
        rows: NDArray[np.int64],
        take: "Callable[[_Chunk, int, tuple[slice, ...]], None]",
    ) -> None:
        """Read the chunks of samples in threads, in the order of the file.

        Args:
            name: Name of the dataset.
            rows: (n,) samples.
            take: Function of a chunk, the position of its sample in ``rows``, and its place in the
                sample's entry.
        """
        table, descriptor = self._tables[name], self._descriptor()
        places = table.spec.chunk_slices
        pool = shared_pool("read", self._threads)

        def work(task: tuple[int, int]) -> None:
            row, number = task
            sample = int(rows[row])
            size, offset = int(table.size[sample, number]), int(table.offset[sample, number])
            stored = os.pread(descriptor, size, offset)
            try:
                take(_Chunk(stored, table.spec, self._compressed), row, places[number])
            except (IsalError, ValueError) as error:  # type: ignore[misc] # isal declares a value
                raise DatasetError(
                    f"{self._path}: {name} of sample {sample} is damaged ({error})"
                ) from error

        tasks = product(np.argsort(rows, kind="stable").tolist(), range(len(places)))
        for _ in ordered_map(pool, work, tasks, len(rows) * len(places)):
            pass

    def _descriptor(self) -> int:
        """Return this process's descriptor of the file."""
        process = os.getpid()
        if process not in self._descriptors:
            descriptor = os.open(self._path, os.O_RDONLY)
            if _identity(os.fstat(descriptor)) != self._identity:
                os.close(descriptor)
                raise DatasetError(
                    f"{self._path} was replaced since setup(); set the data module up again"
                )
            self._descriptors[process] = descriptor
        return self._descriptors[process]


class _Chunk:
    """Values of a chunk: float32, or still as four planes of bytes."""

    def __init__(self, stored: bytes, spec: DatasetSpec, compressed: bool) -> None:
        assert spec.chunk is not None
        self.shape, self._compressed = spec.chunk, compressed
        if compressed:
            self._planes = inflate_planes(stored, self.shape, spec.dtype)
        else:
            self._values = np.frombuffer(stored, "<f4").reshape(self.shape)

    def join(self, out: Fields, part: slice = slice(None)) -> None:
        """Write a part of the first dimension to ``out``, which has the shape of the part."""
        if self._compressed:
            unshuffle(self._planes[:, part], out)
        else:
            np.copyto(out, self._values[part])


def _chunk_table(dataset: DatasetFile, spec: DatasetSpec) -> _ChunkTable:
    """Look up the chunks of a dataset, and check that they are packed as this package does."""
    where = f"{dataset.path}: {spec.name}"
    if problem := storage_problem(dataset.file, spec.name):
        raise DatasetError(f"{where} {problem}")
    data, compression = dataset.file[spec.name], dataset.config.storage.compression
    assert spec.chunk is not None
    if not packed_natively(data, spec.chunk, compression):
        raise DatasetError(
            f"{where} has other chunks or filters than its configuration (compression: "
            f"{compression}) requires: another program has repacked it. Generate it again to train "
            "on its fields"
        )
    number = {tuple(part.start for part in place): i for i, place in enumerate(spec.chunk_slices)}
    offset = np.zeros((len(dataset.rows), len(number)), np.int64)
    size = np.zeros_like(offset)

    def look(info: Any) -> None:  # noqa: ANN401 (h5py's StoreInfo)
        sample, *inside = info.chunk_offset
        if sample in dataset.rows:
            i = number[tuple(inside)]
            offset[sample, i] = info.byte_offset
            # A chunk that skips a filter would need other decoding.
            size[sample, i] = 0 if info.filter_mask else info.size

    data.id.chunk_iter(look)
    if not size.all():
        sample = int(np.argwhere(size == 0)[0, 0])
        raise DatasetError(f"{where} of sample {sample} is missing or packed otherwise")
    return _ChunkTable(spec, offset, size)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return what distinguishes a file from one that replaces it."""
    return status.st_ino, status.st_size, status.st_mtime_ns
