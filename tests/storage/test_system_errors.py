"""Errors of the system and interruptions stop the work, and are never taken for damage."""

import errno
import os
import signal
from functools import partial
from pathlib import Path

import h5py
import pytest

from spinlock.errors import DatasetError
from spinlock.generation.build import generate
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from tests.storage import virtual_files
from tests.storage.virtual_files import SINGLE, copy


@pytest.fixture(scope="session")
def files(made_once):
    return made_once("virtual", virtual_files.write)


@pytest.fixture
def path(files, tmp_path):
    return copy(files / "virtual.h5", tmp_path / "virtual.h5")


def io_error(*args, **options):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_failed_sync_in_the_background_stops_publication(tmp_path, monkeypatch):
    """The shards are still there; syncing once more would succeed and prove nothing."""
    path = tmp_path / "a.h5"
    monkeypatch.setattr("spinlock.storage.assemble.sync", io_error)
    with pytest.raises(DatasetError, match=os.strerror(errno.EIO)):
        generate(SINGLE, path, progress=False)
    assert not path.exists()
    assert len(list(Path(f"{path}.parts").rglob("shard-*.h5"))) == 3


def test_an_interruption_is_not_damage(path, monkeypatch):
    """The handler of Ctrl-C runs wherever the program is, here within h5py."""
    interrupt = partial(signal.default_int_handler, signal.SIGINT)
    dataset = DatasetFile.open(path)
    monkeypatch.setattr(h5py.Dataset, "shape", property(interrupt))
    with pytest.raises(KeyboardInterrupt), dataset:
        len(dataset.file[schema.PARAMS])
