"""Reads fields of a dataset file in parallel: raw chunks, decompressed outside of HDF5.

HDF5 reads with one thread at a time, and holds Python's lock meanwhile. The places of the chunks in
the file are therefore looked up once; from then on threads read, inflate and unshuffle chunks
without HDF5, undisturbed by forks and other processes.
"""

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from isal.igzip_lib import IsalError
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import ordered_map
from spinlock.runtime.threads import available_cores, shared_pool
from spinlock.storage.compression import decode_chunk, packed_natively
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
        self._compression = config.storage.compression
        self._threads = max(1, available_cores() // readers)
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
        table, descriptor = self._tables[name], self._descriptor()
        spec, places = table.spec, table.spec.chunk_slices
        chunk = cast("tuple[int, ...]", spec.chunk)
        whole, mean = (isinstance(take, str) and take == mode for mode in ("all", "mean"))
        shape = spec.shape if whole else (1, *spec.shape[1:])
        out = np.empty((len(rows), *shape), np.float32)

        def work(task: tuple[int, int]) -> None:
            row, number = task
            sample, place = int(rows[row]), places[number]
            size, offset = int(table.size[sample, number]), int(table.offset[sample, number])
            stored = os.pread(descriptor, size, offset)
            part = slice(None) if isinstance(take, str) else slice(take[row], take[row] + 1)
            try:
                values = decode_chunk(stored, self._compression, chunk, spec.dtype, part)
            except (IsalError, ValueError) as error:  # type: ignore[misc] # isal declares a value
                raise DatasetError(
                    f"{self._path}: {name} of sample {sample} is damaged ({error})"
                ) from error
            out[row][place if whole else (slice(None), *place[1:])] = (
                values.mean(axis=0, keepdims=True) if mean else values
            )

        pool = shared_pool("read", self._threads)
        # In the order of the file.
        tasks = product(np.argsort(rows, kind="stable").tolist(), range(len(places)))
        for _ in ordered_map(pool, work, tasks, len(rows) * len(places)):
            pass
        return out

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
