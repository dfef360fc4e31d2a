"""What users added to their file: it is kept when the file is written anew, or refused.

Everything that the schema does not name is the user's: attributes, groups, datasets and links.
Links are copied as links; nothing that they point to is opened.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import h5py
import numpy as np

from spinlock.config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage import schema

_REMEDY = "Move it to another file first, or generate to another path"
_OWN_ATTRIBUTES = ("description", "dimensions", "names", schema.COLUMN_DIGEST)


def require_copyable(file: h5py.File, config: GenerationConfig, wanted: GenerationConfig) -> None:
    """Refuse what cannot be kept when the file is written anew.

    Args:
        file: Dataset file.
        config: Configuration stored in it.
        wanted: Configuration of the new file.

    Raises:
        DatasetError: If an attribute holds references to objects, which would point nowhere; if
            something of the user's has the name of a new dataset; or if a dataset of the user's has
            a row for each sample, and there will be more samples.
    """
    for name, holder in _holders(file, config):
        for attribute in _foreign_attributes(name, holder):
            if _holds_references(holder.attrs.get_id(attribute).dtype):
                raise DatasetError(
                    f"{file.filename}: the attribute {attribute} of {name} holds references to "
                    f"objects of the file, which cannot be kept when it is written anew. {_REMEDY}"
                )
    foreign = list(_foreign_links(file, config))
    taken = sorted(set(foreign) & set(_own_paths(wanted)))
    if taken:
        raise DatasetError(
            f"{file.filename}: {taken[0]} was added to the file, and is the name of a dataset that "
            f"is to be written. {_REMEDY}"
        )
    if wanted.num_samples == config.num_samples:
        return
    for path in _foreign_datasets(file, foreign):
        if file[path].shape[:1] == (config.num_samples,):
            raise DatasetError(
                f"{file.filename}: {path} was added to the file and has a row for each of its "
                f"{config.num_samples} samples; further samples would have none. {_REMEDY}"
            )


def copy_foreign(source: h5py.File, target: h5py.File, config: GenerationConfig) -> None:
    """Copy everything that the schema does not name.

    Args:
        source: Dataset file, as `require_copyable` accepts it.
        target: New dataset file, open for writing.
        config: Configuration stored in the source.
    """
    for name, holder in _holders(source, config):
        if name in target:
            for attribute in _foreign_attributes(name, holder):
                value, kind = holder.attrs[attribute], holder.attrs.get_id(attribute).dtype
                target[name].attrs.create(attribute, value, dtype=kind)
    for path in _foreign_links(source, config):
        parent, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
        link = source.get(path, getlink=True)
        into = target.require_group(parent)
        if isinstance(link, h5py.HardLink):
            source.copy(path, into, name)
        else:
            into[name] = link


def _holders(
    file: h5py.File, config: GenerationConfig
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """The root, the groups and the datasets that the schema names."""
    yield "/", file
    for name in _own_paths(config):
        yield name, file[name]


def _own_paths(config: GenerationConfig) -> list[str]:
    """Paths of the datasets of a configuration, and of the groups that they lie in."""
    names = [PurePosixPath(spec.name) for spec in schema.dataset_specs(config)]
    groups = (str(group) for name in names for group in reversed(name.parents))
    return [*dict.fromkeys(group for group in groups if group != "."), *map(str, names)]


def _foreign_attributes(name: str, holder: h5py.Group | h5py.Dataset) -> list[str]:
    if name == "/":
        own: tuple[str, ...] = tuple(schema.ROOT_ATTRIBUTES)
    else:
        own = _OWN_ATTRIBUTES if isinstance(holder, h5py.Dataset) else ()
    return [attribute for attribute in holder.attrs if attribute not in own]


def _holds_references(kind: np.dtype[Any]) -> bool:
    """Whether values of a type are, or contain, references to objects of the file."""
    inner = h5py.check_vlen_dtype(kind)
    if isinstance(inner, np.dtype):
        return _holds_references(inner)
    if kind.names is not None:
        return any(_holds_references(kind[name]) for name in kind.names)
    return h5py.check_ref_dtype(kind.base) is not None


def _foreign_links(file: h5py.File, config: GenerationConfig) -> Iterator[str]:
    """Paths of the outermost objects and links that the schema does not name."""
    own = _own_paths(config)
    for holder in ("", *own):
        group = file[holder] if holder else file
        if isinstance(group, h5py.Group):
            paths = (f"{holder}/{name}".lstrip("/") for name in group)
            yield from (path for path in paths if path not in own)


def _foreign_datasets(file: h5py.File, foreign: list[str]) -> Iterator[str]:
    """Paths of the user's datasets; links are not followed."""
    for path in foreign:
        if not isinstance(file.get(path, getlink=True), h5py.HardLink):
            continue
        if isinstance(file[path], h5py.Dataset):
            yield path
        elif isinstance(file[path], h5py.Group):
            inside: list[str] = []
            file[path].visit(inside.append)
            paths = [f"{path}/{name}" for name in inside]
            yield from (each for each in paths if isinstance(file[each], h5py.Dataset))
