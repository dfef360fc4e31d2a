"""Writes and reads token files: what a model predicted for the samples of a dataset."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.errors import DatasetError
from spinlock.storage.hdf5_access import (
    is_plain,
    open_hdf5,
    read_attribute,
    storage_problem,
    text_attribute,
)
from spinlock.storage.hdf5_failures import NewFile

# Tables with a row for each code, and work for each codebook, must stay small for any file.
MOST_CODES = 1 << 16
_MOST = {"Q": 64, "D": 4096}
# Dimensions that must not be empty, and what the dataset then lacks.
_NEEDED = {"N": "rows", "P": "samples in its rows", "Q": "codebooks"}


@dataclass(frozen=True)
class TokenColumn:
    """One dataset of a token file.

    Args:
        dtype: Type of an element.
        shapes: Names of the dimensions; several if the dataset may have several shapes. N rows, P
            probes of an operator, Q codebooks, T timesteps, D latent dimensions, K codes, and n
            prototypes of a code.
        description: Content.
    """

    dtype: type[np.generic]
    shapes: tuple[str, ...]
    description: str


#: Datasets of a token file. All but ``index`` and ``tokens`` may be missing.
TOKEN_COLUMNS: dict[str, TokenColumn] = {
    "index": TokenColumn(np.int64, ("N", "NP"), "sample, or the samples whose latents are pooled"),
    "operator": TokenColumn(np.int64, ("N",), "operator of the samples"),
    "tokens": TokenColumn(np.int64, ("N", "NQ"), "code, or a code of each codebook"),
    "latent": TokenColumn(np.float32, ("ND",), "latent vector before quantization"),
    "token_sequence": TokenColumn(np.int64, ("NT",), "code of each timestep"),
    "training": TokenColumn(np.bool_, ("N",), "whether the samples are in the training split"),
    "codes": TokenColumn(np.float32, ("KD",), "vector of each code"),
    "prototypes": TokenColumn(
        np.int64, ("Kn",), "nearest training operators of each code; -1: none"
    ),
    "prototype_distances": TokenColumn(np.float32, ("Kn",), "their distances to the code"),
}


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Content of a token file. A dataset that the file lacks is None.

    Args:
        path: Path of the file.
        model: Class name of the model.
        codebook_size: Number K of codes of each codebook.
        dataset: Name of the dataset file.
        fingerprint: Fingerprint of the dataset.
        index: Samples, (N,) int64 ascending, or (N, P) if the latents of P probes are pooled.
        tokens: Tokens, (N,) or (N, Q) int64.
        operator: Operators of the samples, (N,) int64.
        latent: Latents, (N, D) float32.
        token_sequence: Tokens of each timestep, (N, T) int64.
        training: Whether the samples are in the training split, (N,) bool.
        codes: Vectors of the codes, (K, D) float32.
        prototypes: Nearest training operators of each code, (K, n) int64; -1 where there are fewer.
        prototype_distances: Their distances, (K, n) float32; infinite where there are fewer.

    Example:
        >>> index, tokens = np.arange(3), np.array([0, 1, 0])
        >>> TokenFile(Path("t.h5"), "FeatureVQVAE", 2, None, None, index, tokens).codebook_size
        2
    """

    path: Path
    model: str
    codebook_size: int
    dataset: str | None
    fingerprint: str | None
    index: NDArray[np.int64]
    tokens: NDArray[np.int64]
    operator: NDArray[np.int64] | None = None
    latent: NDArray[np.float32] | None = None
    token_sequence: NDArray[np.int64] | None = None
    training: NDArray[np.bool_] | None = None
    codes: NDArray[np.float32] | None = None
    prototypes: NDArray[np.int64] | None = None
    prototype_distances: NDArray[np.float32] | None = None


def write_tokens(
    path: str | os.PathLike[str],
    columns: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, object],
) -> None:
    """Write a token file over an existing (temporary) one.

    Args:
        path: Path of the file.
        columns: Datasets by name, see `TOKEN_COLUMNS`.
        attributes: Root attributes ``model``, ``codebook_size``, and ``dataset`` and
            ``fingerprint`` if they are known.
    """
    with NewFile(path, replace=True) as file:
        for name, values in columns.items():
            column = TOKEN_COLUMNS[name]
            # Contiguous and without filters, which `read_tokens` requires.
            data = file.create_dataset(name, data=np.asarray(values, dtype=column.dtype))
            data.attrs["description"] = column.description
        file.attrs.update(attributes)


def read_tokens(path: str | os.PathLike[str]) -> TokenFile:
    """Read a token file, which may come from a stranger.

    The types and shapes of all datasets are checked before any is read, and a dataset must be
    stored in the file itself without compression, so that reading needs no more memory than the
    file has bytes. At most 65,536 codes, 64 codebooks and 4,096 latent dimensions are accepted.

    Args:
        path: File that ``spinlock predict --out`` or the callback `TokenWriter` wrote.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If it is not a token file, or its values are out of range. Names what is
            wrong.

    Example:
        >>> import tempfile
        >>> columns = {"index": np.arange(3), "tokens": np.array([0, 1, 0])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tokens(f"{folder}/t.h5", columns, {"model": "M", "codebook_size": 2})
        ...     read_tokens(f"{folder}/t.h5").tokens
        array([0, 1, 0])
    """
    with open_hdf5(path) as file:
        missing = [name for name in ("index", "tokens") if name not in file]
        if missing:
            raise DatasetError(
                f"{path} is no token file: it lacks {' and '.join(missing)}. `spinlock predict "
                "--out` writes token files"
            )
        size = read_attribute(file, "codebook_size")
        if not (isinstance(size, int | np.integer) and 1 <= size <= MOST_CODES):
            raise DatasetError(
                f"{path}: the root attribute codebook_size must be an integer in "
                f"1..{MOST_CODES}, got {size!r}"
            )
        sizes = {"K": int(size)}
        found = {name: name in file for name in TOKEN_COLUMNS}
        for name in (name for name, is_there in found.items() if is_there):
            if problem := _problem(file, name, sizes):
                raise DatasetError(f"{path}: {name} {problem}")
        values: dict[str, Any] = {
            name: text_attribute(file, name) if name in file.attrs else None
            for name in ("dataset", "fingerprint")
        }
        values |= {name: file[name][...] if is_there else None for name, is_there in found.items()}
        content = TokenFile(Path(path), text_attribute(file, "model"), int(size), **values)
    _check_values(content)
    return content


def _problem(file: h5py.File, name: str, sizes: dict[str, int]) -> str:
    """Describe what is wrong with a dataset; empty if nothing. Notes the sizes of dimensions."""
    if elsewhere := storage_problem(file, name):
        return elsewhere
    data, column = file[name], TOKEN_COLUMNS[name]
    if not isinstance(data, h5py.Dataset) or not is_plain(data.id.get_type()):
        return "is not a dataset of numbers"
    if data.dtype != np.dtype(column.dtype):
        return f"is {data.dtype}, expected {np.dtype(column.dtype)}"
    if data.shape is None or data.ndim not in map(len, column.shapes):
        return f"has the shape {data.shape}, expected {' or '.join(map(_shape, column.shapes))}"
    if data.chunks is not None or data.id.get_storage_size() != data.nbytes:
        return "is compressed, chunked or not written completely; the file was changed"
    (dims,) = (dims for dims in column.shapes if len(dims) == data.ndim)
    for dim, length in zip(dims, data.shape, strict=True):
        if dim in _NEEDED and not length:
            return f"has no {_NEEDED[dim]}: its shape is {data.shape}"
        if length > _MOST.get(dim, length):
            return f"has {length} entries along {dim}, and at most {_MOST[dim]} are accepted"
        if sizes.setdefault(dim, length) != length:
            return f"has {length} entries along {dim}, where the rest of the file has {sizes[dim]}"
    return ""


def _shape(dims: str) -> str:
    return f"[{', '.join(dims)}]"


def _check_values(content: TokenFile) -> None:
    """Check the values that are used as positions, and the order of the rows."""
    limits = {
        "index": (0, None),
        "operator": (0, None),
        "tokens": (0, content.codebook_size),
        "token_sequence": (0, content.codebook_size),
        "prototypes": (-1, None),
    }
    for name, (low, high) in limits.items():
        values = getattr(content, name)
        if values is not None and values.size:
            out = values.min() < low or (high is not None and values.max() >= high)
            if out:
                raise DatasetError(
                    f"{content.path}: {name} must lie in {low}..{'' if high is None else high - 1},"
                    f" got {values.min()}..{values.max()}"
                )
    first = content.index.reshape(len(content.index), -1)[:, :1]
    if (np.diff(first[:, 0]) <= 0).any():
        raise DatasetError(f"{content.path}: the rows of index must be ascending")
    for name in ("latent", "codes"):
        values = getattr(content, name)
        if values is not None and not np.isfinite(values).all():
            raise DatasetError(f"{content.path}: {name} has NaN or infinite values")
