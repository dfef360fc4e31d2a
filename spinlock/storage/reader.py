"""Reads the description of a dataset file and its columns."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.config_difference import explain_difference
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.runtime.ordered_map import row_blocks
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import require_seal
from spinlock.storage.hdf5_access import read_attribute
from spinlock.storage.schema import COLUMN_DIGEST, PROVENANCE, ROOT_ATTRIBUTES

# Larger integers in attributes would overflow as floating-point numbers.
_LARGEST_INTEGER = 1 << 64


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset file, from its attributes.

    Args:
        path: Path of the file.
        config: Configuration of the dataset; its ``num_samples`` is the number in the file.
        fingerprint: SHA-256 of the settings that determine the bytes of its samples.
        digest: SHA-256 of the digests of its samples.
        provenance: Lists of records by attribute: ``package_versions``, ``device`` and
            ``features``.
        design_quality: Measured evenness of the design, see
            `spinlock.simulation.sobol_design.design_quality`.
        run_summary: Statistics of the run that completed the file.

    Example:
        >>> config = GenerationConfig(num_samples=2)
        >>> info = DatasetInfo(Path("a.h5"), config, config.fingerprint, "", {}, {}, {})
        >>> info.config.num_samples
        2
    """

    path: Path
    config: GenerationConfig
    fingerprint: str
    digest: str
    provenance: dict[str, list[dict[str, str]]]
    design_quality: dict[str, float]
    run_summary: dict[str, Any]


def read_info(path: str | os.PathLike[str], *, trust: Collection[str] = ()) -> DatasetInfo:
    """Open a dataset file, check its layout and return its description.

    Nothing that the file names is imported or opened.

    Args:
        path: Dataset file.
        trust: Modules whose classes may be imported when samples are computed from ``config``. See
            docs/security.md.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the path is not a regular file, or the file is not HDF5, lacks an attribute
            or a dataset, or refers to data in another file. Names what is wrong.

    Example:
        >>> import tempfile
        >>> from spinlock.configuration import IntegerRange, ParameterSpaceConfig
        >>> from spinlock.generation import generate
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(24,))
        >>> config = GenerationConfig(2, parameter_space=space, num_realizations=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/data.h5"
        ...     generate(config, path, progress=False)
        ...     read_info(path).config.grid_size
        24
    """
    with DatasetFile.open(path, trust=trust) as dataset:
        return _info(dataset, Path(path))


def _info(dataset: DatasetFile, path: Path) -> DatasetInfo:
    missing = [name for name in ROOT_ATTRIBUTES if name not in dataset.file.attrs]
    if missing:
        raise DatasetError(f"{path} lacks the root attribute(s) {', '.join(missing)}")
    dataset.validate()
    return DatasetInfo(
        path=path,
        config=dataset.config,
        fingerprint=dataset.text("fingerprint"),
        digest=dataset.text("digest"),
        provenance={name: json_attribute(dataset, name) for name in PROVENANCE},
        design_quality=json_attribute(dataset, "design_quality"),
        run_summary=json_attribute(dataset, "run_summary"),
    )


def json_attribute(dataset: DatasetFile, name: str) -> Any:  # noqa: ANN401 (any JSON)
    """Return a root attribute in JSON: a list of records, or a mapping to numbers.

    Raises:
        DatasetError: If it is missing or another value.
    """
    where = f"{dataset.path}: the root attribute {name}"
    try:
        value = json.loads(dataset.text(name))
        texts = list(_texts(value))
        if name == "features":
            # Users write these texts, and may break lines in them.
            texts = ["".join(text.split()) for text in texts]
        # Texts are printed on terminals, where control characters would be commands.
        printable = all(text.isprintable() for text in texts)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is not valid JSON: {error}") from error
    if not printable:
        raise DatasetError(f"{where} holds text with control characters")
    valid = _are_records(value) if name in PROVENANCE else _are_numbers(value)
    if not valid:
        expected = "a list of records" if name in PROVENANCE else "a mapping to numbers"
        raise DatasetError(f"{where} must be {expected} in JSON")
    return value


def _texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value:
            yield from _texts(item)
        if isinstance(value, dict):
            yield from _texts(list(value.values()))


def _are_records(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _are_numbers(value: object) -> bool:
    """Whether this is a mapping to numbers, or to such mappings."""
    return isinstance(value, dict) and all(
        isinstance(item, float)
        or (isinstance(item, int) and abs(item) <= _LARGEST_INTEGER)
        or _are_numbers(item)
        for item in value.values()
    )


def require_dataset(path: str | os.PathLike[str], config: GenerationConfig) -> DatasetInfo:
    """Return the description of a file that must be intact and hold a certain dataset.

    Args:
        path: Dataset file.
        config: Configuration of the dataset, apart from the number of samples.

    Raises:
        DatasetError: If the file holds another dataset, naming the differences; if its attributes
            were changed; or for the reasons of `read_info`.

    Example:
        >>> import tempfile
        >>> from spinlock.configuration import IntegerRange, ParameterSpaceConfig
        >>> from spinlock.generation import generate
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(24,))
        >>> config = GenerationConfig(2, parameter_space=space, num_realizations=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/data.h5"
        ...     generate(config, path, progress=False)
        ...     require_dataset(path, config).fingerprint == config.fingerprint
        True
    """
    with DatasetFile.open(path) as dataset:
        info = _info(dataset, Path(path))
        # The stored fingerprint, and that of the stored configuration.
        if {info.fingerprint, info.config.fingerprint} != {config.fingerprint}:
            raise DatasetError(
                f"{path} holds another dataset (fingerprint {info.fingerprint[:12]}, expected "
                f"{config.fingerprint[:12]}): {explain_difference(info.config, config)}. It was "
                "left as it is; choose another path, or the settings of the file."
            )
        require_seal(dataset)
    return info


def read_columns(
    path: str | os.PathLike[str],
    names: Iterable[str],
    num_samples: int,
    *,
    one_timestep_of: Collection[str] = (),
    timestep: int = -1,
) -> dict[str, NDArray[Any]]:
    """Return the first rows of datasets. Text comes as ``str``.

    Each dataset is read completely and compared with its own digest.

    Args:
        path: Dataset file that `require_dataset` accepts.
        names: Names of the datasets to read.
        num_samples: Number N of samples whose rows are returned.
        one_timestep_of: Names of datasets (N, T, ...) of which only one timestep is returned, as
            (N, ...).
        timestep: Position of that timestep; default: the last.

    Raises:
        DatasetError: If a dataset differs from its digest.

    Example:
        >>> import tempfile
        >>> from spinlock.configuration import IntegerRange, ParameterSpaceConfig
        >>> from spinlock.generation import generate
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(24,))
        >>> config = GenerationConfig(2, parameter_space=space, num_realizations=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/data.h5"
        ...     generate(config, path, progress=False)
        ...     columns = read_columns(path, ["metadata/operator_index"], num_samples=2)
        >>> columns["metadata/operator_index"].tolist()
        [0, 1]
    """
    with DatasetFile.open(path) as dataset:
        return {
            name: _verified_rows(
                dataset, name, num_samples, timestep if name in one_timestep_of else None
            )
            for name in names
        }


def _verified_rows(
    dataset: DatasetFile, name: str, num_samples: int, timestep: int | None
) -> NDArray[Any]:
    digest, kept = hashlib.sha256(), []
    for rows in row_blocks(dataset.rows):
        values = np.ascontiguousarray(dataset.column(name, rows))
        digest.update(values.data)
        if rows.start < num_samples:
            wanted = values[: len(dataset.specs[name].rows(rows[: num_samples - rows.start]))]
            kept.append(wanted if timestep is None else wanted[:, timestep])
    if digest.hexdigest() != read_attribute(dataset.file[name], COLUMN_DIGEST):
        raise DatasetError(
            f"{dataset.path}: {name} differs from its digest; the file was changed or damaged "
            "after it was written. `spinlock check --full` lists the samples; restore the file "
            "from a copy, or generate it again"
        )
    column = np.concatenate(kept)
    return as_text(column, dataset.path, name) if column.dtype.kind == "S" else column


def as_text(column: NDArray[Any], path: object, name: str) -> NDArray[np.str_]:
    """Convert labels of a file from bytes to text.

    Raises:
        DatasetError: If they are not ASCII.
    """
    try:
        return column.astype(str)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: {name} holds text that is not ASCII") from error
