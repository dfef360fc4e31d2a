"""Opens, creates and validates dataset files and shards, and reads their columns and chunks."""

import dataclasses
import os
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.simulation.sobol_design import Design, make_design
from spinlock.storage import schema
from spinlock.storage.columns import parameter_values
from spinlock.storage.compression import decode_chunk, packed_natively
from spinlock.storage.hdf5_access import open_hdf5, text_attribute
from spinlock.storage.layout import Problem, create_datasets, layout_problems

# Attributes without which nothing in a file can be interpreted.
_IDENTITY = ("schema_version", "configuration", "fingerprint")


class DatasetFile:
    """An open dataset file or shard, with its schema, columns and chunks.

    Args:
        file: HDF5 file with the layout that `spinlock.storage.schema` describes.
        config: Configuration of the dataset.
        samples: Samples in the rows of the file; default: all samples of the configuration.

    Example:
        >>> import h5py
        >>> from spinlock import GenerationConfig
        >>> file = h5py.File("a.h5", "w", driver="core", backing_store=False)
        >>> with DatasetFile(file, GenerationConfig(num_samples=4)) as dataset:
        ...     dataset.specs["inputs/fields"].shape
        (3, 128, 128)
    """

    def __init__(
        self, file: h5py.File, config: GenerationConfig, samples: range | None = None
    ) -> None:
        self.file, self.config = file, config
        self.samples = range(config.num_samples) if samples is None else samples
        self.specs = {spec.name: spec for spec in schema.dataset_specs(config)}
        self.fields = [spec for spec in self.specs.values() if spec.chunk is not None]
        self.columns = [spec for spec in self.specs.values() if spec.chunk is None]
        # Chunked dataset -> its handle, and whether its chunks are packed as this package does.
        self._chunked: dict[str, tuple[h5py.Dataset, bool]] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        trust: Collection[str] = (),
        samples: range | None = None,
    ) -> Self:
        """Open a dataset file or shard for reading.

        Args:
            path: Path of the file.
            trust: Modules whose classes a computation with the configuration may import.
            samples: Samples that a shard must hold.

        Raises:
            DatasetNotFoundError: If the file does not exist.
            DatasetError: If it is not a dataset file.
            ConfigurationError: If ``trust`` is a single name instead of a list of names.
        """
        file = open_hdf5(path)
        try:
            return cls(file, read_configuration(file, trust), samples)
        except BaseException:
            file.close()
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
        created = cls(h5py.File(path, "x"), config, samples)
        try:
            created._write_layout(provenance)
        except BaseException:
            created.close()
            raise
        return created

    def _write_layout(self, provenance: dict[str, str]) -> None:
        self.file.attrs.update(
            {
                "schema_version": schema.SCHEMA_VERSION,
                "configuration": self.config.to_json(),
                "fingerprint": self.config.fingerprint,
                **provenance,
            }
        )
        create_datasets(self.file, self.config, self.specs.values(), self.samples)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def rows(self) -> range:
        """Rows of the file; row i holds the sample ``samples[i]``."""
        return range(len(self.samples))

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(os.fsdecode(self.file.filename))

    @cached_property
    def design(self) -> Design:
        """Design of the samples in the file, computed from the configuration."""
        return make_design(self.config, self.samples.start, self.samples.stop)

    def text(self, name: str) -> str:
        """Return a root attribute that must be text.

        Raises:
            DatasetError: If it is missing or not printable text.
        """
        return text_attribute(self.file, name)

    def place(self, name: str, rows: range) -> slice:
        """Return the rows of a dataset that belong to the samples in ``rows`` of the file."""
        spec, first = self.specs[name], self.samples.start
        held = spec.rows(range(first + rows.start, first + rows.stop))
        skipped = spec.rows(self.samples).start
        return slice(held.start - skipped, held.stop - skipped)

    def column(self, name: str, rows: range | None = None) -> NDArray[Any]:
        """Return the values of a dataset for the samples in ``rows`` (default: all).

        Text comes as bytes. A dataset of operators has a row for each operator whose first sample
        is among them.
        """
        part = slice(None) if rows is None else self.place(name, rows)
        values: NDArray[Any] = self.file[name][part]
        return values

    def parameter_values(self, rows: range | None = None) -> NDArray[np.void]:
        """Return the parameter values of the samples in ``rows`` (default: all).

        They are a structured array with one field per axis; text is bytes.
        """
        columns = {name: self.column(name, rows) for name in schema.value_names(self.config)}
        return parameter_values(columns, self.config)

    def initial(self, row: int) -> NDArray[np.float32]:
        """Return the initial condition [C, H, W] of a sample."""
        values: NDArray[np.float32] = self.file[schema.INPUTS][row]
        return values

    def trajectory(self, row: int) -> NDArray[np.float32]:
        """Return the fields [M, T', C, H, W] of a sample at the stored timesteps."""
        values: NDArray[np.float32] = self.file[schema.OUTPUTS][row]
        return values.reshape(len(values), -1, *values.shape[-3:])

    def packed_chunk(self, name: str, row: int, place: tuple[slice, ...]) -> bytes | None:
        """Return the bytes of a chunk as they are in the file.

        Args:
            name: Name of a chunked dataset.
            row: Row of the sample.
            place: Place of the chunk in the sample's entry, see `DatasetSpec.chunk_slices`.

        Returns:
            The bytes that `spinlock.storage.compression.encode_chunk` returns for these values;
            None if the chunk is packed in another way, or was never written.
        """
        data, native = self._chunked_dataset(name)
        if not native:
            return None
        offset = (row, *(part.start for part in place))
        try:
            skipped_filters, chunk = data.id.read_direct_chunk(offset)
        except MemoryError:
            # h5py also raises this for a chunk that was never written, which has no place.
            if data.id.get_chunk_info_by_coord(offset).byte_offset is not None:
                raise
            return None
        return None if skipped_filters else bytes(chunk)

    def chunk(self, name: str, row: int, place: tuple[slice, ...]) -> NDArray[Any]:
        """Return the values of a chunk, contiguous in memory; arguments as for `packed_chunk`.

        Raises:
            Exception: If the stored bytes are damaged; its type is not defined.
        """
        packed, spec = self.packed_chunk(name, row, place), self.specs[name]
        if packed is None:
            data, _ = self._chunked_dataset(name)
            return np.ascontiguousarray(data[(row, *place)])
        assert spec.chunk is not None
        return decode_chunk(packed, self.config.storage.compression, spec.chunk, spec.dtype)

    def _chunked_dataset(self, name: str) -> tuple[h5py.Dataset, bool]:
        if name not in self._chunked:
            data, shape = self.file[name], self.specs[name].chunk
            assert shape is not None
            native = packed_natively(data, shape, self.config.storage.compression)
            self._chunked[name] = data, native
        return self._chunked[name]

    def validate(self) -> None:
        """Check that the file itself holds every dataset, with its shape and type.

        Raises:
            DatasetError: If a dataset is missing, different or stored elsewhere. Names the first.
        """
        for name, problem in self.layout_problems().items():
            raise DatasetError(
                f"{self.path}: {name} {problem.text}. Restore the file from a copy, or generate "
                "it again"
            )

    def layout_problems(self) -> dict[str, Problem]:
        """Return how datasets and dimension scales deviate from the schema, by name."""
        return layout_problems(self.file, self.config, self.specs.values(), self.samples)


def read_configuration(file: h5py.File, trust: Collection[str] = ()) -> StoredConfig:
    """Return the configuration of a file. Nothing that it names is imported.

    Args:
        file: Dataset file or shard.
        trust: Modules whose classes a computation with the configuration may import.

    Raises:
        DatasetError: If a root attribute is missing or not valid.
        ConfigurationError: If ``trust`` is a single name instead of a list of names.
    """
    if isinstance(trust, str):
        raise ConfigurationError(f"trust: must be a list of modules, got {trust!r}")
    missing = [name for name in _IDENTITY if name not in file.attrs]
    if missing:
        raise DatasetError(
            f"{file.filename} is no Spinlock dataset: it lacks the root attribute(s) "
            f"{', '.join(missing)}"
        )
    version, text, _ = (text_attribute(file, name) for name in _IDENTITY)
    if version != schema.SCHEMA_VERSION:
        raise DatasetError(
            f"{file.filename} has schema version {version}; this package reads "
            f"{schema.SCHEMA_VERSION}"
        )
    try:
        config = dataclasses.replace(StoredConfig.from_json(text), trusted=tuple(trust))
        # The axes of the operator family are checked only when they are first used.
        _ = config.space
    except ConfigurationError as error:
        raise DatasetError(f"{file.filename}: its configuration is not valid: {error}") from error
    return config
