"""Opens HDF5 files and reads attributes safely, also where an untrusted program wrote them.

h5py interprets some types as addresses of Python objects, so the type of an attribute is checked
before its value is read. HDF5 can also refer to other files, by links, external storage and virtual
datasets: following them would read, and writing would change, files that the user did not name.
"""

import errno
import os
from pathlib import Path

import h5py

from spinlock.errors import DatasetError, DatasetNotFoundError, in_a_line
from spinlock.storage.heap_check import check_heaps

_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)
_LOCAL = "datasets must be stored in the file itself"
# Refusals of the operating system, which say nothing about the content of a file.
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM")
    if hasattr(errno, name)
)


def refusal(error: BaseException | None) -> OSError | MemoryError | None:
    """Return the error of the system that an error is or was raised from; None without one."""
    while error is not None:
        if isinstance(error, MemoryError):
            return error
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error
        error = error.__cause__
    return None


def is_refusal(error: BaseException | None) -> bool:
    """Whether an error comes from the system, so that it is no evidence of a damaged file."""
    return refusal(error) is not None


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Open a file for reading.

    Raises:
        DatasetNotFoundError: If the file does not exist.
        DatasetError: If the path is not a regular file, the file is not readable as HDF5, or HDF5
            would read it without end.
    """
    path = Path(path)
    if path.is_dir():
        raise DatasetError(f"{path} is a directory; give the path of an HDF5 file in it")
    if not path.exists():
        raise DatasetNotFoundError(
            f"{path} does not exist; make it with `spinlock generate` or a data module's "
            "prepare_data()"
        )
    if not path.is_file():
        raise DatasetError(f"{path} is not a regular file")
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise DatasetError(f"{path} is not a readable HDF5 file ({in_a_line(error)})") from error
    try:
        check_heaps(file, path)
    except BaseException:
        file.close()
        raise
    return file


def attribute_type(holder: h5py.HLObject, name: str) -> h5py.h5t.TypeID:
    """Return the HDF5 type of an attribute without reading its value."""
    return h5py.h5a.open(holder.id, name.encode("utf-8", "surrogateescape")).get_type()


def is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of a type consist of numbers and text only."""
    return all(each in _PLAIN for each in _classes(kind))


def holds_references(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of a type are, or contain, references to objects of the file."""
    return h5py.h5t.REFERENCE in _classes(kind)


def _classes(kind: h5py.h5t.TypeID) -> list[int]:
    """Return the classes of the elementary types in a type."""
    own = kind.get_class()
    if own == h5py.h5t.COMPOUND:
        members = map(kind.get_member_type, range(kind.get_nmembers()))
        return [each for member in members for each in _classes(member)]
    if own in (h5py.h5t.ARRAY, h5py.h5t.VLEN):
        return _classes(kind.get_super())
    return [own]


def read_attribute(holder: h5py.HLObject, name: str) -> object:
    """Return the value of an attribute; None if it does not exist.

    Raises:
        DatasetError: If the value does not consist of numbers or text.
    """
    if name not in holder.attrs:
        return None
    try:
        if is_plain(attribute_type(holder, name)):
            value: object = holder.attrs[name]
            return value
        reason = "its type is not one of numbers and text"
    except (OSError, RuntimeError, TypeError, UnicodeError, ValueError) as error:
        reason = in_a_line(error)
    raise DatasetError(
        f"{holder.file.filename}: the attribute {name} of {holder.name} cannot be read: {reason}"
    )


def text_attribute(file: h5py.File, name: str) -> str:
    """Return a root attribute that must be text without control characters.

    Raises:
        DatasetError: If it is missing or not such a text.
    """
    value = read_attribute(file, name)
    # Texts are printed on terminals, where control characters would be commands.
    if not (isinstance(value, str) and value.isprintable()):
        raise DatasetError(f"{file.filename}: the root attribute {name} must be printable text")
    return value


def storage_problem(group: h5py.Group, name: str) -> str:
    """Describe why a path in a group leads to data outside of the file; empty if it does not."""
    return local_object(group, name)[1]


def link_problem(link: object) -> str:
    """Describe why a link leads, or may lead, outside of the file; empty if it does not."""
    if isinstance(link, h5py.HardLink):
        return ""
    return f"is reached through a link ({type(link).__name__}); {_LOCAL}"


def local_object(
    group: h5py.Group, name: str, *, virtual: bool = False
) -> tuple[h5py.Group | h5py.Dataset | None, str]:
    """Open a path in a group if it leads to data in the file itself.

    Args:
        group: Group of an open file.
        name: Path in the group.
        virtual: Whether it may lead to a virtual dataset, which is opened but not read; default:
            False.

    Returns:
        The object, or None if there is none; and why the path leads outside of the file, which is
        empty if it does not.
    """
    holder: h5py.Group | h5py.Dataset = group
    for part in name.split("/"):
        link = holder.get(part, getlink=True) if isinstance(holder, h5py.Group) else None
        if link is None:
            return None, ""
        if problem := link_problem(link):
            return None, problem
        holder = holder[part]
    if virtual or not isinstance(holder, h5py.Dataset):
        return holder, ""
    if holder.is_virtual or holder.external:
        kind = "a virtual dataset" if holder.is_virtual else "stored in another file"
        return None, f"is {kind}; {_LOCAL}"
    return holder, ""
