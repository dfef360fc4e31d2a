"""Writes shards: files that hold a range of samples each, in a folder beside the dataset.

A shard is written under a temporary name, closed, synced to disk and renamed, so a file with a
shard's name is complete. It has the layout of the dataset and a digest of its samples, by which
damage is found before the dataset is assembled from it.
"""

import math
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import ordered_map
from spinlock.runtime.output_files import publish
from spinlock.runtime.stage_clock import StageClock
from spinlock.runtime.threads import available_cores, shared_pool
from spinlock.simulation.samples import Samples
from spinlock.storage import schema
from spinlock.storage.columns import metadata_columns, sample_arrays
from spinlock.storage.compression import encode_chunk
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import chunk_digest, combined_digest, content_digest, sample_digests
from spinlock.storage.shard_files import Shard
from spinlock.storage.verify import verify_shard

# Values that the compression threads hold: enough to keep them busy, and a bound on memory. When
# compression lags behind, the simulation waits.
_BYTES_IN_FLIGHT = 1 << 26


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
    finish: Callable[[Path, Path], None] = publish,
) -> None:
    """Write one shard.

    Args:
        path: Final path of the shard, see `shard_path`.
        config: Configuration of the dataset.
        start: First sample.
        stop: One past the last sample.
        samples: Samples ``start .. stop`` in order, on the host.
        provenance: Root attributes that describe what computes the samples.
        clock: Clock that counts the time of compression and writing.
        on_samples: Function that is called with the number of samples just received.
        finish: Function that syncs the closed file and renames it, or has that done; from then on
            it is responsible for the temporary file. Default: sync and rename.
    """
    # Unique among all machines that may share the folder.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    clock = clock or StageClock()
    try:
        with DatasetFile.create(temporary, config, range(start, stop), provenance) as shard:
            shard.file.attrs[schema.SAMPLES] = [start, stop]
            _ShardWriter(shard, clock).write(samples, on_samples)
        with clock.stage("writing"):
            finish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish_shard(temporary: Path, shard: Shard, config: GenerationConfig) -> None:
    """Sync a finished shard, and give it its name.

    With the layout ``virtual``, an intact shard of that name stays, and the new one is removed: a
    dataset may refer to it by its size and digest, which a worker that is late cannot know. On
    another device, or with another version of a library, the new one may differ.

    Args:
        temporary: Finished file.
        shard: Path and samples of the shard.
        config: Configuration of the dataset.

    Raises:
        OSError: If a file cannot be written, or the system refuses to read the existing shard.
    """
    if config.storage.layout == "virtual":
        try:
            publish(temporary, shard.path, replace=False)
            return
        except FileExistsError:
            pass
        try:
            verify_shard(shard, config)
            temporary.unlink()
            return
        except DatasetError:
            # It is damaged.
            pass
    publish(temporary, shard.path)


class _Chunk(NamedTuple):
    """Place of one chunk in a shard: dataset, row, and first element of each dimension."""

    name: str
    row: int
    offset: tuple[int, ...]


class _ShardWriter:
    """Collects the columns of a shard, and compresses its fields in threads."""

    def __init__(self, shard: DatasetFile, clock: StageClock) -> None:
        self._shard, self._clock = shard, clock
        self._columns = {
            spec.name: np.zeros((len(spec.rows(shard.samples)), *spec.shape), spec.dtype)
            for spec in shard.columns
        }
        for name, column in metadata_columns(shard.config, shard.design).items():
            self._columns[name][...] = column

    def write(self, samples: Iterable[Samples], on_samples: Callable[[int], None]) -> None:
        """Write samples, and then the columns and the digests."""
        # One thread compresses faster than several simulate on a CPU; an accelerator needs more.
        threads = min(16, available_cores())
        fields = self._shard.fields
        sizes = [math.prod(spec.chunk or ()) * spec.dtype.itemsize for spec in fields]
        limit = _BYTES_IN_FLIGHT // max(sizes, default=1)
        # Dataset -> sample -> digests of its chunks.
        digests: dict[str, list[list[bytes]]] = {
            spec.name: [[] for _ in self._shard.samples] for spec in fields
        }
        pool, chunks = shared_pool("compress", threads), self._chunks(samples, on_samples)
        with closing(ordered_map(pool, self._encode, chunks, limit)) as encoded:
            for chunk, packed, digest in encoded:
                with self._clock.stage("writing"):
                    data = self._shard.file[chunk.name].id
                    data.write_direct_chunk((chunk.row, *chunk.offset), packed)
                    self._shard.check_disk()
                digests[chunk.name][chunk.row].append(digest)
        with self._clock.stage("writing"):
            self._write_columns({n: list(map(content_digest, rows)) for n, rows in digests.items()})

    def _chunks(
        self, samples: Iterable[Samples], on_samples: Callable[[int], None]
    ) -> Iterator[tuple[_Chunk, NDArray[Any]]]:
        """Yield the chunks of samples with their values, and store features in the columns."""
        for some in samples:
            first = int(some.index[0]) - self._shard.samples.start
            arrays = sample_arrays(some)
            for name in self._columns.keys() & arrays.keys():
                rows = self._shard.place(name, range(first, first + len(some)))
                self._columns[name][rows] = arrays[name]
            for spec in self._shard.fields:
                entries = arrays[spec.name].reshape(len(some), *spec.shape)
                if entries.dtype != spec.dtype:
                    raise TypeError(f"{spec.name}: values are {entries.dtype}, not {spec.dtype}")
                for row, entry in enumerate(entries, start=first):
                    for place in spec.chunk_slices:
                        offset = tuple(part.start for part in place)
                        yield _Chunk(spec.name, row, offset), entry[place]
            on_samples(len(some))

    def _encode(self, item: tuple[_Chunk, NDArray[Any]]) -> tuple[_Chunk, bytes, bytes]:
        """Return a chunk with its bytes in the file and the digest of its content."""
        chunk, values = item
        with self._clock.stage("compression"):
            values = np.ascontiguousarray(values)
            packed = encode_chunk(values, self._shard.config.storage.compression)
            return chunk, packed, chunk_digest(values)

    def _write_columns(self, fields: dict[str, list[bytes]]) -> None:
        digests = sample_digests(
            self._shard.specs.values(), self._shard.samples, self._columns, fields
        )
        self._columns[schema.DIGESTS][...] = digests
        for name, column in self._columns.items():
            self._shard.file[name][...] = column
        self._shard.file.attrs["digest"] = combined_digest(digests)
