"""Keeps shards of a virtual dataset open while they are read."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage import schema
from spinlock.storage.hdf5_access import open_hdf5, read_attribute
from spinlock.storage.hdf5_failures import naming_damage
from spinlock.storage.shard_index import Piece, ShardIndex

_File = TypeVar("_File")
# Files that are open at a time. Threads read neighboring samples.
_MOST_OPEN = 16


class OpenShards(Generic[_File]):
    """The columns and the shards of a virtual dataset, opened as they are needed.

    The attributes of each file are compared with the index when it is opened, so that a shard of
    another dataset, or of other samples, is never read. Threads may share an instance.

    Args:
        index: Shards of the dataset.
        config: Configuration of the dataset.
        make: Function that wraps an open file, given the configuration and the samples in it.
        columns: Open file that holds the columns, which is closed with the shards.
    """

    def __init__(
        self,
        index: ShardIndex,
        config: GenerationConfig,
        make: Callable[[h5py.File, GenerationConfig, range], _File],
        columns: h5py.File,
    ) -> None:
        self.index, self.columns, self._config, self._make = index, columns, config, make
        self._fingerprint = config.fingerprint
        self._lock = Lock()
        self._files: OrderedDict[Piece, _File] = OrderedDict()

    def file(self, piece: Piece) -> _File:
        """Return the open shard of a piece. It stays open as long as it is referred to.

        Raises:
            DatasetError: If the shard is missing, or is not the one that the index lists.
        """
        with self._lock:
            if piece not in self._files:
                file, samples = open_hdf5(self.index.path(piece)), range(piece.start, piece.stop)
                with naming_damage(file):
                    require_same(file, self._fingerprint, samples, piece.digest)
                    self._files[piece] = self._make(file, self._config, samples)
                # A file that another thread still reads is closed when that thread forgets it.
                while len(self._files) > _MOST_OPEN:
                    self._files.popitem(last=False)
            self._files.move_to_end(piece)
            return self._files[piece]

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            self._files.clear()
        self.columns.close()


def require_same(file: h5py.File, fingerprint: str, samples: range, digest: str) -> None:
    """Check that a file holds certain samples of a dataset, by its attributes.

    Raises:
        DatasetError: If it does not. Names the attribute.
    """
    held = {name: read_attribute(file, name) for name in ("fingerprint", "digest")}
    held[schema.SAMPLES] = np.asarray(read_attribute(file, schema.SAMPLES)).tolist()
    wanted = {
        "fingerprint": fingerprint,
        "digest": digest,
        schema.SAMPLES: [samples.start, samples.stop],
    }
    for name, value in wanted.items():
        if held[name] != value:
            raise DatasetError(
                f"{file.filename} is not the file that the dataset lists: its attribute {name} is "
                f"{str(held[name])[:80]!r}, expected {str(value)!r}. Restore it from a copy"
            )
