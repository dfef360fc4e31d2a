"""The file under check: its configuration, columns, and fields with the digest of what was read."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.errors import ConfigurationError
from spinlock.simulation.initial_conditions import InitialCondition, make_variant
from spinlock.simulation.sobol_design import Design, make_design
from spinlock.storage import schema
from spinlock.storage.chunk_reader import ChunkReader
from spinlock.storage.chunks import chunk_offsets, chunk_slices, content_digest
from spinlock.storage.layout import dataset_problem

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

    @cached_property
    def distributions(self) -> dict[str, InitialCondition]:
        """Distribution of each variant that is built in or that the user trusts."""
        found = {}
        for name in self.mixture.names:
            with suppress(ConfigurationError):
                found[name] = make_variant(
                    name, self.config.initial_conditions, self.config.trusted_modules
                )
        return found

    @property
    def num_samples(self) -> int:
        """Samples that the configuration promises."""
        return self.config.num_samples

    @cached_property
    def usable(self) -> frozenset[str]:
        """Datasets that the file itself holds in the promised shape and type: those to read."""
        return frozenset(
            name
            for name, spec in self.specs.items()
            if not dataset_problem(self.file, spec, self.num_samples)
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
        spec = self.specs[name]
        reader = ChunkReader(self.file, spec, self.config.storage.compression)
        values = np.empty(spec.shape, spec.dtype)
        digests = []
        for offset in chunk_offsets(spec):
            chunk = np.ascontiguousarray(reader.values(row, offset))
            values[chunk_slices(spec, offset)] = chunk
            digests.append(hashlib.sha256(chunk.data).digest())
        return Entry(values, content_digest(digests))
