"""Shards: a range of samples in a file of its own, whole or absent.

A shard is written under a temporary name, closed, synced to disk and renamed, so a file with a
shard's name is complete. It has the layout of the dataset.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.config import GenerationConfig
from spinlock.design import Design, make_design
from spinlock.initial_conditions import Mixture
from spinlock.simulation import Samples
from spinlock.storage import schema
from spinlock.storage.compression import encode_chunk
from spinlock.storage.layout import create_layout

_NAME = re.compile(r"shard-(\d{10})-(\d{10})\.h5")
# Chunks being compressed at a time, per thread: enough to keep threads busy, bounded in memory.
_CHUNKS_IN_FLIGHT = 4


@dataclass(frozen=True)
class Shard:
    """A file that holds the samples ``start .. stop``."""

    path: Path
    start: int
    stop: int


def shard_path(folder: Path, start: int, stop: int) -> Path:
    """Where the shard of samples ``start .. stop`` lies."""
    return folder / f"shard-{start:010d}-{stop:010d}.h5"


def list_shards(folder: Path) -> list[Shard]:
    """The shards in a folder, by first sample; other files are passed over."""
    found = []
    for path in sorted(folder.glob("shard-*.h5")):
        if match := _NAME.fullmatch(path.name):
            found.append(Shard(path, int(match[1]), int(match[2])))
    return found


def metadata_columns(config: GenerationConfig, design: Design) -> dict[str, NDArray[Any]]:
    """The columns of the file that follow from the design: dataset name -> (N, ...)."""
    mixture = Mixture(config.initial_conditions)
    values = design.values
    low, high = schema.NOISE_REGIME_BOUNDS
    regime = np.digitize(values["noise_scale"], (low, high))
    return {
        schema.PARAMS: design.params,
        schema.VALUES: values,
        schema.IC_TYPES: _encoded(mixture.names)[design.variant],
        schema.IC_FAMILIES: _encoded(mixture.families)[design.variant],
        schema.POLICIES: values["update_policy"],
        schema.GRID_SIZES: values["grid_size"],
        schema.NOISE_REGIMES: _encoded(("low", "medium", "high"))[regime],
        schema.OPERATOR_INDEX: design.operator_index,
    }


def _encoded(names: tuple[str, ...]) -> NDArray[np.bytes_]:
    return np.array([name.encode() for name in names])


def _feature_columns(samples: Samples) -> dict[str, NDArray[Any]]:
    features = samples.features
    return {
        schema.PER_TIMESTEP: features.per_timestep.cpu().numpy(),
        schema.PER_TRAJECTORY: features.per_trajectory.cpu().numpy(),
        schema.AGGREGATED: features.aggregated.cpu().numpy(),
        schema.INITIAL_FEATURES: samples.initial_features.cpu().numpy(),
    }


class _ShardFile:
    """An open shard: fields go through the compression threads, everything else straight in."""

    def __init__(
        self, file: h5py.File, config: GenerationConfig, start: int, pool: ThreadPoolExecutor
    ) -> None:
        self._file, self._start, self._pool = file, start, pool
        self._compression = config.storage.compression
        self._fields = {s.name: s.shape for s in schema.dataset_specs(config) if s.is_field}
        self._pending: deque[tuple[str, int, Future[bytes]]] = deque()

    def add(self, samples: Samples, limit: int) -> None:
        """Write samples, leaving at most ``limit`` chunks to the threads."""
        first = int(samples.index[0]) - self._start
        for name, column in _feature_columns(samples).items():
            self._file[name][first : first + len(samples)] = column
        if self._fields:
            arrays = {schema.INPUTS: samples.initial, schema.OUTPUTS: samples.fields}
            for name, tensor in arrays.items():
                chunks = tensor.cpu().numpy().reshape(len(samples), *self._fields[name])
                for row, chunk in enumerate(chunks, start=first):
                    task = self._pool.submit(encode_chunk, chunk, self._compression)
                    self._pending.append((name, row, task))
        self.drain(limit)

    def drain(self, limit: int = 0) -> None:
        """Write compressed chunks, oldest first, until at most ``limit`` are pending."""
        while len(self._pending) > limit:
            name, row, task = self._pending.popleft()
            dataset = self._file[name]
            offset = (row, *(0,) * (dataset.ndim - 1))
            dataset.id.write_direct_chunk(offset, task.result())


def write_shard(
    path: Path,
    config: GenerationConfig,
    start: int,
    stop: int,
    samples: Iterable[Samples],
    provenance: dict[str, str],
    on_samples: Callable[[int], None] = lambda count: None,
) -> None:
    """Write one shard.

    Args:
        path: Its final name; see `shard_path`.
        config: The dataset.
        start: First sample.
        stop: One past the last sample.
        samples: The samples ``start .. stop`` in order.
        provenance: Root attributes that tell what computes the samples.
        on_samples: Called with the number of samples just taken in.
    """
    threads = os.cpu_count() or 1
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with (
            ThreadPoolExecutor(threads, thread_name_prefix="compress") as pool,
            h5py.File(temporary, "w") as file,
        ):
            create_layout(file, config, stop - start, provenance)
            design = make_design(config, start, stop)
            for name, column in metadata_columns(config, design).items():
                # HDF5 converts no ASCII into UTF-8: the cast also marks text as what it is.
                file[name][...] = column.astype(file[name].dtype)
            shard = _ShardFile(file, config, start, pool)
            for some in samples:
                shard.add(some, limit=_CHUNKS_IN_FLIGHT * threads)
                on_samples(len(some))
            shard.drain()
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, after its bytes, and then the name, have reached the disk."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
