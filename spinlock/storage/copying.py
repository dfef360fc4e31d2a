"""Copies samples, and what users added, from one dataset file to another.

Whatever the schema does not name belongs to the user: attributes, groups, datasets and links. Links
are copied as links; nothing that they point to is opened.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath

import h5py

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError, in_a_line
from spinlock.runtime.ordered_map import row_blocks
from spinlock.storage import schema
from spinlock.storage.compression import encode_chunk
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.dimensions import SCALE_ATTRIBUTES, SCALES_OF_DATASET, dataset_scales
from spinlock.storage.hdf5_access import attribute_type, holds_references, read_attribute
from spinlock.storage.shard_index import INDEX

_REMEDY = "Move it to another file first, or generate to another path"


def copy_samples(
    source: DatasetFile, target: DatasetFile, samples: range, *, without: Collection[str] = ()
) -> None:
    """Copy consecutive samples, or only their columns into a virtual dataset.

    Chunks that this package packed are copied without unpacking.

    Args:
        source: Dataset file or shard that holds the samples.
        target: Dataset file or shard with the same schema, open for writing.
        samples: Samples to copy.
        without: Names of datasets to leave out.
    """
    rows, placed = (
        range(samples.start - file.samples.start, samples.stop - file.samples.start)
        for file in (source, target)
    )
    wanted = target.config.storage.compression
    same_packing = source.config.storage.compression == wanted
    for spec in target.columns:
        if spec.name not in without:
            for old, new in zip(row_blocks(rows), row_blocks(placed), strict=True):
                written = target.place(spec.name, new)
                target.stored_column(spec.name)[written] = source.column(spec.name, old)
    if target.shards is not None:
        return
    for spec in target.fields:
        chunks = target.file[spec.name].id
        for row, into in zip(rows, placed, strict=True):
            for place in spec.chunk_slices:
                packed = source.packed_chunk(spec.name, row, place) if same_packing else None
                if packed is None:
                    packed = encode_chunk(source.chunk(spec.name, row, place), wanted)
                chunks.write_direct_chunk((into, *(part.start for part in place)), packed)


def require_copyable(source: DatasetFile, wanted: GenerationConfig) -> None:
    """Refuse additions that cannot be kept when the file is rewritten.

    Args:
        source: Dataset file.
        wanted: Configuration of the new file.

    Raises:
        DatasetError: If an attribute cannot be read, or belongs to a dataset that the new file
            lacks; if an addition holds references to objects of the file, or has the name of a new
            dataset; or if an added dataset has a row for each sample, or below ``operators`` for
            each operator, and there will be more of them.
    """
    file = source.file
    written = _schema_paths(wanted)
    named = _named_paths(source, written)
    links = list(_added_links(source, named))
    taken = sorted(set(links) & set(written))
    if taken:
        raise DatasetError(
            f"{source.path}: {taken[0]} was added to the file, and is the name of a dataset that "
            f"is to be written. {_REMEDY}"
        )
    with h5py.File("attributes", "w", driver="core", backing_store=False) as trial:
        for path, holder, attribute in _added_attributes(source, named):
            if isinstance(holder, h5py.Dataset) and path not in written:
                raise DatasetError(
                    f"{source.path}: the attribute {attribute} was added to {path}, which the new "
                    f"file does not hold. {_REMEDY}"
                )
            _require_no_references(holder, path, attribute)
            _copy_attribute(holder, trial, attribute)
    for path in _added_objects(file, links):
        item = file[path]
        for attribute in item.attrs:
            _require_no_references(item, path, attribute)
        if not isinstance(item, h5py.Dataset):
            continue
        _require_no_references(item, path)
        # The size of a virtual dataset may depend on other files, which are not opened.
        rows = None if item.is_virtual else (item.shape or (None,))[0]
        counts = {"samples": (source.config.num_samples, wanted.num_samples)}
        if path.startswith("operators/"):
            counts["operators"] = (_operators(source.config), _operators(wanted))
        for what, (held, needed) in counts.items():
            if rows == held < needed:
                raise DatasetError(
                    f"{source.path}: {path} was added to the file and has a row for each of its "
                    f"{held} {what}; further {what} would have none. {_REMEDY}"
                )


def _operators(config: GenerationConfig) -> int:
    return -(-config.num_samples // config.probes_per_operator)


def copy_additions(source: DatasetFile, target: DatasetFile) -> None:
    """Copy everything that the schema does not name.

    Args:
        source: Dataset file that `require_copyable` accepts.
        target: New dataset file, open for writing.
    """
    named = _named_paths(source, _schema_paths(target.config))
    for path in _added_links(source, named):
        parent, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
        link = source.file.get(path, getlink=True)
        into = target.file.require_group(parent)
        if isinstance(link, h5py.HardLink):
            source.file.copy(path, into, name)
        else:
            into[name] = link
    for path, holder, attribute in _added_attributes(source, named):
        # Without its datasets, a group exists only for what was added to it.
        kept = target.file.require_group(path) if path not in target.file else target.file[path]
        _copy_attribute(holder, kept, attribute)


def _schema_paths(config: GenerationConfig) -> list[str]:
    """Return the paths of datasets, scales and the groups that contain them."""
    names = (*(spec.name for spec in schema.dataset_specs(config)), *dataset_scales(config))
    paths = [PurePosixPath(name) for name in names]
    groups = (str(group) for path in paths for group in reversed(path.parents))
    return [*dict.fromkeys(group for group in groups if group != "."), *map(str, paths)]


def _named_paths(source: DatasetFile, written: Iterable[str]) -> list[str]:
    """Return the paths of the schema of a file, and of its groups that the new file needs, too."""
    named = _schema_paths(source.config)
    for path in written:
        parent = str(PurePosixPath(path).parent)
        if path not in named and (parent == "." or parent in named):
            link = source.file.get(path, getlink=True)
            if isinstance(link, h5py.HardLink) and isinstance(source.file[path], h5py.Group):
                named.append(path)
    return named


def _added_attributes(
    source: DatasetFile, named_paths: Iterable[str]
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset, str]]:
    """Yield path, holder and name of the attributes that users added to objects of the schema."""
    for path in ("/", *named_paths):
        holder: h5py.Group | h5py.Dataset = source.file[path]
        named: tuple[str, ...] = ()
        if path == "/":
            named = tuple(schema.ROOT_ATTRIBUTES)
        elif path in source.specs:
            named = (*schema.DATASET_ATTRIBUTES, SCALES_OF_DATASET)
        elif isinstance(holder, h5py.Dataset):
            named = SCALE_ATTRIBUTES
        yield from ((path, holder, name) for name in holder.attrs if name not in named)


def _copy_attribute(source: h5py.HLObject, target: h5py.HLObject, name: str) -> None:
    value = read_attribute(source, name)
    try:
        target.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)
    except (OSError, RuntimeError, TypeError, UnicodeError, ValueError) as error:
        raise DatasetError(
            f"{source.file.filename}: the attribute {name} of {source.name} cannot be kept when "
            f"the file is rewritten: {in_a_line(error)}. {_REMEDY}"
        ) from error


def _require_no_references(
    holder: h5py.Group | h5py.Dataset, path: str, attribute: str | None = None
) -> None:
    """Refuse values that refer to other objects: in a new file they would point nowhere."""
    if attribute is None:
        what, kind = path, holder.id.get_type()
    else:
        what, kind = f"the attribute {attribute} of {path}", attribute_type(holder, attribute)
    if holds_references(kind):
        raise DatasetError(
            f"{holder.file.filename}: {what} holds references to objects of the file, which cannot "
            f"be kept when it is rewritten. {_REMEDY}"
        )


def _added_links(source: DatasetFile, named: Collection[str]) -> Iterator[str]:
    """Yield the paths of the outermost objects and links that are not among those named."""
    for holder in ("", *named):
        group = source.file[holder] if holder else source.file
        if isinstance(group, h5py.Group):
            paths = (f"{holder}/{name}".lstrip("/") for name in group)
            own = () if source.shards is None else (INDEX,)
            yield from (path for path in paths if path not in named and path not in own)


def _added_objects(file: h5py.File, added: list[str]) -> Iterator[str]:
    """Yield the paths of added groups and datasets and of their members; links are not followed."""
    for path in added:
        if isinstance(file.get(path, getlink=True), h5py.HardLink):
            yield path
            if isinstance(file[path], h5py.Group):
                members: list[str] = []
                file[path].visit(members.append)
                yield from (f"{path}/{name}" for name in members)
