"""Opens, creates and validates dataset files and shards, and reads their columns and chunks."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Self

import h5py

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.output_files import file_identity
from spinlock.storage import schema
from spinlock.storage.hdf5_access import open_hdf5, text_attribute
from spinlock.storage.hdf5_failures import NewFile, hdf5_error
from spinlock.storage.layout import (
    Problem,
    create_datasets,
    dataset_problems,
    link_problems,
    scale_problems,
    virtual_problems,
)
from spinlock.storage.open_shards import OpenShards, require_same
from spinlock.storage.shard_index import ShardIndex
from spinlock.storage.stored_configuration import read_configuration
from spinlock.storage.stored_data import StoredData


class DatasetFile(StoredData):
    """An open dataset file or shard; the arguments are those of `StoredData`.

    Example:
        >>> import h5py
        >>> from spinlock import GenerationConfig
        >>> file = h5py.File("a.h5", "w", driver="core", backing_store=False)
        >>> with DatasetFile(file, GenerationConfig(num_samples=4)) as dataset:
        ...     dataset.specs["inputs/fields"].shape
        (3, 128, 128)
    """

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        trust: Collection[str] = (),
        samples: range | None = None,
        beside: Path | None = None,
        retry: bool = True,
    ) -> Self:
        """Open a dataset file or shard for reading.

        Args:
            path: Path of the file.
            trust: Modules whose classes a computation with the configuration may import.
            samples: Samples that a shard must hold; default: the file is a whole dataset.
            beside: Path beside which the shards of a virtual dataset lie; default: ``path``.
            retry: Whether to open the file once more if it is replaced meanwhile; default: True.

        Raises:
            DatasetNotFoundError: If the file does not exist.
            DatasetError: If it is not a dataset file, or a shard of it is missing or another file.
            ConfigurationError: If ``trust`` is a single name instead of a list of names.
        """
        identity, file = file_identity(path), open_hdf5(path)
        try:
            config, shards = read_configuration(file, trust), None
            if samples is None and config.storage.layout == "virtual":
                base = Path(os.path.realpath(path if beside is None else beside))
                shards = cls._open_shards(file, config, base)
            return cls(file, config, samples, shards)
        except BaseException as error:
            clear = hdf5_error(error, file)
            file.close()
            if retry and isinstance(error, DatasetError) and file_identity(path) != identity:
                # The shards of the old file are gone.
                return cls.open(path, trust=trust, samples=samples, beside=beside, retry=False)
            if clear is not None:
                raise clear from error
            raise

    @classmethod
    def create(
        cls, path: Path, config: GenerationConfig, samples: range, provenance: dict[str, str]
    ) -> Self:
        """Create a file with every dataset and attribute of the layout.

        Args:
            path: Path of the file, which must not exist.
            config: Configuration of the dataset.
            samples: Samples in the rows of the file.
            provenance: Root attributes that describe what computed the samples.
        """
        created = cls(NewFile(path), config, samples)
        try:
            created._write_layout(provenance)
        except BaseException:
            created.abandon()
            raise
        return created

    def _write_layout(self, provenance: dict[str, str]) -> None:
        self.file.attrs.update(self.identity | provenance)
        create_datasets(self.file, self.config, self.specs.values(), self.samples)

    @classmethod
    def _open_shards(
        cls, file: h5py.File, config: GenerationConfig, base: Path
    ) -> OpenShards[StoredData]:
        index = ShardIndex.read(file, config, base)
        columns, digest = open_hdf5(index.columns_path), text_attribute(file, "digest")
        try:
            require_same(columns, config.fingerprint, range(config.num_samples), digest)
        except BaseException:
            columns.close()
            raise
        return OpenShards(index, config, cls.shard, columns)

    @staticmethod
    def shard(file: h5py.File, config: GenerationConfig, samples: range) -> StoredData:
        """Return an opened shard of a virtual dataset, which must itself hold its fields."""
        shard = DatasetFile(file, config, samples)
        shard._require_sound(dataset_problems(file, shard.fields, samples))
        return shard

    @property
    def identity(self) -> dict[str, str]:
        """Root attributes without which nothing in the file can be interpreted."""
        return {
            "schema_version": schema.SCHEMA_VERSION,
            "configuration": self.config.to_json(),
            "fingerprint": self.config.fingerprint,
        }

    def validate(self) -> None:
        """Check that every dataset is there, with its shape and type.

        Apart from the shards of a virtual dataset, the file itself must hold them. The sources that
        other programs see in such a file are compared with its shards by `layout_problems` only:
        this package does not use them.

        Raises:
            DatasetError: If a dataset is missing, different or stored elsewhere. Names the first.
        """
        self._require_sound(self._stored_problems())

    def _require_sound(self, problems: dict[str, Problem]) -> None:
        for name, problem in problems.items():
            raise DatasetError(
                f"{self.path}: {name} {problem.text}. Restore the file from a copy, or generate "
                "it again"
            )

    def layout_problems(self) -> dict[str, Problem]:
        """Return how datasets and dimension scales deviate from the schema, by name."""
        problems = self._stored_problems()
        if self.shards is not None:
            specs, count = self.specs.values(), len(self.samples)
            problems = virtual_problems(self.file, specs, self.shards.index, count) | problems
        return problems

    def _stored_problems(self) -> dict[str, Problem]:
        scales = scale_problems(self.file, self.config, self.samples)
        if self.shards is None:
            return dataset_problems(self.file, self.specs.values(), self.samples) | scales
        links = link_problems(self.file, self.specs)
        return links | dataset_problems(self.shards.columns, self.columns, self.samples) | scales
