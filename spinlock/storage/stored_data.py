"""Reads the columns and chunks of an open dataset file, wherever they are stored."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.simulation.sobol_design import Design, make_design
from spinlock.storage import schema
from spinlock.storage.assembly_plan import Segment
from spinlock.storage.columns import parameter_values
from spinlock.storage.compression import decode_chunk, packed_natively
from spinlock.storage.hdf5_access import text_attribute
from spinlock.storage.hdf5_failures import NewFile, hdf5_error, naming_damage
from spinlock.storage.open_shards import OpenShards
from spinlock.storage.shard_files import Shard


class StoredData:
    """An open dataset file or shard, with its schema, columns and chunks.

    Args:
        file: HDF5 file with the layout that `spinlock.storage.schema` describes.
        config: Configuration of the dataset.
        samples: Samples in the rows of the file; default: all samples of the configuration.
        shards: Open shards and columns of a virtual dataset, which are closed with the file;
            default: the file itself holds everything.
    """

    def __init__(
        self,
        file: h5py.File,
        config: GenerationConfig,
        samples: range | None = None,
        shards: "OpenShards[StoredData] | None" = None,
    ) -> None:
        self.file, self.config, self.shards = file, config, shards
        self.samples = range(config.num_samples) if samples is None else samples
        self.specs = {spec.name: spec for spec in schema.dataset_specs(config)}
        self.fields = [spec for spec in self.specs.values() if spec.chunk is not None]
        self.columns = [spec for spec in self.specs.values() if spec.chunk is None]
        # Chunked dataset -> its handle, and whether its chunks are packed as this package does.
        self._chunked: dict[str, tuple[h5py.Dataset, bool]] = {}

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: If something could not be written.
        """
        try:
            if self.shards is not None:
                self.shards.close()
        finally:
            self.file.close()

    def abandon(self) -> None:
        """Close the file, whose content does not matter anymore."""
        with suppress(OSError):
            self.close()

    def check_disk(self) -> None:
        """Raise the error of the first write that failed."""
        for file in (self.file, None if self.shards is None else self.shards.columns):
            if isinstance(file, NewFile):
                file.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # What HDF5 raises names neither the file nor what to do.
        if error is None:
            self.close()
            return
        clear = hdf5_error(error, self.file)
        self.abandon()
        if clear is not None:
            raise clear from error

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
        if self.shards is not None and self.specs[name].chunk is not None:
            held = self.stored_rows(self.rows if rows is None else rows)
            return np.concatenate([part.column(name, within) for part, within in held])
        part = slice(None) if rows is None else self.place(name, rows)
        holder = self.file if self.shards is None else self.shards.columns
        with naming_damage(holder):
            values: NDArray[Any] = holder[name][part]
        return values

    def stored_column(self, name: str) -> h5py.Dataset:
        """Return the dataset that holds the values of a column."""
        return (self.file if self.shards is None else self.shards.columns)[name]

    def held_segments(self) -> list[Segment]:
        """Return which files hold the fields: this one, or the shards of a virtual dataset."""
        if self.shards is None:
            start, stop = self.samples.start, self.samples.stop
            return [Segment(Shard(self.path, start, stop), start, stop)]
        index = self.shards.index
        return [
            Segment(Shard(index.path(p), p.start, p.stop, p.edition), p.first, p.last)
            for p in index.pieces
        ]

    def stored_rows(self, rows: range) -> Iterator[tuple["StoredData", range]]:
        """Yield the files that hold the fields of some rows, and their rows, in order."""
        if self.shards is None:
            yield self, rows
            return
        for piece in self.shards.index.pieces:
            start, stop = max(piece.first, rows.start), min(piece.last, rows.stop)
            if start < stop:
                yield self.shards.file(piece), range(start - piece.start, stop - piece.start)

    def _stored_row(self, row: int) -> tuple["StoredData", int]:
        """Return the file that holds the fields of a row, and the row there."""
        if self.shards is None:
            return self, row
        piece = self.shards.index.find(row)
        return self.shards.file(piece), row - piece.start

    def parameter_values(self, rows: range | None = None) -> NDArray[np.void]:
        """Return the parameter values of the samples in ``rows`` (default: all).

        They are a structured array with one field per axis; text is bytes.
        """
        columns = {name: self.column(name, rows) for name in schema.value_names(self.config)}
        return parameter_values(columns, self.config)

    def values_of(self, name: str, row: int) -> NDArray[Any]:
        """Return the row of a dataset that belongs to a sample of a whole dataset."""
        spec = self.specs[name]
        if spec.chunk is None:
            file = self.file if self.shards is None else self.shards.columns
            place = row // spec.samples_per_row
        else:
            holder, place = self._stored_row(row)
            file = holder.file
        with naming_damage(file):
            values: NDArray[Any] = np.asarray(file[name][place])
        return values

    def initial(self, row: int) -> NDArray[np.float32]:
        """Return the initial condition [C, H, W] of a sample."""
        return self.values_of(schema.INPUTS, row)

    def trajectory(self, row: int) -> NDArray[np.float32]:
        """Return the fields [M, T', C, H, W] of a sample at the stored timesteps."""
        values = self.values_of(schema.OUTPUTS, row)
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
        holder, row = self._stored_row(row)
        data, native = holder._chunked_dataset(name)
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
        holder, row = self._stored_row(row)
        packed, spec = holder.packed_chunk(name, row, place), self.specs[name]
        if packed is None:
            data, _ = holder._chunked_dataset(name)
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
