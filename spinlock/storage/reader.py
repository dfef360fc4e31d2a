"""Reading dataset files: what a file is, and its columns in memory."""

import dataclasses
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage.layout import (
    explain_difference,
    open_hdf5,
    read_configuration,
    validate_layout,
)
from spinlock.storage.schema import PROVENANCE, ROOT_ATTRIBUTES, SCHEMA_VERSION


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset file says of itself.

    Args:
        path: The file.
        config: The configuration it was made from; its ``num_samples`` is what the file holds.
        fingerprint: What identifies the bytes of its samples.
        digest: Digest of the digests of its samples.
        provenance: ``package_versions`` and ``device``: a list each of what computed the samples.
        design_quality: Measured evenness of the design (`spinlock.design.design_quality`).
        run_summary: What the run that completed the file did and took.
    """

    path: Path
    config: GenerationConfig
    fingerprint: str
    digest: str
    provenance: dict[str, list[dict[str, str]]]
    design_quality: dict[str, float]
    run_summary: dict[str, Any]


def read_info(
    path: str | os.PathLike[str], *, expected: GenerationConfig | None = None
) -> DatasetInfo:
    """Open a dataset file, check its layout and say what it is.

    Args:
        path: The file.
        expected: The dataset that it probably is: parsing a configuration takes a tenth of a
            second, recognizing one does not.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the path is a directory, or the file is not HDF5, or lacks an attribute or
            a dataset, naming it.
    """
    with open_hdf5(path) as file:
        config = _recognized(file, expected) or read_configuration(file)
        missing = [name for name in ROOT_ATTRIBUTES if name not in file.attrs]
        if missing:
            raise DatasetError(f"{path} lacks the root attribute(s) {', '.join(missing)}")
        validate_layout(file, config, config.num_samples)
        return DatasetInfo(
            path=Path(path),
            config=config,
            fingerprint=file.attrs["fingerprint"],
            digest=file.attrs["digest"],
            provenance={name: _json_attribute(file, name) for name in PROVENANCE},
            design_quality=_json_attribute(file, "design_quality"),
            run_summary=_json_attribute(file, "run_summary"),
        )


def _recognized(file: h5py.File, expected: GenerationConfig | None) -> GenerationConfig | None:
    """The file's configuration, if it is the expected one but for its size and packing."""
    if expected is None or file.attrs.get("schema_version") != SCHEMA_VERSION:
        return None
    try:
        found = json.loads(file.attrs["configuration"])
        storage = dataclasses.replace(
            expected.storage,
            compression=found["storage"]["compression"],
            shard_size=found["storage"]["shard_size"],
        )
        config = dataclasses.replace(expected, num_samples=found["num_samples"], storage=storage)
    except (KeyError, TypeError, ValueError):
        # Whoever reads it properly says what is wrong.
        return None
    recognized = found == json.loads(config.to_json())
    return config if recognized and file.attrs.get("fingerprint") == config.fingerprint else None


def _json_attribute(file: h5py.File, name: str) -> Any:  # noqa: ANN401 (whatever JSON holds)
    try:
        return json.loads(file.attrs[name])
    except (TypeError, json.JSONDecodeError) as error:
        message = f"{file.filename}: the root attribute {name} is not valid JSON: {error}"
        raise DatasetError(message) from error


def require_dataset(path: str | os.PathLike[str], config: GenerationConfig) -> DatasetInfo:
    """`read_info` of a file that must belong to the dataset of a configuration.

    Raises:
        DatasetError: Also if the file is another dataset, naming what differs.
    """
    info = read_info(path, expected=config)
    if info.fingerprint != config.fingerprint:
        raise DatasetError(
            f"{path} holds another dataset (fingerprint {info.fingerprint[:12]}, expected "
            f"{config.fingerprint[:12]}): {explain_difference(info.config, config)}. It was left "
            "as it is; choose another path, or the configuration it was made from."
        )
    return info


def read_columns(
    path: str | os.PathLike[str],
    names: Iterable[str],
    num_samples: int,
    *,
    one_timestep_of: Collection[str] = (),
    timestep: int = -1,
) -> dict[str, NDArray[Any]]:
    """The first ``num_samples`` rows of datasets, in memory. Text comes as ``str``.

    Args:
        path: The file.
        names: The datasets.
        num_samples: How many rows.
        one_timestep_of: Datasets (N, T, ...) of which only one timestep is read, (N, ...).
        timestep: Its position; by default the last.
    """
    columns = {}
    with open_hdf5(path) as file:
        for name in names:
            rows = slice(num_samples)
            column = file[name][(rows, timestep) if name in one_timestep_of else rows]
            columns[name] = column.astype(str) if column.dtype.kind == "S" else np.asarray(column)
    return columns
