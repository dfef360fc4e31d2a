"""Chunks as HDF5 stores them: byte shuffle, then deflate; both standard filters of any reader.

Compression happens here, outside of HDF5, because isal releases the interpreter's lock (so that
threads compress side by side) and deflates several times faster than zlib.
"""

from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

#: Level of isal: on baseline outputs 2 compresses 1 % better than 1 at the same speed, and 3 takes
#: nearly twice as long for another 4 % (`python -m benchmarks.storage`).
DEFLATE_LEVEL = 2

#: Arguments of h5py.Group.create_dataset that declare the filters of `encode_chunk`.
FILTERS: dict[str, dict[str, Any]] = {
    "deflate": {"shuffle": True, "compression": "gzip", "compression_opts": DEFLATE_LEVEL},
    "none": {},
}


def shuffle(array: NDArray[Any]) -> NDArray[np.uint8]:
    """HDF5's byte shuffle: the first bytes of all elements, then the second bytes, and so on."""
    contiguous = np.ascontiguousarray(array).reshape(-1)
    return np.ascontiguousarray(contiguous.view(np.uint8).reshape(-1, array.itemsize).T)


def encode_chunk(array: NDArray[Any], compression: str) -> bytes:
    """A chunk's bytes in the file.

    Args:
        array: The chunk's values.
        compression: ``deflate`` or ``none``.
    """
    if compression == "none":
        return array.tobytes()
    return isal_zlib.compress(shuffle(array), DEFLATE_LEVEL)


def decode_chunk(chunk: bytes, compression: str, itemsize: int) -> bytes:
    """The values' bytes of a chunk that `encode_chunk` made.

    Args:
        chunk: The chunk's bytes in the file.
        compression: ``deflate`` or ``none``.
        itemsize: Bytes of one value.

    Raises:
        isal.isal_zlib.error: If the chunk is damaged.
    """
    if compression == "none":
        return chunk
    shuffled = np.frombuffer(isal_zlib.decompress(chunk), dtype=np.uint8)
    return shuffled.reshape(itemsize, -1).T.tobytes()
