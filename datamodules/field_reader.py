"""Fields of a dataset file: raw chunks, read and decompressed side by side outside of HDF5.

HDF5 reads with one thread at a time, and so does Python while it is inside of HDF5. Where each
chunk lies in the file is looked up once; from then on threads read, inflate and unshuffle chunks
without it, which neither a fork nor another process disturbs.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.threads import abandon, shared_pool
from spinlock.storage.chunks import chunk_offsets, chunk_slices
from spinlock.storage.compression import unshuffle
from spinlock.storage.layout import open_hdf5, storage_problem
from spinlock.storage.schema import DatasetSpec, dataset_specs

Fields = NDArray[np.float32]


@dataclass(frozen=True)
class _ChunkTable:
    """Where the chunks of a dataset lie in the file: (N, chunks of a sample) int64 each."""

    spec: DatasetSpec
    offset: NDArray[np.int64]
    size: NDArray[np.int64]


class FieldReader:
    """Reads fields of any samples; may be copied to other processes.

    Args:
        path: The dataset file.
        config: The dataset; its first ``num_samples`` samples can be read.
        readers: Processes of this machine that read at the same time; the cores are shared out.

    Raises:
        DatasetError: If the fields are not stored as the configuration says.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: GenerationConfig, *, readers: int = 1
    ) -> None:
        self._path = Path(path)
        self._compressed = config.storage.compression == "deflate"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        self._threads = max(1, cores // readers)
        specs = [spec for spec in dataset_specs(config) if spec.chunk is not None]
        with open_hdf5(self._path) as file:
            self._tables = {
                spec.name: _chunk_table(file, spec, config.num_samples, self._compressed)
                for spec in specs
            }
            self._identity = _identity(os.stat(self._path))
        # Process -> its descriptor; a forked child has no use for its parent's.
        self._descriptors: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": {}}

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptors", {}).pop(os.getpid(), None)
        if descriptor is not None:
            os.close(descriptor)

    def read(self, name: str, rows: NDArray[np.int64]) -> Fields:
        """Whole entries of samples.

        Args:
            name: The dataset.
            rows: (n,) samples.

        Returns:
            (n, ...) as in the file.

        Raises:
            DatasetError: If the file is damaged, or another one than it was.
        """
        out = np.empty((len(rows), *self._tables[name].spec.shape), np.float32)
        self._run(name, rows, lambda chunk, row, place: chunk.join(out[row][place]))
        return out

    def read_mean(self, name: str, rows: NDArray[np.int64]) -> Fields:
        """Means over the first dimension of each entry, which is kept with size 1."""
        out = self._empty_reduced(name, rows)

        def take(chunk: _Chunk, row: int, place: tuple[slice, ...]) -> None:
            values = np.empty(chunk.shape, np.float32)
            chunk.join(values)
            values.mean(axis=0, keepdims=True, out=out[row][(slice(None), *place[1:])])

        self._run(name, rows, take)
        return out

    def read_one(self, name: str, rows: NDArray[np.int64], which: NDArray[np.int64]) -> Fields:
        """One of the first dimension of each entry, which is kept with size 1.

        Args:
            name: The dataset.
            rows: (n,) samples.
            which: (n,) position in the first dimension.
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
        """Have threads read the chunks of samples, in the file's order.

        Args:
            name: The dataset.
            rows: (n,) samples.
            take: Called with a chunk, the position of its sample in ``rows``, and its place in the
                sample's entry.
        """
        table, descriptor = self._tables[name], self._descriptor()
        places = [chunk_slices(table.spec, offset) for offset in chunk_offsets(table.spec)]
        pool = shared_pool("read", self._threads)
        pending: list[Future[None]] = []

        def work(row: int, number: int) -> None:
            sample = int(rows[row])
            size, offset = int(table.size[sample, number]), int(table.offset[sample, number])
            stored = os.pread(descriptor, size, offset)
            try:
                take(_Chunk(stored, table.spec, self._compressed), row, places[number])
            except (IsalError, ValueError) as error:  # type: ignore[misc] # isal declares a value
                raise DatasetError(
                    f"{self._path}: {name} of sample {sample} is damaged ({error})"
                ) from error

        try:
            for row in np.argsort(rows, kind="stable").tolist():
                pending += [pool.submit(work, row, number) for number in range(len(places))]
            for task in pending:
                task.result()
        finally:
            abandon(pending)

    def _descriptor(self) -> int:
        """This process's own descriptor of the file."""
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
    """A chunk's values: float32 as they are, or as four planes of bytes."""

    def __init__(self, stored: bytes, spec: DatasetSpec, compressed: bool) -> None:
        assert spec.chunk is not None
        self.shape = spec.chunk
        if compressed:
            # A buffer of the right size at once; isal's default would have to grow many times.
            plain = isal_zlib.decompress(stored, bufsize=4 * math.prod(self.shape) + 1)
            self._planes = np.frombuffer(plain, np.uint8).reshape(4, *self.shape)
        else:
            self._values = np.frombuffer(stored, "<f4").reshape(self.shape)
        self._compressed = compressed

    def join(self, out: Fields, part: slice = slice(None)) -> None:
        """Write a part of the first dimension into ``out``, of the part's shape."""
        if not self._compressed:
            np.copyto(out, self._values[part])
            return
        unshuffle(self._planes[:, part], out)


def _chunk_table(
    file: h5py.File, spec: DatasetSpec, num_samples: int, deflate: bool
) -> _ChunkTable:
    """Look up the chunks of the first samples, and check that they are packed as they should be."""
    if problem := storage_problem(file, spec.name):
        raise DatasetError(f"{file.filename}: {spec.name} {problem}")
    dataset = file[spec.name]
    assert spec.chunk is not None
    found = (dataset.chunks, dataset.shuffle, dataset.compression, dataset.fletcher32)
    expected = ((1, *spec.chunk), deflate, "gzip" if deflate else None, False)
    if found != expected:
        raise DatasetError(
            f"{file.filename}: {spec.name} has (chunks, shuffle, compression, checksum) {found}, "
            f"its configuration says {expected}: another program has repacked it. Generate it "
            "anew to train on its fields"
        )
    number = {offset: place for place, offset in enumerate(chunk_offsets(spec))}
    offset = np.zeros((num_samples, len(number)), np.int64)
    size = np.zeros_like(offset)

    def look(info: Any) -> None:  # noqa: ANN401 (h5py's StoreInfo)
        sample, *inside = info.chunk_offset
        if sample < num_samples:
            place = number[tuple(inside)]
            offset[sample, place] = info.byte_offset
            # A chunk to which a filter was not applied would need other decoding.
            size[sample, place] = 0 if info.filter_mask else info.size

    dataset.id.chunk_iter(look)
    if not size.all():
        sample = int(np.argwhere(size == 0)[0, 0])
        raise DatasetError(
            f"{file.filename}: {spec.name} of sample {sample} is missing or packed otherwise"
        )
    return _ChunkTable(spec, offset, size)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is replaced."""
    return status.st_ino, status.st_size, status.st_mtime_ns
