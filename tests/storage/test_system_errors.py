"""Errors of the system and interruptions stop the work, and are never taken for damage."""

import dataclasses
import errno
import os
import signal
from functools import partial
from pathlib import Path

import h5py
import pytest

from spinlock.errors import DatasetError
from spinlock.generation.build import generate
from spinlock.storage import hdf5_failures, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.hdf5_access import open_hdf5
from spinlock.storage.verify import require_intact
from tests.storage import virtual_files
from tests.storage.virtual_files import SINGLE, VIRTUAL, copy, shards


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


def test_a_shard_that_cannot_be_opened_is_not_damaged(path, monkeypatch):
    shard = shards(path)[2]

    class Failing(h5py.File):
        def __init__(self, name, *args, **options):
            if str(name) == str(shard):
                io_error()
            super().__init__(name, *args, **options)

    monkeypatch.setattr(h5py, "File", Failing)
    more = dataclasses.replace(VIRTUAL, num_samples=12)
    for read in (lambda: require_intact(path, ""), lambda: generate(more, path, progress=False)):
        with pytest.raises(DatasetError) as refusal:
            read()
        assert shard.name in str(refusal.value)
        assert os.strerror(errno.EIO) in str(refusal.value)
        assert "differ" not in str(refusal.value)


def test_a_folder_that_cannot_be_listed_is_named(path, monkeypatch):
    folder, plain = shards(path)[0].parent, os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda at=".": io_error() if Path(at) == folder else plain(at)
    )
    with pytest.raises(DatasetError, match=f"{folder} cannot be read: {os.strerror(errno.EIO)}"):
        DatasetFile.open(path)


def test_what_hdf5_says_of_a_shard_names_the_shard(path):
    """The B-tree of the root group is damaged, and then that of the fields."""
    shard = shards(path)[2]
    content = shard.read_bytes()
    trees = [at for at in range(len(content)) if content.startswith(b"TREE", at)]
    messages = []
    for place in trees:
        shard.write_bytes(content[:place] + b"XXXX" + content[place + 4 :])
        try:
            with DatasetFile.open(path) as dataset:
                dataset.trajectory(5)
        except DatasetError as error:
            messages.append(str(error))
    assert any("is damaged" in message for message in messages)
    assert all(shard.name in message for message in messages)


def test_a_message_of_hdf5_is_one_line(tmp_path, monkeypatch):
    """HDF5 writes the time of a failed read, with a line break, into its message."""

    def fail(*args, **options):
        raise OSError(errno.EIO, "file read failed: time = Sat Nov 28 05:07:44 2026\n, errno = 5")

    (tmp_path / "a.h5").touch()
    monkeypatch.setattr("spinlock.storage.hdf5_access.h5py.File", fail)
    with pytest.raises(DatasetError, match="05:07:44 2026 , errno = 5") as caught:
        open_hdf5(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def raised_in(module):
    """An error that was raised by code of a module."""
    with pytest.raises(ValueError, match="wrong") as caught:
        exec("raise ValueError('wrong')", {"__name__": module})
    return caught.value


def test_errors_of_h5py_come_from_its_modules():
    modules = ("h5py", "h5py._objects", "h5py._hl.files", "h5pyx", "numpy", "mine.h5py", "")
    found = [module for module in modules if hdf5_failures._raised_by_h5py(raised_in(module))]
    assert found == ["h5py", "h5py._objects", "h5py._hl.files"]


@pytest.mark.parametrize("signaled", [KeyboardInterrupt(), SystemExit(3)])
def test_a_signal_while_hdf5_calls_a_function_is_no_damage(files, signaled):
    """h5py makes a SystemError of the exception that the signal raised."""

    def interrupt(*_):
        raise signaled

    with DatasetFile.open(files / "single.h5") as dataset:
        with pytest.raises(type(signaled)), hdf5_failures.naming_damage(dataset.file):
            dataset.file.id.links.visit(interrupt)
        with pytest.raises(SystemError), hdf5_failures.naming_damage(dataset.file):
            raise SystemError("of another program")


def test_a_file_whose_identity_always_differs_is_opened_twice(tmp_path, monkeypatch):
    """Some network file systems have no stable numbers of files."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = 1
    numbers = iter(range(100))
    monkeypatch.setattr("spinlock.storage.dataset_file.file_identity", lambda path: next(numbers))
    with pytest.raises(DatasetError, match="is no"):
        DatasetFile.open(tmp_path / "a.h5")
    assert next(numbers) < 6
