"""Writes the virtual datasets of a dataset of the layout ``virtual``, and compares them.

HDF5 reads a virtual dataset from other files [1]_, which here are the shards and the file of
columns. Other programs therefore read the file like any other. This package itself reads the
shards directly: HDF5 would return fill values where a shard is missing, and open whatever file a
virtual dataset names.

.. [1] The HDF Group, "HDF5 Virtual Dataset", RFC-2014-03, 2014.
"""

from collections.abc import Iterator
from typing import NamedTuple

import h5py
import numpy as np

from spinlock.storage.schema import DatasetSpec
from spinlock.storage.shard_index import ShardIndex


class _Source(NamedTuple):
    """Rows of a virtual dataset, and where they come from.

    Args:
        rows: Rows of the virtual dataset.
        file: Path of the source, relative to the folder of the dataset.
        held: Number of rows of the source.
        skipped: Rows of the source before the first one that is taken.
    """

    rows: range
    file: str
    held: int
    skipped: int


def write_virtual(
    file: h5py.File, spec: DatasetSpec, index: ShardIndex, num_samples: int
) -> h5py.Dataset:
    """Create the virtual dataset of one dataset of the schema.

    Where a source is missing, HDF5 returns NaN, or the least integer: never a plausible value.

    Args:
        file: New file.
        spec: Dataset of the schema.
        index: Shards of the whole dataset.
        num_samples: Number of samples N.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if spec.dtype.kind == "f":
        properties.set_fill_value(np.array(np.nan, spec.dtype))
    elif spec.dtype.kind == "i":
        properties.set_fill_value(np.array(np.iinfo(spec.dtype).min, spec.dtype))
    shape = (len(spec.rows(range(num_samples))), *spec.shape)
    for source in _sources(spec, index, num_samples):
        properties.set_virtual(
            _slab(shape, source.rows.start, len(source.rows)),
            source.file.encode(),
            f"/{spec.name}".encode(),
            _slab((source.held, *spec.shape), source.skipped, len(source.rows)),
        )
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    kind = h5py.h5t.py_create(spec.dtype, logical=True)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(
        h5py.h5d.create(file.id, spec.name.encode(), kind, space, properties, links)
    )


def sources_problem(
    data: h5py.Dataset, spec: DatasetSpec, index: ShardIndex, num_samples: int
) -> str:
    """Describe how the sources of a virtual dataset differ from the index; empty if they do not.

    No source is opened; arguments as for `write_virtual`.
    """
    if not data.is_virtual:
        return "is not a virtual dataset, although storage.layout is virtual"
    wrong = "has other sources than the shards that the file lists"
    properties = data.id.get_create_plist()
    expected = list(_sources(spec, index, num_samples))
    if properties.get_virtual_count() != len(expected):
        return wrong
    for number, source in enumerate(expected):
        count = len(source.rows)
        same = (
            properties.get_virtual_filename(number) == source.file
            and properties.get_virtual_dsetname(number) == f"/{spec.name}"
            and _is_slab(properties.get_virtual_vspace(number), source.rows.start, count, spec)
            and _is_slab(properties.get_virtual_srcspace(number), source.skipped, count, spec)
        )
        if not same:
            return wrong
    return ""


def _sources(spec: DatasetSpec, index: ShardIndex, num_samples: int) -> Iterator[_Source]:
    # The folder of the shards of a configuration lies in the folder of shards beside the file.
    folder = f"{index.folder.parent.name}/{index.folder.name}"
    if spec.chunk is None:
        rows = spec.rows(range(num_samples))
        yield _Source(rows, f"{folder}/{index.columns_path.name}", len(rows), 0)
        return
    for piece in index.pieces:
        held, rows = (
            spec.rows(range(*ends))
            for ends in ((piece.start, piece.stop), (piece.first, piece.last))
        )
        file = f"{folder}/{index.path(piece).name}"
        yield _Source(rows, file, len(held), rows.start - held.start)


def _slab(shape: tuple[int, ...], start: int, count: int) -> h5py.h5s.SpaceID:
    space = h5py.h5s.create_simple(shape)
    rest = shape[1:]
    space.select_hyperslab((start, *(0 for _ in rest)), (count, *rest))
    return space


def _is_slab(space: h5py.h5s.SpaceID, start: int, count: int, spec: DatasetSpec) -> bool:
    """Whether a selection consists of these rows; one without limits, or with gaps, does not."""
    ends = (start + count, *spec.shape)
    wanted = (start, *(0 for _ in spec.shape)), tuple(end - 1 for end in ends)
    try:
        bounds = space.get_select_bounds()
    except ValueError:
        # It selects everything, nothing or an unlimited number of rows.
        return False
    elements = int(np.prod((count, *spec.shape), dtype=object))
    return tuple(map(tuple, bounds)) == wanted and space.get_select_npoints() == elements
