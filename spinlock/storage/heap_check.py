"""Checks the heaps of an HDF5 file, because HDF5 hangs or crashes where some are damaged.

HDF5 stores texts, lists of variable length and the sources of virtual datasets in global heaps
[1]_. Each object of a heap, and the free space behind them, states its length. If the length of
free space is zero, HDF5 never advances. Where the selection of a source is damaged, HDF5 writes to
addresses that it never allocated. So the heaps that attributes, contiguous datasets and virtual
datasets refer to are read here before HDF5 reads them. Heaps that only chunks or headers of version
2 refer to, which this package does not write, are not found.

.. [1] HDF5 File Format Specification Version 3.0, sections III.E and IV.A.
   https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import h5py

from spinlock.errors import DatasetError

_HEADER = struct.Struct("<BxHIIxxxx")
_MESSAGE = struct.Struct("<HHBxxx")
_ATTRIBUTE = struct.Struct("<BxHHH")
_REFERENCE = struct.Struct("<IQI")
_HEAP = struct.Struct("<4sBxxxQ")
_OBJECT = struct.Struct("<HHxxxxQ")
_BLOCK, _ADDRESS = struct.Struct("<QQ"), struct.Struct("<Q")
_PLACE, _SOURCES = struct.Struct("<QI"), struct.Struct("<BQ")
# Selections of everything or nothing, of blocks, and of a regular pattern without an end.
_SELECTION, _BLOCKS, _PATTERN = map(struct.Struct, ("<II", "<12xIII", "<8xxII"))
_WIDE = struct.Struct("<8xBBI")
# Types of messages in the header of an object.
_DATATYPE, _LAYOUT, _ATTRIBUTE_MESSAGE, _CONTINUATION = 0x03, 0x08, 0x0C, 0x10
# Class of types of variable length, and classes of layouts.
_VARIABLE = 9
_CONTIGUOUS, _VIRTUAL = 1, 3
_MOST_DIMENSIONS = 32
# Objects of a heap have indices of 16 bits. Headers and lists of this package are much smaller.
_MOST_OBJECTS, _MOST_BYTES = 1 << 16, 1 << 22
# Bytes to read of one file; what a larger file refers to is left to HDF5.
_BUDGET = 1 << 25


class _BudgetSpentError(Exception):
    """Raised when more would be read than `_BUDGET`."""


class _Source:
    """Bytes of an open file, of which a limited number is read.

    Args:
        descriptor: Descriptor of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._left = descriptor, _BUDGET
        self._size = os.fstat(descriptor).st_size

    def read(self, start: int, size: int) -> bytes:
        """Return the bytes that there are; none if they cannot be read."""
        size = max(0, min(size, self._size - start))
        # Small reads cost time, too.
        self._left -= size + 64
        if self._left < 0:
            raise _BudgetSpentError
        try:
            return os.pread(self._descriptor, size, start)
        except (OSError, OverflowError):
            return b""


def check_heaps(file: h5py.File, path: str | os.PathLike[str]) -> None:
    """Check the heaps of a file that was just opened.

    What this function cannot interpret is left to HDF5, which reports it.

    Args:
        file: Open file.
        path: Its path.

    Raises:
        DatasetError: If HDF5 would read a heap without end, or cannot read a virtual dataset.
    """
    plain = file.driver == "sec2" and not file.userblock_size
    if not plain or file.id.get_create_plist().get_sizes() != (8, 8):
        return
    found: set[int] = set()
    names: list[bytes] = []
    # If HDF5 finds damage here, it will report it again when the file is read; the objects found
    # before it are checked. Objects are not opened, because that reads the sources of a virtual
    # dataset. A signal may interrupt a function of Python in place of `append`, which h5py does not
    # survive.
    with suppress(KeyError, OSError, RuntimeError, ValueError):
        file.id.links.visit(names.append)
    for name in names:
        with suppress(KeyError, OSError, RuntimeError, ValueError):
            link = file.id.links.get_info(name)
            if link.type == h5py.h5l.TYPE_HARD:
                found.add(link.u)
    with suppress(_BudgetSpentError):
        _check(_Source(file.id.get_vfd_handle()), found, path)


def _check(source: _Source, objects: set[int], path: str | os.PathLike[str]) -> None:
    heaps: set[int] = set()
    lists: set[tuple[int, int]] = set()
    for address in objects | {_root(source)}:
        for heap, index in _places(source, address):
            heaps.add(heap)
            if index is not None:
                lists.add((heap, index))
    for heap in sorted(heaps):
        if any(step == 0 for _, _, step in _objects(source, heap)):
            raise _damaged(path, heap, "an object without a length")
    for heap, index in sorted(lists):
        if not _are_sources(_object(source, heap, index)):
            raise _damaged(path, heap, "a damaged list of sources")


def _damaged(path: str | os.PathLike[str], heap: int, problem: str) -> DatasetError:
    return DatasetError(
        f"{os.fspath(path)} is damaged: the heap at byte {heap} holds {problem}. Restore it from a "
        "copy, or generate it again"
    )


def _root(source: _Source) -> int:
    """Return the address of the root group in the superblock."""
    start = source.read(0, 96).ljust(96)
    version = start[8]
    return int(_ADDRESS.unpack_from(start, 36 if version >= 2 else 64 + 4 * version)[0])


def _places(source: _Source, address: int) -> Iterator[tuple[int, int | None]]:
    """Yield the heaps that an object's attributes and values refer to.

    Yields:
        Address of the heap; and the index of the object in it that lists the sources of a virtual
        dataset, None for texts and lists.
    """
    variable, values = False, b""
    try:
        for kind, message in _messages(source, address):
            if kind == _ATTRIBUTE_MESSAGE:
                yield from _references(_attribute_values(message))
            elif kind == _DATATYPE:
                variable = message[0] & 15 == _VARIABLE
            elif kind == _LAYOUT and message[0] in (3, 4) and message[1] == _CONTIGUOUS:
                start, size = _BLOCK.unpack_from(message, 2)
                if size <= _MOST_BYTES:
                    values = source.read(start, size)
            elif kind == _LAYOUT and message[0] == 4 and message[1] == _VIRTUAL:
                yield _PLACE.unpack_from(message, 2)
    except (IndexError, struct.error):
        return
    if variable:
        yield from _references(values)


def _messages(source: _Source, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of an object's header of version 1, by type."""
    version, most, _, size = _HEADER.unpack(source.read(address, _HEADER.size))
    if version != 1:
        return
    blocks = [(address + _HEADER.size, size)]
    for start, size in blocks:
        if size > _MOST_BYTES or len(blocks) > most:
            return
        block, at = source.read(start, size), 0
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


def _references(values: bytes) -> Iterator[tuple[int, None]]:
    whole = len(values) // _REFERENCE.size * _REFERENCE.size
    for _, heap, _ in _REFERENCE.iter_unpack(values[:whole]):
        if heap:
            yield heap, None


def _objects(source: _Source, address: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the index and the bytes of each object of a heap, and the step to the next one.

    The last step is 0 if the heap has no end.
    """
    start = source.read(address, _HEAP.size)
    if len(start) < _HEAP.size:
        return
    signature, _, size = _HEAP.unpack(start)
    if signature != b"GCOL":
        return
    heap = source.read(address, size)
    at = _HEAP.size
    for number in count():
        if at + _OBJECT.size > len(heap):
            return
        index, _, length = _OBJECT.unpack_from(heap, at)
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        step = 0 if number == _MOST_OBJECTS else step
        yield index, heap[at + _OBJECT.size : at + _OBJECT.size + length], step
        if not step:
            return
        at += step


def _object(source: _Source, heap: int, wanted: int) -> bytes | None:
    return next((held for index, held, _ in _objects(source, heap) if index == wanted), None)


def _are_sources(held: bytes | None) -> bool:
    """Whether an object is a list of sources as HDF5 writes it: names, and selections of rows.

    HDF5 itself reports a missing object, and a wrong checksum at the end of the object.
    """
    if held is None:
        return True
    try:
        version, number = _SOURCES.unpack_from(held)
        at = _SOURCES.size
        for _ in range(number):
            for _ in ("file", "dataset"):
                at = held.index(b"\0", at) + 1
            for _ in ("source", "virtual"):
                at = _end_of_selection(held, at)
    except (ValueError, struct.error):
        return False
    return bool(version == 0) and at + 4 == len(held)


def _end_of_selection(held: bytes, at: int) -> int:
    """Return the end of a selection.

    Raises:
        ValueError: If it has another form than those that HDF5 writes.
    """
    match _SELECTION.unpack_from(held, at):
        case (0 | 3, 1):
            return at + 16
        case (2, 1):
            length, rank, blocks = _BLOCKS.unpack_from(held, at)
            size, start = 8 * rank * blocks, 8
        case (2, 2):
            length, rank = _PATTERN.unpack_from(held, at)
            size, start, at = 32 * rank, 4, at + 1 - 4
        case (2, 3):
            # Numbers of any width, and a flag of regular patterns.
            regular, width, rank = _WIDE.unpack_from(held, at)
            at, start = at + 14 - 16, 0 if regular & 1 else width
            blocks = int.from_bytes(held[at + 16 : at + 16 + start], "little")
            size = 2 * rank * width * (2 if regular & 1 else blocks)
            length = start + size
        case _:
            raise ValueError
    if not 0 < rank <= _MOST_DIMENSIONS or length != start + size:
        raise ValueError
    return int(at + 16 + start + size)
