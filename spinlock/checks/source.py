"""The file under check: its configuration, columns, and fields with the digest of what was read."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.config import GenerationConfig
from spinlock.design import Design, make_design
from spinlock.initial_conditions import Mixture
from spinlock.storage import schema
from spinlock.storage.chunks import chunk_offsets, chunk_slices, content_digest
from spinlock.storage.compression import decode_chunk

# Samples whose outputs are read without ``full``: at most so many, and at most so many bytes.
_MAX_SAMPLED = 512
_MAX_SAMPLED_BYTES = 1 << 29
# Which samples are looked at is random, but the same every time.
_SELECTION_SEED = 20_010


@dataclass(frozen=True)
class Entry:
    """A sample's entry of a chunked dataset.

    Attributes:
        values: The entry, in the shape of its `DatasetSpec`.
        digest: Digest of its content, as it enters the sample's digest.
    """

    values: NDArray[Any]
    digest: bytes


class CheckSource:
    """A dataset file, open for reading, and what its configuration says of it.

    Args:
        file: The file.
        config: The configuration stored in it.
        full: Whether every stored byte is to be read.
    """

    def __init__(self, file: h5py.File, config: GenerationConfig, *, full: bool) -> None:
        self.file, self.config, self.full = file, config, full
        self.specs = {spec.name: spec for spec in schema.dataset_specs(config)}
        self.mixture = Mixture(config.initial_conditions)

    @property
    def num_samples(self) -> int:
        """Samples that the configuration promises."""
        return self.config.num_samples

    @cached_property
    def usable(self) -> frozenset[str]:
        """Datasets that are there in the promised shape and type: what the rows may read."""
        return frozenset(
            name
            for name, spec in self.specs.items()
            if isinstance(data := self.file.get(name), h5py.Dataset)
            and data.shape == (self.num_samples, *spec.shape)
            and data.dtype == spec.dtype
        )

    def lacks(self, *names: str) -> str:
        """Why datasets cannot be read; empty if they can."""
        for name in names:
            if name in (schema.INPUTS, schema.OUTPUTS) and name not in self.specs:
                return "fields not stored"
            if name not in self.usable:
                return f"{name} is missing or not as promised (see integrity)"
        return ""

    @cached_property
    def design(self) -> Design:
        """The design that the stored configuration amounts to, computed anew."""
        return make_design(self.config)

    def column(self, name: str) -> NDArray[Any]:
        """A dataset of numbers or of text (as bytes), whole."""
        values: NDArray[Any] = self.file[name][...]
        return values

    @cached_property
    def variants(self) -> NDArray[np.bytes_]:
        """(N,) the stored variant labels; those of the design where the file has none."""
        if schema.IC_TYPES in self.usable:
            return self.column(schema.IC_TYPES)
        names = np.array([name.encode() for name in self.mixture.names])
        return np.asarray(names[self.design.variant])

    @cached_property
    def sampled(self) -> NDArray[np.int64]:
        """Samples whose outputs are read, ascending: all if ``full``, else some of each variant."""
        if self.full:
            return np.arange(self.num_samples)
        size = max((self._bytes(name) for name in self.specs), default=1)
        return self.choose(int(np.clip(_MAX_SAMPLED_BYTES // size, 16, _MAX_SAMPLED)))

    def choose(self, count: int) -> NDArray[np.int64]:
        """About ``count`` samples, ascending, from every variant in proportion to its number."""
        if count >= self.num_samples:
            return np.arange(self.num_samples)
        generator = np.random.default_rng(_SELECTION_SEED)
        # A random order within each variant, dealt out in turn by the fraction of it used up.
        priority = np.empty(self.num_samples)
        for variant in np.unique(self.variants):
            rows = generator.permutation(np.flatnonzero(self.variants == variant))
            priority[rows] = (np.arange(len(rows)) + generator.uniform()) / len(rows)
        return np.sort(np.argsort(priority, kind="stable")[:count])

    def _bytes(self, name: str) -> int:
        spec = self.specs[name]
        return int(np.prod(spec.shape, dtype=np.int64)) * spec.dtype.itemsize

    def entry(self, name: str, row: int) -> Entry:
        """A sample's entry of a chunked dataset, and its digest.

        Raises:
            Exception: Of any kind, if the stored bytes are damaged.
        """
        data, spec = self.file[name], self.specs[name]
        values = np.empty(spec.shape, spec.dtype)
        digests = []
        direct = data.chunks == (1, *(spec.chunk or ())) and self._own_filters(data)
        if not direct:
            values[...] = data[row]
        for offset in chunk_offsets(spec):
            part = chunk_slices(spec, offset)
            if direct:
                values[part] = self._chunk(data, (row, *offset)).reshape(values[part].shape)
            digests.append(hashlib.sha256(np.ascontiguousarray(values[part]).data).digest())
        return Entry(values, content_digest(digests))

    def _own_filters(self, data: h5py.Dataset) -> bool:
        """Whether chunks are packed as the package packs them; h5py unpacks all others."""
        deflated = self.config.storage.compression == "deflate"
        expected = ("gzip", True) if deflated else (None, False)
        return (data.compression, data.shuffle) == expected and not data.fletcher32

    def _chunk(self, data: h5py.Dataset, offset: tuple[int, ...]) -> NDArray[Any]:
        skipped_filters, chunk = data.id.read_direct_chunk(offset)
        compression = "none" if skipped_filters & 0b11 == 0b11 else self.config.storage.compression
        if skipped_filters and compression != "none":
            # HDF5 leaves deflate out where it does not pay; h5py knows what is left.
            where = tuple(slice(o, o + c) for o, c in zip(offset, data.chunks, strict=True))
            return np.asarray(data[where])
        plain = decode_chunk(chunk, compression, data.dtype.itemsize)
        return np.frombuffer(plain, data.dtype)
