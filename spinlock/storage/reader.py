"""Reading dataset files: what a file is, and its columns in memory."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage.attributes import read_attribute
from spinlock.storage.layout import (
    explain_difference,
    open_hdf5,
    read_configuration,
    text_attribute,
    validate_layout,
)
from spinlock.storage.schema import COLUMN_DIGEST, PROVENANCE, ROOT_ATTRIBUTES
from spinlock.storage.seal import require_seal, row_blocks


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset file says of itself.

    Args:
        path: The file.
        config: The configuration it was made from; its ``num_samples`` is what the file holds.
        fingerprint: What identifies the bytes of its samples.
        digest: Digest of the digests of its samples.
        provenance: ``package_versions`` and ``device``: a list each of what computed the samples.
        design_quality: Measured evenness of the design, see
            `spinlock.simulation.sobol_design.design_quality`.
        run_summary: What the run that completed the file did and took.
    """

    path: Path
    config: GenerationConfig
    fingerprint: str
    digest: str
    provenance: dict[str, list[dict[str, str]]]
    design_quality: dict[str, float]
    run_summary: dict[str, Any]


def read_info(path: str | os.PathLike[str], *, trust: Collection[str] = ()) -> DatasetInfo:
    """Open a dataset file, check its layout and return what it says of itself.

    Nothing that the file names is imported or opened.

    Args:
        path: Dataset file.
        trust: Modules of which the classes that the file's configuration names may be imported,
            when samples are computed from ``config``. See docs/security.md.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the path is not a regular file, or the file is not HDF5, or lacks an
            attribute or a dataset, or does not store a dataset itself. Names it.
    """
    with open_hdf5(path) as file:
        return _info(file, Path(path), trust)


def _info(file: h5py.File, path: Path, trust: Collection[str] = ()) -> DatasetInfo:
    config = read_configuration(file, trust)
    missing = [name for name in ROOT_ATTRIBUTES if name not in file.attrs]
    if missing:
        raise DatasetError(f"{path} lacks the root attribute(s) {', '.join(missing)}")
    validate_layout(file, config, config.num_samples)
    return DatasetInfo(
        path=path,
        config=config,
        fingerprint=text_attribute(file, "fingerprint"),
        digest=text_attribute(file, "digest"),
        provenance={name: _json_attribute(file, name) for name in PROVENANCE},
        design_quality=_json_attribute(file, "design_quality"),
        run_summary=_json_attribute(file, "run_summary"),
    )


def _json_attribute(file: h5py.File, name: str) -> Any:  # noqa: ANN401 (whatever JSON holds)
    try:
        value = json.loads(text_attribute(file, name))
        # Text that no terminal or page could show is refused as well.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        message = f"{file.filename}: the root attribute {name} is not valid JSON: {error}"
        raise DatasetError(message) from error
    valid = _are_records(value) if name in PROVENANCE else _are_numbers(value)
    if not valid:
        expected = "a list of records" if name in PROVENANCE else "a mapping to numbers"
        raise DatasetError(f"{file.filename}: the root attribute {name} must be {expected} in JSON")
    return value


def _are_records(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _are_numbers(value: object) -> bool:
    """Whether this is a mapping to numbers, or to such mappings."""
    return isinstance(value, dict) and all(
        isinstance(item, int | float) or _are_numbers(item) for item in value.values()
    )


def require_dataset(path: str | os.PathLike[str], config: GenerationConfig) -> DatasetInfo:
    """`read_info` of a file that must be intact and belong to the dataset of a configuration.

    Raises:
        DatasetError: Also if the file is another dataset, naming what differs; or if its attributes
            were changed.
    """
    with open_hdf5(path) as file:
        info = _info(file, Path(path))
        # What the file claims, and what its configuration amounts to.
        if {info.fingerprint, info.config.fingerprint} != {config.fingerprint}:
            raise DatasetError(
                f"{path} holds another dataset (fingerprint {info.fingerprint[:12]}, expected "
                f"{config.fingerprint[:12]}): {explain_difference(info.config, config)}. It was "
                "left as it is; choose another path, or the configuration it was made from."
            )
        require_seal(file, info.config)
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

    Each dataset is read whole and compared with its own digest.

    Args:
        path: Dataset file, as `require_dataset` accepts it.
        names: Datasets to read.
        num_samples: Number of rows to return.
        one_timestep_of: Datasets (N, T, ...) of which only one timestep is returned, (N, ...).
        timestep: Position of that timestep; default: the last.

    Raises:
        DatasetError: If a dataset differs from its digest.
    """
    columns = {}
    with open_hdf5(path) as file:
        for name in names:
            step = timestep if name in one_timestep_of else None
            column = _verified_rows(file, name, num_samples, step)
            columns[name] = column
    return {
        name: as_text(column, path, name) if column.dtype.kind == "S" else column
        for name, column in columns.items()
    }


def as_text(column: NDArray[Any], path: object, name: str) -> NDArray[np.str_]:
    """Labels of a file as text.

    Raises:
        DatasetError: If they are not.
    """
    try:
        return column.astype(str)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: {name} holds text that is not ASCII") from error


def _verified_rows(
    file: h5py.File, name: str, num_samples: int, timestep: int | None
) -> NDArray[Any]:
    digest, kept, dataset = hashlib.sha256(), [], file[name]
    for rows in row_blocks(len(dataset)):
        values = np.ascontiguousarray(dataset[rows.start : rows.stop])
        digest.update(values.data)
        if rows.start < num_samples:
            wanted = values[: num_samples - rows.start]
            kept.append(wanted if timestep is None else wanted[:, timestep])
    if digest.hexdigest() != read_attribute(dataset, COLUMN_DIGEST):
        raise DatasetError(
            f"{file.filename}: {name} differs from its digest; the file was changed or damaged "
            "after it was written. `spinlock check --full` lists the samples; restore the file "
            "from a copy, or generate it anew"
        )
    return np.concatenate(kept)
