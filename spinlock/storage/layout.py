"""Creates the datasets and dimension scales of a file, and finds deviations from the schema."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import in_a_line
from spinlock.storage.compression import FILTERS
from spinlock.storage.dimensions import dataset_scales, values_problem, write_scales
from spinlock.storage.hdf5_access import is_plain, link_problem, local_object
from spinlock.storage.schema import DatasetSpec
from spinlock.storage.shard_index import ShardIndex
from spinlock.storage.virtual_datasets import sources_problem

ProblemKind = Literal["missing", "elsewhere", "shape", "type", "scale"]

# HDF5 unpacks a whole chunk to read one element of it, and a chunk of a forged file may be larger
# than the dataset. Other programs rewrite files with chunks of up to some MiB; a chunk of a scale
# must fit into the cache of HDF5, because its texts are read one at a time.
_CHUNK_BYTES = 1 << 26
_SCALE_CHUNK_BYTES = 1 << 20
# Bytes of the largest element of a scale: a text of variable length, without its content.
_ELEMENT_BYTES = 16


class Problem(NamedTuple):
    """Deviation of a dataset or a dimension scale from the schema.

    Args:
        kind: Kind of deviation; ``scale`` is any deviation of a dimension scale, except that it is
            stored elsewhere.
        text: Description that follows the name of the dataset in a sentence.
    """

    kind: ProblemKind
    text: str


_MISSING = Problem("missing", "is missing, although the configuration requires it")


def create_datasets(
    file: h5py.File, config: GenerationConfig, specs: Iterable[DatasetSpec], samples: range
) -> None:
    """Create the datasets of a new file with their attributes and dimension scales.

    Args:
        file: New file.
        config: Configuration of the dataset.
        specs: Datasets of the file.
        samples: Samples in the rows of the file.
    """
    specs, filters = tuple(specs), FILTERS[config.storage.compression]
    for spec in specs:
        create_dataset(file, spec, samples, filters).attrs.update(spec.attributes)
    write_scales(file, specs, dataset_scales(config, samples).values())


def create_dataset(
    file: h5py.File, spec: DatasetSpec, samples: range, filters: Mapping[str, Any]
) -> h5py.Dataset:
    """Create one dataset without attributes. Fields get chunks with the given filters."""
    options = {} if spec.chunk is None else {"chunks": (1, *spec.chunk), **filters}
    return file.create_dataset(
        spec.name, (len(spec.rows(samples)), *spec.shape), spec.dtype, **options
    )


def dataset_problems(
    file: h5py.File, specs: Iterable[DatasetSpec], samples: range
) -> dict[str, Problem]:
    """Return how datasets deviate from the schema, by name.

    Args:
        file: File that must itself hold the datasets.
        specs: Datasets of the file.
        samples: Samples in the rows of the file.
    """
    groups: dict[str, h5py.Group | Problem] = {}
    found = {}
    for spec in specs:
        problem = _spec_problem(_open(file, spec.name, groups), spec, samples)
        if problem is not None:
            found[spec.name] = problem
    return found


def link_problems(file: h5py.File, names: Iterable[str]) -> dict[str, Problem]:
    """Return which datasets of a virtual dataset's file are missing or reached through a link.

    The datasets are not opened, because HDF5 then reads the list of all their sources.
    """
    groups: dict[str, h5py.Group | Problem] = {}
    found = {}
    for name in names:
        parent, _, leaf = name.rpartition("/")
        if parent not in groups:
            groups[parent] = _member(file, parent, h5py.Group)
        group = groups[parent]
        if isinstance(group, Problem):
            found[name] = group
        elif leaf not in group:
            found[name] = _MISSING
        elif text := link_problem(group.get(leaf, getlink=True)):
            found[name] = Problem("elsewhere", text)
    return found


def virtual_problems(
    file: h5py.File, specs: Iterable[DatasetSpec], index: ShardIndex, num_samples: int
) -> dict[str, Problem]:
    """Return how virtual datasets deviate from the schema and from the index, by name.

    Args:
        file: File of a virtual dataset. No other file is opened.
        specs: Datasets of the file.
        index: Shards of the dataset.
        num_samples: Number of samples.
    """
    groups: dict[str, h5py.Group | Problem] = {}
    found = {}
    for spec in specs:
        held = _open(file, spec.name, groups, virtual=True)
        problem: Problem | None
        if isinstance(held, Problem):
            problem = held
        elif text := sources_problem(held, spec, index, num_samples):
            problem = Problem("elsewhere", text)
        else:
            problem = _spec_problem(held, spec, range(num_samples))
        if problem is not None:
            found[spec.name] = problem
    return found


def _spec_problem(
    held: h5py.Dataset | Problem, spec: DatasetSpec, samples: range
) -> Problem | None:
    shape = (len(spec.rows(samples)), *spec.shape)
    # A column may be read at once, a chunked dataset is read one sample at a time.
    size = math.prod(shape if spec.chunk is None else spec.shape) * spec.dtype.itemsize
    return _problem(held, shape, spec.dtype, max(size, _CHUNK_BYTES))


def scale_problems(file: h5py.File, config: GenerationConfig, samples: range) -> dict[str, Problem]:
    """Return how dimension scales deviate from the schema, by name.

    Args:
        file: File that must itself hold the scales.
        config: Configuration of the dataset.
        samples: Samples in the rows of the file.
    """
    groups: dict[str, h5py.Group | Problem] = {}
    found: dict[str, Problem | None] = {}
    for name, scale in dataset_scales(config, samples).items():
        held = _open(file, name, groups)
        limit = max(_ELEMENT_BYTES * scale.size, _SCALE_CHUNK_BYTES)
        problem = _problem(held, (scale.size,), scale.dtype, limit)
        if problem is None and isinstance(held, h5py.Dataset):
            text = values_problem(held, scale)
            problem = Problem("scale", text) if text else None
        if problem is not None and problem.kind != "elsewhere":
            problem = problem._replace(kind="scale")
        found[name] = problem
    return {name: problem for name, problem in found.items() if problem is not None}


def _open(
    file: h5py.File,
    name: str,
    groups: dict[str, h5py.Group | Problem],
    *,
    virtual: bool = False,
) -> h5py.Dataset | Problem:
    """Return a dataset that is stored in the file itself, or why there is none.

    Args:
        file: File.
        name: Path of the dataset.
        groups: Groups that previous calls opened, or why they could not, by path.
        virtual: Whether it may be a virtual dataset.
    """
    parent, _, leaf = name.rpartition("/")
    if parent not in groups:
        groups[parent] = _member(file, parent, h5py.Group) if parent else file
    group = groups[parent]
    if isinstance(group, Problem):
        return group
    return _member(group, leaf, h5py.Dataset, virtual=virtual)


def _member(holder: h5py.Group, name: str, kind: type, *, virtual: bool = False) -> Any:  # noqa: ANN401 (h5py is untyped)
    member, elsewhere = local_object(holder, name, virtual=virtual)
    if elsewhere:
        return Problem("elsewhere", elsewhere)
    if isinstance(member, kind):
        return member
    return _MISSING


def _problem(
    data: h5py.Dataset | Problem, shape: tuple[int, ...], dtype: np.dtype[Any], chunk_bytes: int
) -> Problem | None:
    """Return how a dataset deviates from a shape and type, or has chunks of too many bytes."""
    if isinstance(data, Problem):
        return data
    kind = data.id.get_type()
    if not is_plain(kind):
        return Problem("type", "has a type that does not consist of numbers and text")
    if data.shape != shape:
        return Problem("shape", f"has the shape {data.shape}, expected {shape}")
    try:
        held = data.dtype
    except Exception as error:
        # HDF5 has numbers that NumPy lacks, such as integers of 128 bits.
        return Problem(
            "type", f"has a type that cannot be read ({in_a_line(error)}), expected {dtype}"
        )
    if held != dtype:
        return Problem("type", f"is {held}, expected {dtype}")
    # To NumPy, sequences of variable length and such texts are all objects.
    found, wanted = (h5py.check_string_dtype(one) for one in (held, dtype))
    if found != wanted:
        what = f"is text of {found}" if found else "is not text"
        return Problem("type", f"{what}, expected {wanted}")
    size = math.prod(data.chunks) * kind.get_size() if data.chunks else 0
    if size > chunk_bytes:
        text = f"has chunks of {size} bytes, expected at most {chunk_bytes}"
        return Problem("shape", text)
    return None
