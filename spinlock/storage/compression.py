"""Chunks as HDF5 stores them: byte shuffle, then deflate; both standard filters of any reader.

Compression happens here, outside of HDF5, because isal releases the interpreter's lock (so that
threads compress side by side) and deflates several times faster than zlib.
"""

from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

#: Level of isal; on baseline outputs 2 compresses 1 % better than 1 at the same speed, and 3 takes
#: nearly twice as long for another 4 %.
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
    deflate = isal_zlib.compressobj(DEFLATE_LEVEL)
    parts: list[bytes] = []
    for plane in shuffle(array):
        # A flush ends the block, so that each plane of bytes gets a code table of its own: mantissa
        # bytes are noise and exponents are not, and sharing a table costs a fifth at 64 x 64.
        parts += [deflate.compress(plane), deflate.flush(isal_zlib.Z_SYNC_FLUSH)]
    return b"".join([*parts, deflate.flush()])


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
