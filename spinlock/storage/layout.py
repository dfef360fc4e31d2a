"""Creates the datasets and dimension scales of a file, and finds deviations from the schema."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.storage.compression import FILTERS
from spinlock.storage.dimensions import dataset_scales, scale_problem, write_scales
from spinlock.storage.hdf5_access import is_plain, local_object
from spinlock.storage.schema import DatasetSpec

ProblemKind = Literal["missing", "elsewhere", "shape", "type", "scale"]


class Problem(NamedTuple):
    """Deviation of a dataset or a dimension scale from the schema.

    Args:
        kind: Kind of deviation; ``scale`` is any deviation of a dimension scale.
        text: Description that follows the name of the dataset in a sentence.
    """

    kind: ProblemKind
    text: str


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
        shape = (len(spec.rows(samples)), *spec.shape)
        options = {} if spec.chunk is None else {"chunks": (1, *spec.chunk), **filters}
        dataset = file.create_dataset(spec.name, shape, spec.dtype, **options)
        dataset.attrs.update(spec.attributes)
    write_scales(file, specs, dataset_scales(config, samples).values())


def layout_problems(
    file: h5py.File, config: GenerationConfig, specs: Iterable[DatasetSpec], samples: range
) -> dict[str, Problem]:
    """Return how datasets and dimension scales deviate from the schema, by name.

    The arguments are those of `create_datasets`.
    """
    groups: dict[str, h5py.Group | Problem] = {}
    found: dict[str, Problem | None] = {}
    for spec in specs:
        held = _open(file, spec.name, groups)
        found[spec.name] = (
            held if isinstance(held, Problem) else _dataset_problem(held, spec, samples)
        )
    for name, scale in dataset_scales(config, samples).items():
        held = _open(file, name, groups)
        text = held.text if isinstance(held, Problem) else scale_problem(held, scale)
        found[name] = Problem("scale", text) if text else None
    return {name: problem for name, problem in found.items() if problem is not None}


def _open(
    file: h5py.File, name: str, groups: dict[str, h5py.Group | Problem]
) -> h5py.Dataset | Problem:
    """Return a dataset that is stored in the file itself, or why there is none.

    Args:
        file: File.
        name: Path of the dataset.
        groups: Groups that previous calls opened, or why they could not, by path.
    """
    parent, _, leaf = name.rpartition("/")
    if parent not in groups:
        groups[parent] = _member(file, parent, h5py.Group) if parent else file
    group = groups[parent]
    return group if isinstance(group, Problem) else _member(group, leaf, h5py.Dataset)


def _member(holder: h5py.Group, name: str, kind: type) -> Any:  # noqa: ANN401 (h5py is untyped)
    member, elsewhere = local_object(holder, name)
    if elsewhere:
        return Problem("elsewhere", elsewhere)
    if isinstance(member, kind):
        return member
    return Problem("missing", "is missing, although the configuration requires it")


def _dataset_problem(dataset: h5py.Dataset, spec: DatasetSpec, samples: range) -> Problem | None:
    if not is_plain(dataset.id.get_type()):
        return Problem("type", "has a type that does not consist of numbers and text")
    expected = (len(spec.rows(samples)), *spec.shape)
    if dataset.shape != expected:
        return Problem("shape", f"has the shape {dataset.shape}, expected {expected}")
    if dataset.dtype != spec.dtype:
        return Problem("type", f"is {dataset.dtype}, expected {np.dtype(spec.dtype)}")
    held, wanted = (h5py.check_string_dtype(dtype) for dtype in (dataset.dtype, spec.dtype))
    return None if held == wanted else Problem("type", f"is text of {held}, expected {wanted}")
