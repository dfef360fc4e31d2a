"""Chunks as HDF5 stores them: byte shuffle, then deflate; both standard filters of any reader.

Compression happens here, outside of HDF5, because isal releases the interpreter's lock (so that
threads compress side by side) and deflates several times faster than zlib.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

#: Level of isal; on baseline outputs 2 compresses 1 % better than 1 at the same speed, and 3 takes
#: nearly twice as long for another 4 %.
DEFLATE_LEVEL = 2

# Bytes given to isal at a time: given more at once, it finds fewer matches in them.
_PIECE = 1 << 14
# A plane that shrinks by less is stored as it is, and read without decoding.
_WORTHWHILE = 0.95
_ZLIB_HEADER = b"\x78\x5e"
_LAST_BLOCK = b"\x01\0\0\xff\xff"
_BLOCK = 0xFFFF

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
    parts: list[bytes | memoryview] = [_ZLIB_HEADER]
    checksum = 1
    for plane in shuffle(array):
        checksum = isal_zlib.adler32(plane, checksum)
        # A stream of its own gives each plane a code table of its own: mantissa bytes are noise and
        # exponents are not, and sharing a table costs a fifth at 64 x 64.
        deflate = isal_zlib.compressobj(DEFLATE_LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
        pieces = [deflate.compress(plane[i : i + _PIECE]) for i in range(0, plane.size, _PIECE)]
        packed = b"".join([*pieces, deflate.flush(isal_zlib.Z_SYNC_FLUSH)])
        parts += [packed] if len(packed) < _WORTHWHILE * plane.size else _stored(plane)
    return b"".join([*parts, _LAST_BLOCK, checksum.to_bytes(4, "big")])


def _stored(plane: NDArray[np.uint8]) -> Iterator[bytes | memoryview]:
    """Bytes as deflate's stored blocks (RFC 1951, section 3.2.4), which begin on a whole byte."""
    for start in range(0, plane.size, _BLOCK):
        block = plane[start : start + _BLOCK]
        yield b"\0" + block.size.to_bytes(2, "little") + (block.size ^ 0xFFFF).to_bytes(2, "little")
        yield block.data


def decode_chunk(
    chunk: bytes, compression: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The values of a chunk that `encode_chunk` made.

    Args:
        chunk: The chunk's bytes in the file.
        compression: ``deflate`` or ``none``.
        shape: Shape of the values.
        dtype: Type of the values, of 1, 2, 4 or 8 bytes.

    Raises:
        isal.isal_zlib.error: If the chunk is damaged.
        ValueError: If it holds another number of values.
    """
    if compression == "none":
        return np.frombuffer(chunk, dtype).reshape(shape)
    # A buffer of the right size at once; the default would have to grow many times.
    size = math.prod(shape) * dtype.itemsize
    plain = isal_zlib.decompress(chunk, bufsize=size + 1)
    planes = np.frombuffer(plain, dtype=np.uint8).reshape(dtype.itemsize, *shape)
    values = np.empty(shape, dtype)
    unshuffle(planes, values)
    return values


def unshuffle(planes: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """The inverse of `shuffle`.

    Args:
        planes: Bytes ``(itemsize, ...)``, those of the least value first; itemsize 1, 2, 4 or 8.
        out: Values of ``itemsize`` bytes ``(...)``, which are overwritten.
    """
    # Shifting whole arrays is ten times faster than transposing the bytes.
    bits = out.view(f"<u{len(planes)}")
    np.copyto(bits, planes[-1])
    for plane in planes[-2::-1]:
        np.left_shift(bits, 8, out=bits)
        np.bitwise_or(bits, plane, out=bits)
