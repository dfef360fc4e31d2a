"""Chunks as HDF5 stores them: byte shuffle, then deflate; both standard filters of any reader.

Compression happens here, outside of HDF5, because isal releases the interpreter's lock (so that
threads compress side by side) and deflates several times faster than zlib.
"""

from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

#: isal's fastest level that still searches for matches; higher ones gain under 1 % on fields.
DEFLATE_LEVEL = 1

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
