"""Checks the heaps of an HDF5 file, because HDF5 reads one that is full of zeros without end.

HDF5 stores texts and lists of variable length in global heaps [1]_. A heap is a row of objects,
each of which states its own length. Where a length is zero, HDF5 does not advance. So the heaps
that attributes, contiguous datasets and virtual datasets refer to are walked here before HDF5 reads
them. Heaps that only chunks or headers of version 2 refer to, which this package does not write,
are not found.

.. [1] HDF5 File Format Specification Version 3.0, sections III.E and IV.A.
   https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

import h5py

from spinlock.errors import DatasetError

_HEADER = struct.Struct("<BxHIIxxxx")
_MESSAGE = struct.Struct("<HHBxxx")
_ATTRIBUTE = struct.Struct("<BxHHH")
_REFERENCE = struct.Struct("<IQI")
_HEAP = struct.Struct("<4sBxxxQ")
_OBJECT = struct.Struct("<HHxxxxQ")
_BLOCK, _ADDRESS = struct.Struct("<QQ"), struct.Struct("<Q")
# Types of messages in the header of an object.
_DATATYPE, _LAYOUT, _ATTRIBUTE_MESSAGE, _CONTINUATION = 0x03, 0x08, 0x0C, 0x10
# Class of types of variable length, and classes of layouts.
_VARIABLE = 9
_CONTIGUOUS, _VIRTUAL = 1, 3
# Objects of a heap have indices of 16 bits. Headers and lists of this package are much smaller.
_MOST_OBJECTS, _MOST_BYTES = 1 << 16, 1 << 22


def check_heaps(file: h5py.File, path: str | os.PathLike[str]) -> None:
    """Check the heaps of a file that was just opened.

    What this function cannot interpret is left to HDF5, which reports it.

    Args:
        file: Open file.
        path: Its path.

    Raises:
        DatasetError: If HDF5 would read a heap without end.
    """
    if file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
        return
    found: set[int] = set()

    def note(_: bytes, link: h5py.h5l.LinkInfo) -> None:
        if link.type == h5py.h5l.TYPE_HARD:
            found.add(link.u)

    # Of damage, HDF5 tells whoever reads the file; what was found until then is checked. Objects
    # are not opened, because that reads the list of the sources of a virtual dataset.
    with suppress(KeyError, OSError, RuntimeError, ValueError):
        file.id.links.visit(note, info=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found.add(_root(descriptor))
        heaps = {heap for address in found for heap in _heaps_of(descriptor, address)}
        for heap in sorted(heaps):
            if _is_endless(descriptor, heap):
                raise DatasetError(
                    f"{os.fspath(path)} is damaged: the heap of texts at byte {heap} holds an "
                    "object without a length. Restore it from a copy, or generate it again"
                )
    finally:
        os.close(descriptor)


def _root(descriptor: int) -> int:
    """Return the address of the root group in the superblock."""
    start = _bytes(descriptor, 0, 96).ljust(96)
    version = start[8]
    return int(_ADDRESS.unpack_from(start, 36 if version >= 2 else 64 + 4 * version)[0])


def _heaps_of(descriptor: int, address: int) -> Iterator[int]:
    """Yield the addresses of the heaps that an object's attributes and values refer to."""
    variable, values = False, b""
    try:
        for kind, message in _messages(descriptor, address):
            if kind == _ATTRIBUTE_MESSAGE:
                yield from _references(_attribute_values(message))
            elif kind == _DATATYPE:
                variable = message[0] & 15 == _VARIABLE
            elif kind == _LAYOUT and message[0] in (3, 4) and message[1] == _CONTIGUOUS:
                start, size = _BLOCK.unpack_from(message, 2)
                if size <= _MOST_BYTES:
                    values = _bytes(descriptor, start, size)
            elif kind == _LAYOUT and message[0] == 4 and message[1] == _VIRTUAL:
                # The list of the sources.
                yield _ADDRESS.unpack_from(message, 2)[0]
    except (IndexError, struct.error):
        return
    if variable:
        yield from _references(values)


def _messages(descriptor: int, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of an object's header of version 1, by type."""
    version, count, _, size = _HEADER.unpack(_bytes(descriptor, address, _HEADER.size))
    if version != 1:
        return
    blocks = [(address + _HEADER.size, size)]
    for start, size in blocks:
        if size > _MOST_BYTES or len(blocks) > count:
            return
        block, at = _bytes(descriptor, start, size), 0
        while at + _MESSAGE.size <= len(block):
            kind, length, flags = _MESSAGE.unpack_from(block, at)
            message = block[at + _MESSAGE.size : at + _MESSAGE.size + length]
            at += _MESSAGE.size + length
            if kind == _CONTINUATION:
                blocks.append(_BLOCK.unpack_from(message))
            elif not flags & 2:
                # Others are shared with other objects.
                yield kind, message


def _attribute_values(message: bytes) -> bytes:
    """Return the bytes of an attribute's values if they have variable length, else none."""
    version, name, datatype, dataspace = _ATTRIBUTE.unpack_from(message)
    step = 8 if version == 1 else 1
    at = _ATTRIBUTE.size + (version == 3) + -(-name // step) * step
    if message[at] & 15 != _VARIABLE:
        return b""
    return message[at + -(-datatype // step) * step + -(-dataspace // step) * step :]


def _references(values: bytes) -> Iterator[int]:
    whole = len(values) // _REFERENCE.size * _REFERENCE.size
    for _, heap, _ in _REFERENCE.iter_unpack(values[:whole]):
        if heap:
            yield heap


def _is_endless(descriptor: int, address: int) -> bool:
    """Whether a heap has an object whose length is zero, so that no object follows it."""
    start = _bytes(descriptor, address, _HEAP.size)
    if len(start) < _HEAP.size:
        return False
    signature, _, size = _HEAP.unpack(start)
    if signature != b"GCOL":
        return False
    heap = _bytes(descriptor, address, min(size, os.fstat(descriptor).st_size))
    at = _HEAP.size
    for _ in range(_MOST_OBJECTS):
        if at + _OBJECT.size > len(heap):
            return False
        index, _, length = _OBJECT.unpack_from(heap, at)
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        if not step:
            return True
        at += step
    return True


def _bytes(descriptor: int, start: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, start)
    except (OSError, OverflowError):
        return b""
