"""Shards: a range of samples in a file of its own, whole or absent.

A shard is written under a temporary name, closed, synced to disk and renamed, so a file with a
shard's name is complete. It has the layout of the dataset, and a digest of its samples, by which
damage is found before anything is made of it.
"""

import hashlib
import math
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.runtime.output_files import publish
from spinlock.runtime.stage_clock import StageClock
from spinlock.runtime.threads import abandon, shared_pool
from spinlock.simulation.simulator import Samples
from spinlock.simulation.sobol_design import Design, make_design
from spinlock.storage import schema
from spinlock.storage.chunks import (
    chunk_offsets,
    chunk_slices,
    combined_digest,
    content_digest,
    sample_digests,
)
from spinlock.storage.compression import encode_chunk
from spinlock.storage.layout import create_layout

_NAME = re.compile(r"shard-(\d{10})-(\d{10})\.h5")
# Values in the hands of the compression threads: enough to keep them busy, and a bound on memory:
# when compression lags behind, the simulation waits.
_BYTES_IN_FLIGHT = 1 << 26


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
    regime = np.digitize(values["noise_scale"], schema.NOISE_REGIME_BOUNDS)
    return {
        schema.PARAMS: design.params,
        schema.VALUES: values,
        schema.IC_TYPES: _encoded(mixture.names)[design.variant],
        schema.IC_FAMILIES: _encoded(mixture.families)[design.variant],
        schema.POLICIES: values["update_policy"],
        schema.GRID_SIZES: values["grid_size"],
        schema.NOISE_REGIMES: _encoded(schema.NOISE_REGIME_NAMES)[regime],
        schema.OPERATOR_INDEX: design.operator_index,
    }


def _encoded(names: tuple[str, ...]) -> NDArray[np.bytes_]:
    return np.array([name.encode() for name in names])


def _feature_columns(samples: Samples) -> dict[str, NDArray[Any]]:
    return {
        schema.PER_TIMESTEP: samples.features.per_timestep.numpy(),
        schema.PER_TRAJECTORY: samples.features.per_trajectory.numpy(),
        schema.AGGREGATED: samples.features.aggregated.numpy(),
        schema.INITIAL_FEATURES: samples.initial_features.numpy(),
        **{schema.custom_features(array): v.numpy() for array, v in samples.custom.items()},
    }


class _ShardWriter:
    """Collects a shard's columns, and streams its fields through the compression threads."""

    def __init__(
        self,
        file: h5py.File,
        config: GenerationConfig,
        design: Design,
        pool: ThreadPoolExecutor,
        clock: StageClock,
    ) -> None:
        self._file, self._pool, self._clock = file, pool, clock
        self._start = design.start
        self._compression = config.storage.compression
        specs = schema.dataset_specs(config)
        self._specs = [spec for spec in specs if spec.name != schema.DIGESTS]
        self._fields = [spec for spec in self._specs if spec.chunk is not None]
        num = design.stop - design.start
        self._columns = {
            spec.name: np.zeros((num, *spec.shape), spec.dtype)
            for spec in self._specs
            if spec.chunk is None
        }
        for name, column in metadata_columns(config, design).items():
            self._columns[name][...] = column
        # Dataset -> sample -> digest of each of its chunks, filled in as chunks are written.
        self._digests: dict[str, list[list[bytes]]] = {
            spec.name: [[] for _ in range(num)] for spec in self._fields
        }
        self._pending: deque[tuple[str, int, tuple[int, ...], Future[tuple[bytes, bytes]]]]
        self._pending = deque()
        self._pending_bytes = 0
        self._sizes = {
            spec.name: math.prod(spec.chunk) * spec.dtype.itemsize
            for spec in self._fields
            if spec.chunk is not None
        }

    def add(self, samples: Samples) -> None:
        """Take samples in, leaving at most `_BYTES_IN_FLIGHT` to the threads."""
        first = int(samples.index[0]) - self._start
        for name, column in _feature_columns(samples).items():
            self._columns[name][first : first + len(samples)] = column
        arrays = {schema.INPUTS: samples.initial.numpy(), schema.OUTPUTS: samples.fields.numpy()}
        for spec in self._fields:
            entries = arrays[spec.name].reshape(len(samples), *spec.shape)
            if entries.dtype != spec.dtype:
                raise TypeError(f"{spec.name}: values are {entries.dtype}, not {spec.dtype}")
            for row, entry in enumerate(entries, start=first):
                for offset in chunk_offsets(spec):
                    task = self._pool.submit(self._encode, entry[chunk_slices(spec, offset)])
                    self._pending.append((spec.name, row, offset, task))
                    self._pending_bytes += self._sizes[spec.name]
                    self.drain(_BYTES_IN_FLIGHT)

    def _encode(self, values: NDArray[Any]) -> tuple[bytes, bytes]:
        """A chunk's bytes in the file, and the digest of its content."""
        with self._clock.stage("compression"):
            contiguous = np.ascontiguousarray(values)
            digest = hashlib.sha256(contiguous.data).digest()
            return encode_chunk(contiguous, self._compression), digest

    def drain(self, limit: int = 0) -> None:
        """Write compressed chunks, oldest first, until at most ``limit`` bytes are pending."""
        while self._pending_bytes > limit:
            name, row, offset, task = self._pending.popleft()
            self._pending_bytes -= self._sizes[name]
            chunk, digest = task.result()
            with self._clock.stage("writing"):
                self._file[name].id.write_direct_chunk((row, *offset), chunk)
            self._digests[name][row].append(digest)

    def abandon(self) -> None:
        """Leave nothing to the threads; after `finish` there is nothing."""
        abandon([task for *_, task in self._pending])

    def finish(self) -> None:
        """Write what is left: the last chunks, the columns and the digests."""
        self.drain()
        with self._clock.stage("writing"):
            fields = {
                name: [content_digest(chunks) for chunks in rows]
                for name, rows in self._digests.items()
            }
            digests = sample_digests(self._specs, self._columns, fields)
            for name, column in self._columns.items():
                self._file[name][...] = column
            self._file[schema.DIGESTS][...] = digests.astype(self._file[schema.DIGESTS].dtype)
            self._file.attrs["digest"] = combined_digest(digests)


def write_shard(
    path: Path,
    config: GenerationConfig,
    start: int,
    stop: int,
    samples: Iterable[Samples],
    provenance: dict[str, str],
    *,
    clock: StageClock | None = None,
    on_samples: Callable[[int], None] = lambda count: None,
) -> None:
    """Write one shard.

    Args:
        path: Its final name; see `shard_path`.
        config: The dataset.
        start: First sample.
        stop: One past the last sample.
        samples: The samples ``start .. stop`` in order, on the host.
        provenance: Root attributes that tell what computes the samples.
        clock: Counts the time of compression and writing.
        on_samples: Called with the number of samples just taken in.
    """
    clock = clock or StageClock()
    # One thread compresses faster than several simulate on a CPU; an accelerator needs more.
    threads = min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    # Unique among all machines that may share the folder.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with h5py.File(temporary, "x") as file:
            create_layout(file, config, stop - start, provenance)
            file.attrs[schema.SAMPLES] = [start, stop]
            pool = shared_pool("compress", threads)
            writer = _ShardWriter(file, config, make_design(config, start, stop), pool, clock)
            try:
                for some in samples:
                    writer.add(some)
                    on_samples(len(some))
                writer.finish()
            finally:
                writer.abandon()
        with clock.stage("writing"):
            publish(temporary, path, replace=True)
    finally:
        temporary.unlink(missing_ok=True)
