"""Reading HDF5 attributes that a stranger may have written.

h5py turns some types into Python objects from the bytes in the file, which are then addresses. So
the type of an attribute is checked before its value is read.
"""

import h5py

from spinlock.errors import DatasetError

_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)


def attribute_type(holder: h5py.HLObject, name: str) -> h5py.h5t.TypeID:
    """The HDF5 type of an attribute; its value is not read."""
    return h5py.h5a.open(holder.id, name.encode("utf-8", "surrogateescape")).get_type()


def is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of a type are made of numbers and text."""
    return all(each in _PLAIN for each in _classes(kind))


def holds_references(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of a type are, or contain, references to objects of the file."""
    return h5py.h5t.REFERENCE in _classes(kind)


def read_attribute(holder: h5py.HLObject, name: str) -> object:
    """The value of an attribute, or None if there is none of that name.

    Raises:
        DatasetError: If it is neither numbers nor text.
    """
    if name not in holder.attrs:
        return None
    try:
        if is_plain(attribute_type(holder, name)):
            value: object = holder.attrs[name]
            return value
        reason = "its type is not one of numbers and text"
    except (OSError, RuntimeError, TypeError, UnicodeError, ValueError) as error:
        reason = str(error)
    raise DatasetError(
        f"{holder.file.filename}: the attribute {name} of {holder.name} cannot be read: {reason}"
    )


def _classes(kind: h5py.h5t.TypeID) -> list[int]:
    """The classes of types that a type is made of."""
    own = kind.get_class()
    if own == h5py.h5t.COMPOUND:
        members = map(kind.get_member_type, range(kind.get_nmembers()))
        return [each for member in members for each in _classes(member)]
    if own in (h5py.h5t.ARRAY, h5py.h5t.VLEN):
        return _classes(kind.get_super())
    return [own]
