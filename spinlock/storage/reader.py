"""Reading dataset files: what a file is, and its columns in memory."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from spinlock.storage.schema import ROOT_ATTRIBUTES


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset file says of itself.

    Args:
        path: The file.
        config: The configuration it was made from; its ``num_samples`` is what the file holds.
        fingerprint: What identifies the bytes of its samples.
        provenance: The other root attributes, decoded.
    """

    path: Path
    config: GenerationConfig
    fingerprint: str
    provenance: dict[str, Any]


def read_info(path: str | os.PathLike[str]) -> DatasetInfo:
    """Open a dataset file, check its layout and say what it is.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the path is a directory, or the file is not HDF5, or lacks an attribute or
            a dataset, naming it.
    """
    with open_hdf5(path) as file:
        config = read_configuration(file)
        missing = [name for name in ROOT_ATTRIBUTES if name not in file.attrs]
        if missing:
            raise DatasetError(f"{path} lacks the root attribute(s) {', '.join(missing)}")
        validate_layout(file, config, config.num_samples)
        identity = ("schema_version", "configuration", "fingerprint")
        others = [name for name in ROOT_ATTRIBUTES if name not in identity]
        return DatasetInfo(
            path=Path(path),
            config=config,
            fingerprint=file.attrs["fingerprint"],
            provenance={name: json.loads(file.attrs[name]) for name in others},
        )


def require_dataset(path: str | os.PathLike[str], config: GenerationConfig) -> DatasetInfo:
    """`read_info` of a file that must belong to the dataset of a configuration.

    Raises:
        DatasetError: Also if the file is another dataset, naming what differs.
    """
    info = read_info(path)
    if info.fingerprint != config.fingerprint:
        raise DatasetError(
            f"{path} holds another dataset (fingerprint {info.fingerprint[:12]}, expected "
            f"{config.fingerprint[:12]}): {explain_difference(info.config, config)}. It was left "
            "as it is; choose another path, or the configuration it was made from."
        )
    return info


def read_columns(
    path: str | os.PathLike[str], names: Iterable[str], num_samples: int
) -> dict[str, NDArray[Any]]:
    """The first ``num_samples`` rows of datasets, in memory. Text comes as ``str``."""
    columns = {}
    with open_hdf5(path) as file:
        for name in names:
            column = file[name][:num_samples]
            columns[name] = column.astype(str) if column.dtype.kind == "S" else np.asarray(column)
    return columns
