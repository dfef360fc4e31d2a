"""The lock beside a dataset file takes the place of nothing."""

import os
import shutil

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
