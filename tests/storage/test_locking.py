"""The lock beside a dataset file takes the place of nothing."""

import errno
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from filelock import FileLock, SoftFileLock

from spinlock.errors import DatasetError
from spinlock.generation import generate
from spinlock.storage import locking
from spinlock.storage.locking import dataset_lock
from tests.helpers import small_config


def text(folder):
    (folder / "a.h5.lock").write_text("precious")


def number(folder):
    (folder / "a.h5.lock").write_text("17\n")


def table(folder):
    (folder / "a.h5.lock").write_text("1\n2\n3\n4\n")


def link(folder):
    (folder / "precious").write_text("precious")
    (folder / "a.h5.lock").symlink_to("precious")


def link_to_an_empty_file(folder):
    (folder / "precious").touch()
    (folder / "a.h5.lock").symlink_to("precious")


def dangling_link(folder):
    (folder / "a.h5.lock").symlink_to("nothing")


def hard_link(folder):
    (folder / "precious").write_text("precious")
    os.link(folder / "precious", folder / "a.h5.lock")


def pipe(folder):
    os.mkfifo(folder / "a.h5.lock")


def directory(folder):
    (folder / "a.h5.lock").mkdir()


def snapshot(folder):
    return {
        path.name: (path.lstat(), path.read_bytes() if path.is_file() else None)
        for path in folder.iterdir()
    }


TAKEN = [
    text,
    number,
    table,
    link,
    link_to_an_empty_file,
    dangling_link,
    hard_link,
    pipe,
    directory,
]


@pytest.mark.parametrize("taken", TAKEN)
def test_what_is_no_lock_is_left_as_it_is(tmp_path, taken):
    taken(tmp_path)
    before = snapshot(tmp_path)
    with (
        pytest.raises(DatasetError, match=r"a\.h5\.lock is needed as the lock of the dataset"),
        dataset_lock(tmp_path / "a.h5"),
    ):
        pass
    assert {name: found[1] for name, found in snapshot(tmp_path).items()} == {
        name: found[1] for name, found in before.items()
    }
    for name, (found, _) in snapshot(tmp_path).items():
        assert (found.st_mode, found.st_mtime_ns) == (
            before[name][0].st_mode,
            before[name][0].st_mtime_ns,
        )


def test_generation_says_so(tmp_path):
    text(tmp_path)
    with pytest.raises(DatasetError, match="move it, or choose another path for the dataset"):
        generate(small_config(2, grid_size=24), tmp_path / "a.h5", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5.lock"]
    assert (tmp_path / "a.h5.lock").read_text() == "precious"


def test_a_lock_is_taken_again(tmp_path):
    for _ in range(3):
        with dataset_lock(tmp_path / "a.h5"):
            assert os.listdir(tmp_path) == ["a.h5.lock"]
    with FileLock(tmp_path / "b.h5.lock"):
        pass
    with dataset_lock(tmp_path / "b.h5"):
        pass


def test_the_umask_alone_decides_who_may_take_a_lock(tmp_path):
    before = os.umask(0)
    try:
        locking._require_creatable(tmp_path / "a.h5.lock")
        with dataset_lock(tmp_path / "b.h5"):
            pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["a.h5.lock"] == 0o666
    assert modes["b.h5.lock"] & 0o111 == 0


def test_locks_of_file_systems_that_have_none(tmp_path, monkeypatch):
    """There a lock is a file that names its holder, and goes when it is released."""
    path = tmp_path / "a.h5"
    with SoftFileLock(tmp_path / "a.h5.lock"):
        content = (tmp_path / "a.h5.lock").read_bytes()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(locking, "FileLock", SoftFileLock)
    with dataset_lock(path):
        shutil.copy(tmp_path / "a.h5.lock", tmp_path / "b.h5.lock")
    assert (tmp_path / "b.h5.lock").read_bytes() == content
    locking._require_lock(tmp_path / "b.h5.lock")
    (tmp_path / "b.h5.lock").write_bytes(b"17\nhost\n")
    locking._require_lock(tmp_path / "b.h5.lock")


def test_a_lock_that_cannot_be_created_is_an_error(tmp_path, monkeypatch):
    """Some file systems report a missing file, also if the folder exists: /proc is one of them."""
    path = tmp_path / "a.h5"
    open_file = os.open

    def without_creation(name, flags, *options, **more):
        if str(name).endswith(".lock"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(name))
        return open_file(name, flags, *options, **more)

    monkeypatch.setattr(os, "open", without_creation)
    with pytest.raises(DatasetError, match=r"No such file"):
        generate(small_config(2, grid_size=24), path, progress=False)
    assert not list(tmp_path.iterdir())


def test_who_waits_says_for_what_and_for_whom(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.h5"
    monkeypatch.setattr(locking, "_REMINDER", 0.05)
    taken = FileLock(f"{path}.lock", thread_local=False)
    taken.acquire()
    releasing = threading.Timer(0.3, taken.release)
    releasing.start()
    with caplog.at_level("WARNING", logger="spinlock"), dataset_lock(path):
        pass
    releasing.join()
    first, *others = caplog.messages
    assert f"{path} is being written by another process ({path}.lock is held" in first
    assert others
    waited = rf"still waiting for {re.escape(str(path))}\.lock after \d{{1,2}} s \(held"
    assert all(re.match(waited, message) for message in others)
    if os.access("/proc/locks", os.R_OK) and Path("/proc/locks").read_text():
        assert f"held by process {os.getpid()})" in first


def test_the_holder_of_a_lock_without_locks(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("17\nnode3\n1234\n")
    assert locking._holder(path) == " by process 17 of node3"
    path.write_text("")
    assert locking._holder(path) == locking._holder(tmp_path / "none") == ""
