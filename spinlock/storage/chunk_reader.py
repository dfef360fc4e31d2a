"""Reading the chunks of a dataset, packed as this package packs them or otherwise.

Another program may have rewritten a file with other filters. Its values are then the same and its
chunks are not: those are read by value, through HDF5, and must never be copied as they are.
"""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.storage.chunks import chunk_slices
from spinlock.storage.compression import decode_chunk
from spinlock.storage.schema import DatasetSpec

# Filters in the order in which the writer applies them, by `storage.compression`.
_FILTERS = {"deflate": [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE], "none": []}


class ChunkReader:
    """Reads the chunks of one dataset of a file.

    Args:
        file: Dataset or shard.
        spec: Dataset to read, which is chunked.
        compression: Value of ``storage.compression`` in the file's configuration.
    """

    def __init__(self, file: h5py.File, spec: DatasetSpec, compression: str) -> None:
        assert spec.chunk is not None
        self._data: h5py.Dataset = file[spec.name]
        self._spec, self._compression = spec, compression
        plist = self._data.id.get_create_plist()
        codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        own_chunks = self._data.chunks == (1, *spec.chunk)
        self._own = own_chunks and codes == _FILTERS[compression]

    def packed(self, row: int, offset: tuple[int, ...]) -> bytes | None:
        """The bytes of a chunk in the file.

        Args:
            row: Sample.
            offset: First element of the chunk in the sample's entry.

        Returns:
            The bytes as `spinlock.storage.compression.encode_chunk` makes them, or None if the
            chunk is packed otherwise.
        """
        if not self._own:
            return None
        skipped_filters, chunk = self._data.id.read_direct_chunk((row, *offset))
        return None if skipped_filters else bytes(chunk)

    def values(self, row: int, offset: tuple[int, ...]) -> NDArray[Any]:
        """The values of a chunk, in its shape; arguments as for `packed`.

        Raises:
            Exception: Of any kind, if the stored bytes are damaged.
        """
        chunk = self.packed(row, offset)
        if chunk is None:
            return np.asarray(self._data[(row, *chunk_slices(self._spec, offset))])
        assert self._spec.chunk is not None
        return decode_chunk(chunk, self._compression, self._spec.chunk, self._spec.dtype)
