"""Creating and validating files of the layout that `spinlock.storage.schema` describes."""

import dataclasses
import json
import os
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.errors import ConfigurationError, DatasetError, DatasetNotFoundError
from spinlock.storage.attributes import is_plain, read_attribute
from spinlock.storage.compression import FILTERS
from spinlock.storage.schema import SCHEMA_VERSION, DatasetSpec, dataset_specs

# What a file must say of itself to be read at all.
_IDENTITY = ("schema_version", "configuration", "fingerprint")
_LOCAL = "datasets must be stored in the file itself"


def create_layout(
    file: h5py.File, config: GenerationConfig, num_samples: int, provenance: dict[str, str]
) -> None:
    """Create every dataset and attribute of a file of ``num_samples`` samples.

    Args:
        file: An empty file, open for writing.
        config: The dataset.
        num_samples: Size of the first dimension.
        provenance: The root attributes that tell what computed the samples.
    """
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "configuration": config.to_json(),
        "fingerprint": config.fingerprint,
        **provenance,
    }
    for name, value in attributes.items():
        file.attrs[name] = value
    filters = FILTERS[config.storage.compression]
    for spec in dataset_specs(config):
        shape = (num_samples, *spec.shape)
        options = {} if spec.chunk is None else {"chunks": (1, *spec.chunk), **filters}
        dataset = file.create_dataset(spec.name, shape, spec.dtype, **options)
        dataset.attrs["description"] = spec.description
        dataset.attrs["dimensions"] = list(spec.dims)
        if spec.names:
            dataset.attrs["names"] = list(spec.names)


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Open a file for reading.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If it is not a regular file, or not HDF5.
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
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise DatasetError(f"{path} is not a readable HDF5 file ({error})") from error


def read_configuration(file: h5py.File, trust: Collection[str] = ()) -> StoredConfig:
    """The configuration that a file was made from. Nothing that it names is imported.

    Args:
        file: Dataset or shard.
        trust: Modules whose classes a computation with the configuration may import.

    Raises:
        DatasetError: If a root attribute is missing or not valid.
        ConfigurationError: If ``trust`` is one name in place of a list of names.
    """
    if isinstance(trust, str):
        raise ConfigurationError(f"trust: must be a list of modules, got {trust!r}")
    missing = [name for name in _IDENTITY if name not in file.attrs]
    if missing:
        raise DatasetError(
            f"{file.filename} is no Spinlock dataset: it lacks the root attribute(s) "
            f"{', '.join(missing)}"
        )
    version, text, _ = (text_attribute(file, name) for name in _IDENTITY)
    if version != SCHEMA_VERSION:
        raise DatasetError(
            f"{file.filename} has schema version {version}, this package reads {SCHEMA_VERSION}"
        )
    try:
        config = StoredConfig.from_json(text)
    except ConfigurationError as error:
        raise DatasetError(f"{file.filename}: its configuration is not valid: {error}") from error
    return dataclasses.replace(config, trusted=tuple(trust))


def text_attribute(file: h5py.File, name: str) -> str:
    """A root attribute that must be text.

    Raises:
        DatasetError: If it is not there, or not text.
    """
    value = read_attribute(file, name)
    if not isinstance(value, str):
        raise DatasetError(f"{file.filename}: the root attribute {name} must be text")
    return value


def validate_layout(file: h5py.File, config: GenerationConfig, num_samples: int) -> None:
    """Check that a file itself holds every dataset of a configuration, with its shape and type.

    Raises:
        DatasetError: Naming the first dataset that is missing, different or stored elsewhere.
    """
    for spec in dataset_specs(config):
        if problem := dataset_problem(file, spec, num_samples):
            raise DatasetError(
                f"{file.filename}: {spec.name} {problem}. Restore the file from a copy, or "
                "generate it anew"
            )


def dataset_problem(file: h5py.File, spec: DatasetSpec, num_samples: int) -> str:
    """What is wrong with a dataset of a file, as the end of a sentence; empty if nothing is."""
    if problem := storage_problem(file, spec.name):
        return problem
    dataset, expected = file.get(spec.name), (num_samples, *spec.shape)
    if not isinstance(dataset, h5py.Dataset):
        return "is missing, which its configuration promises"
    if not is_plain(dataset.id.get_type()):
        return "has a type that is not made of numbers and text"
    if dataset.shape != expected or dataset.dtype != spec.dtype:
        return f"is {dataset.dtype} {dataset.shape}, expected {np.dtype(spec.dtype)} {expected}"
    held, wanted = (h5py.check_string_dtype(dtype) for dtype in (dataset.dtype, spec.dtype))
    return "" if held == wanted else f"is text of {held}, expected {wanted}"


def storage_problem(file: h5py.File, name: str) -> str:
    """Why a path of a file does not lead to data in the file itself; empty if it does, or nowhere.

    HDF5 can also refer to other files, by links, external storage and virtual datasets: reading
    through those would read, and writing would change, files that the user did not name.
    """
    holder: h5py.Group | h5py.Dataset = file
    for part in name.split("/"):
        if not isinstance(holder, h5py.Group) or part not in holder:
            return ""
        link = holder.get(part, getlink=True)
        if not isinstance(link, h5py.HardLink):
            return f"is reached through a link ({type(link).__name__}); {_LOCAL}"
        holder = holder[part]
    if isinstance(holder, h5py.Dataset) and (holder.is_virtual or holder.external):
        kind = "a virtual dataset" if holder.is_virtual else "stored in another file"
        return f"is {kind}; {_LOCAL}"
    return ""


def explain_difference(theirs: GenerationConfig, ours: GenerationConfig) -> str:
    """The configuration entries in which two datasets differ, as text."""

    def flatten(prefix: str, value: object) -> dict[str, object]:
        if isinstance(value, dict):
            return {
                k: v
                for key, item in value.items()
                for k, v in flatten(f"{prefix}.{key}" if prefix else key, item).items()
            }
        return {prefix: value}

    one, two = (flatten("", json.loads(c.to_json())) for c in (theirs, ours))
    ignored = ("num_samples", "storage.compression", "storage.shard_size")
    keys = [k for k in dict.fromkeys((*one, *two)) if one.get(k) != two.get(k) and k not in ignored]
    if not keys:
        orders = [list(c.initial_conditions.weights) for c in (theirs, ours)]
        if orders[0] != orders[1]:
            # The variant coordinate is cut in this order.
            return f"order of initial_conditions.weights: {orders[0]} there, {orders[1]} asked for"
        return "the versions of the simulation differ"
    return "; ".join(f"{k}: {one.get(k)} there, {two.get(k)} asked for" for k in keys)
