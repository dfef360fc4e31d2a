"""Lists the shards of a virtual dataset, and checks that they are there.

The index is the dataset ``shards`` of the file. It holds numbers and digests, from which the names
of the files follow: no name that a file states is ever opened. Opening a dataset reads the index
and the list of the folder, however many samples there are.
"""

import hashlib
import os
from bisect import bisect_right
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage.hdf5_access import local_object, read_attribute
from spinlock.storage.shard_files import columns_path, shard_folder, shard_name, shard_path

#: Name of the dataset in the file.
INDEX = "shards"
#: Attributes of the index: digest, number of the edition, bytes of the file of columns, and name of
#: the folder beside the file, in which other programs find the shards.
INDEX_ATTRIBUTES = ("sha256", "edition", "columns_bytes", "folder")

_DIGEST, _EDITION, _COLUMNS_BYTES, _FOLDER = INDEX_ATTRIBUTES
_LARGEST_EDITION = 10**10 - 1
_DTYPE = np.dtype(
    [(name, np.int64) for name in ("start", "stop", "first", "last", "edition", "bytes")]
    + [("digest", "S64")]
)
_REMEDY = (
    "Restore it from a copy; a virtual dataset is the file and the folder beside it, which must "
    "keep their names"
)


class Piece(NamedTuple):
    """Part of a dataset that one shard provides.

    Args:
        start: First sample of the shard.
        stop: Last sample of the shard plus one.
        first: First sample that the dataset takes from the shard.
        last: One past the last sample that the dataset takes from it.
        edition: Edition of the dataset that rewrote the shard; 0: none.
        bytes: Size of the shard in bytes.
        digest: Digest of the shard's samples.
    """

    start: int
    stop: int
    first: int
    last: int
    edition: int
    bytes: int
    digest: str


class ShardIndex:
    """Shards of a virtual dataset, and the file that holds its columns.

    Args:
        folder: Folder of the shards, see `spinlock.storage.shard_files.shard_folder`.
        edition: Number of times that the dataset was written before.
        pieces: Consecutive pieces from sample 0.
    """

    def __init__(self, folder: Path, edition: int, pieces: list[Piece] | None = None) -> None:
        self.folder, self.edition = folder, edition
        self.pieces = list(pieces or ())
        self._firsts = [piece.first for piece in self.pieces]

    @property
    def columns_path(self) -> Path:
        """Path of the file that holds the columns."""
        return columns_path(self.folder, self.edition)

    @property
    def files(self) -> set[Path]:
        """Paths of all files that the dataset refers to."""
        return {self.columns_path, *map(self.path, self.pieces)}

    def append(self, piece: Piece) -> None:
        """Add the next piece."""
        self.pieces.append(piece)
        self._firsts.append(piece.first)

    def find(self, sample: int) -> Piece:
        """Return the piece that holds a sample."""
        return self.pieces[bisect_right(self._firsts, sample) - 1]

    def path(self, piece: Piece) -> Path:
        """Return the path of the shard of a piece."""
        return shard_path(self.folder, piece.start, piece.stop, piece.edition)

    def write(self, file: h5py.File) -> None:
        """Write the index to a new file; the file of columns must be complete."""
        values = np.array([(*p[:-1], p.digest.encode()) for p in self.pieces], _DTYPE)
        data = file.create_dataset(INDEX, data=values)
        data.attrs.update(
            {
                "description": "shards that hold the fields of the samples first .. last - 1",
                _DIGEST: hashlib.sha256(values.tobytes()).hexdigest(),
                _EDITION: self.edition,
                _COLUMNS_BYTES: self.columns_path.stat().st_size,
                # As bytes: a name need not be text.
                _FOLDER: np.bytes_(os.fsencode(self.folder.parent.name)),
            }
        )

    @classmethod
    def read(cls, file: h5py.File, config: GenerationConfig, path: Path) -> Self:
        """Read the index of a file, and check that its shards exist and have their sizes.

        Args:
            file: Open file.
            config: Configuration of the file.
            path: Path at which the file is a dataset, beside the folder of its shards.

        Raises:
            DatasetError: If the index is not valid, the file or its folder was renamed, or a file
                is missing, is a link or has another size. Names the first such file.
        """
        values = _read_values(file, config.num_samples)
        edition = read_attribute(file[INDEX], _EDITION)
        if not (isinstance(edition, np.integer) and 0 <= edition <= _LARGEST_EDITION):
            raise DatasetError(f"{path}: the attribute {_EDITION} of {INDEX} is not valid")
        pieces = [
            Piece._make((*numbers, digest.decode("ascii", "replace")))
            for *numbers, digest in values.tolist()
        ]
        index = cls(shard_folder(config, path), int(edition), pieces)
        index._require_files(path, read_attribute(file[INDEX], _COLUMNS_BYTES))
        index._require_name(path, read_attribute(file[INDEX], _FOLDER))
        return index

    def _require_name(self, path: Path, written: object) -> None:
        """Refuse another name of the folder: other programs would read fill values only."""
        name = self.folder.parent.name
        if not isinstance(written, bytes):
            raise DatasetError(f"{path}: the attribute {_FOLDER} of {INDEX} is not valid")
        if written != os.fsencode(name):
            held = written[:255].decode("utf-8", "backslashreplace")
            raise DatasetError(
                f"{path}: the file refers to shards in {held!r}, but its folder is {name!r}: other "
                "programs would find no data. Rename the file and the folder to what they were; a "
                "virtual dataset is the file and the folder beside it, which must keep their names"
            )

    def _require_files(self, path: Path, columns_bytes: object) -> None:
        try:
            with os.scandir(self.folder) as entries:
                found = {entry.name: entry for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetError(f"{path}: its folder {self.folder} is missing. {_REMEDY}") from None
        except OSError as error:
            raise DatasetError(
                f"{path}: its folder {self.folder} cannot be read: {error.strerror}. Its shards "
                "may be intact; try again when it can be read"
            ) from error
        expected: list[tuple[str, object]] = [(self.columns_path.name, columns_bytes)]
        expected += [(shard_name(p.start, p.stop, p.edition), p.bytes) for p in self.pieces]
        for name, size in expected:
            entry = found.get(name)
            if entry is None:
                problem = "is missing"
            elif not entry.is_file(follow_symlinks=False):
                problem = "is not a regular file"
            elif (held := entry.stat(follow_symlinks=False).st_size) != size:
                problem = f"has {held} bytes, expected {size}: it is damaged, or another file"
            else:
                continue
            raise DatasetError(f"{path}: its shard {self.folder / name} {problem}. {_REMEDY}")


def _read_values(file: h5py.File, num_samples: int) -> NDArray[Any]:
    where = f"{file.filename}: {INDEX}"
    data, elsewhere = local_object(file, INDEX)
    if elsewhere or not isinstance(data, h5py.Dataset):
        raise DatasetError(
            f"{where} {elsewhere or 'is missing'}, although storage.layout is virtual"
        )
    plain = data.id.get_type().equal(h5py.h5t.py_create(_DTYPE)) and data.ndim == 1
    # An index that was never written, or compressed, could claim more rows than the file has bytes.
    if not plain or data.chunks or not 0 < len(data) <= num_samples:
        raise DatasetError(f"{where} is not an index of shards")
    if data.id.get_storage_size() != len(data) * _DTYPE.itemsize:
        raise DatasetError(f"{where} was not written completely")
    values: NDArray[Any] = data[...]
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    if read_attribute(data, _DIGEST) != digest:
        raise DatasetError(f"{where} differs from its digest; the file was changed or damaged")
    start, stop, first, last = (values[name] for name in ("start", "stop", "first", "last"))
    consecutive = first[0] == 0 and last[-1] == num_samples and (first[1:] == last[:-1]).all()
    ordered = (start >= 0) & (start <= first) & (first < last) & (last <= stop)
    numbered = (stop <= 10**10) & (values["edition"] >= 0)
    numbered &= values["edition"] <= _LARGEST_EDITION
    if not (consecutive and ordered.all() and numbered.all()):
        raise DatasetError(f"{where} does not list every sample once, in order")
    return values
