"""Reads the columns and fields of the dataset file under check, with the digests of the fields."""

from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.errors import ConfigurationError
from spinlock.simulation.initial_conditions import InitialCondition
from spinlock.simulation.variants import make_variant
from spinlock.storage import schema
from spinlock.storage.columns import encoded
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import chunk_digest, content_digest
from spinlock.storage.layout import Problem

# Bounds on the number and the bytes of the samples whose outputs are read without ``full``.
_MAX_SAMPLED = 512
_MAX_SAMPLED_BYTES = 1 << 29
# The choice of samples is random, but the same every time.
_SELECTION_SEED = 20_010


class CheckSource(DatasetFile):
    """A dataset file under check; the arguments are those of `DatasetFile`.

    Attributes:
        full: Whether every stored byte is read; default: False.
    """

    full = False

    @cached_property
    def distributions(self) -> dict[str, InitialCondition]:
        """Distribution of each variant that is built in or that the user trusts."""
        found = {}
        for name in self.config.mixture.names:
            with suppress(ConfigurationError):
                found[name] = make_variant(
                    name, self.config.initial_conditions, self.config.trusted_modules
                )
        return found

    @property
    def num_samples(self) -> int:
        """Number of samples according to the configuration."""
        return self.config.num_samples

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """Deviations from the schema, by dataset or scale. Such datasets are not read."""
        return self.layout_problems()

    def lacks(self, *names: str) -> str:
        """Return why datasets cannot be read; empty if they can."""
        for name in names:
            if name not in self.specs:
                fields = name in (schema.INPUTS, schema.OUTPUTS)
                return "fields not stored" if fields else f"{name} not stored"
            if name in self.problems:
                return f"{name} is missing or differs from the schema (see integrity)"
        return ""

    @cached_property
    def variants(self) -> NDArray[np.bytes_]:
        """(N,) stored variant labels, or those of the design if the file has none."""
        if not self.lacks(schema.IC_TYPES):
            return self.column(schema.IC_TYPES)
        return np.asarray(encoded(self.config.mixture.names)[self.design.variant])

    @cached_property
    def sampled(self) -> NDArray[np.int64]:
        """Samples whose outputs are read, ascending: all if ``full``, else some of each variant."""
        if self.full:
            return np.arange(self.num_samples)
        sizes = (
            int(np.prod(spec.shape, dtype=np.int64)) * spec.dtype.itemsize
            for spec in self.specs.values()
        )
        return self.choose(int(np.clip(_MAX_SAMPLED_BYTES // max(sizes), 16, _MAX_SAMPLED)))

    def choose(self, count: int) -> NDArray[np.int64]:
        """Return about ``count`` samples, ascending, with every variant in proportion."""
        if count >= self.num_samples:
            return np.arange(self.num_samples)
        generator = np.random.default_rng(_SELECTION_SEED)
        # Each variant is shuffled; its k-th sample of n gets a priority near k / n.
        priority = np.empty(self.num_samples)
        for variant in np.unique(self.variants):
            rows = generator.permutation(np.flatnonzero(self.variants == variant))
            priority[rows] = (np.arange(len(rows)) + generator.uniform()) / len(rows)
        return np.sort(np.argsort(priority, kind="stable")[:count])

    def entry(self, name: str, row: int) -> tuple[NDArray[Any], bytes]:
        """Return a sample's entry of a chunked dataset and the digest of its content.

        Raises:
            Exception: If the stored bytes are damaged; its type is not defined.
        """
        spec = self.specs[name]
        values, digests = np.empty(spec.shape, spec.dtype), []
        for place in spec.chunk_slices:
            chunk = self.chunk(name, row, place)
            values[place] = chunk
            digests.append(chunk_digest(chunk))
        return values, content_digest(digests)
