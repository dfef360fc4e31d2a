"""What users added to their file: it is kept when the file is written anew, or refused.

Everything that the schema does not name is the user's: attributes, groups, datasets and links.
Links are copied as links; nothing that they point to is opened.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

import h5py

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage import schema
from spinlock.storage.attributes import attribute_type, holds_references, read_attribute

_REMEDY = "Move it to another file first, or generate to another path"
_OWN_ATTRIBUTES = ("description", "dimensions", "names", schema.COLUMN_DIGEST)


def require_copyable(file: h5py.File, config: GenerationConfig, wanted: GenerationConfig) -> None:
    """Refuse what cannot be kept when the file is written anew.

    Args:
        file: Dataset file.
        config: Configuration stored in it.
        wanted: Configuration of the new file.

    Raises:
        DatasetError: If an attribute cannot be read; if something of the user's holds references to
            objects of the file, or has the name of a new dataset; or if a dataset of the user's has
            a row for each sample, and there will be more samples.
    """
    with h5py.File("attributes", "w", driver="core", backing_store=False) as trial:
        for name, holder in _holders(file, config):
            for attribute in _foreign_attributes(name, holder):
                kind = attribute_type(holder, attribute)
                _require_no_references(file, f"the attribute {attribute} of {name}", kind)
                _copy_attribute(holder, trial, attribute)
    foreign = list(_foreign_links(file, config))
    taken = sorted(set(foreign) & set(_own_paths(wanted)))
    if taken:
        raise DatasetError(
            f"{file.filename}: {taken[0]} was added to the file, and is the name of a dataset that "
            f"is to be written. {_REMEDY}"
        )
    extended = wanted.num_samples > config.num_samples
    for path in _foreign_objects(file, foreign):
        item = file[path]
        for attribute in item.attrs:
            kind = attribute_type(item, attribute)
            _require_no_references(file, f"the attribute {attribute} of {path}", kind)
        if isinstance(item, h5py.Dataset):
            _require_no_references(file, path, item.id.get_type())
        # The size of a virtual dataset may lie in other files, which are not opened.
        sized = isinstance(item, h5py.Dataset) and not item.is_virtual
        if extended and sized and (item.shape or ())[:1] == (config.num_samples,):
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
                _copy_attribute(holder, target[name], attribute)
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


def _copy_attribute(source: h5py.HLObject, target: h5py.HLObject, name: str) -> None:
    value = read_attribute(source, name)
    try:
        target.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)
    except (OSError, RuntimeError, TypeError, UnicodeError, ValueError) as error:
        raise DatasetError(
            f"{source.file.filename}: the attribute {name} of {source.name} cannot be kept when "
            f"the file is written anew: {error}. {_REMEDY}"
        ) from error


def _require_no_references(file: h5py.File, what: str, kind: h5py.h5t.TypeID) -> None:
    """Refuse values that refer to other objects: in a new file they would point nowhere."""
    if holds_references(kind):
        raise DatasetError(
            f"{file.filename}: {what} holds references to objects of the file, which cannot be "
            f"kept when it is written anew. {_REMEDY}"
        )


def _foreign_links(file: h5py.File, config: GenerationConfig) -> Iterator[str]:
    """Paths of the outermost objects and links that the schema does not name."""
    own = _own_paths(config)
    for holder in ("", *own):
        group = file[holder] if holder else file
        if isinstance(group, h5py.Group):
            paths = (f"{holder}/{name}".lstrip("/") for name in group)
            yield from (path for path in paths if path not in own)


def _foreign_objects(file: h5py.File, foreign: list[str]) -> Iterator[str]:
    """Paths of the user's groups and datasets, nested ones included; links are not followed."""
    for path in foreign:
        if isinstance(file.get(path, getlink=True), h5py.HardLink):
            yield path
            if isinstance(file[path], h5py.Group):
                inside: list[str] = []
                file[path].visit(inside.append)
                yield from (f"{path}/{name}" for name in inside)
