"""A write that fails is reported when the file is closed, and HDF5 never sees it."""

import errno
import os

import h5py
import numpy as np
import pytest

from spinlock.storage.hdf5_failures import NewFile

VALUES = np.arange(4000.0)


def write(path):
    """Write compressed chunks, contiguous values and attributes, and read some of them."""
    with NewFile(path) as file:
        chunked = file.create_dataset("chunked", data=VALUES, chunks=(500,), compression="gzip")
        file["group/plain"] = VALUES
        file.attrs["text"] = "x" * 1000
        file.flush()
        chunked[::2] = 0
        for number in range(50):
            file.create_group(f"groups/{number}").attrs["number"] = number


@pytest.fixture
def writes(monkeypatch):
    """Counts writes, and lets all fail from a certain one on."""

    class Writes:
        count, most = 0, 10**9

    plain = os.pwrite

    def pwrite(descriptor, data, offset):
        Writes.count += 1
        if Writes.count > Writes.most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Systems may write a part of what they are given.
        return plain(descriptor, data[: max(1, len(data) // 2)], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return Writes


def test_files_are_those_of_hdf5(tmp_path, writes):
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["group/plain"][...].tobytes() == VALUES.tobytes()
        assert file["chunked"][1::2].tobytes() == VALUES[1::2].tobytes()
        assert not file["chunked"][::2].any()
        assert file["groups/49"].attrs["number"] == 49


def test_every_write_may_fail(tmp_path, writes, recwarn):
    write(tmp_path / "whole.h5")
    needed = writes.count
    for most in range(0, needed, max(1, needed // 40)):
        writes.count, writes.most = 0, most
        path = tmp_path / f"{most}.h5"
        with pytest.raises(OSError, match="No space left on device") as caught:
            write(path)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
        # It is closed, and the system has its descriptor back.
        path.unlink()
    # pytest warns about exceptions that are ignored when objects are deleted.
    assert not [str(warning.message) for warning in recwarn if "ignored" in str(warning.message)]


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("kept")
    with pytest.raises(FileExistsError):
        NewFile(path)
    assert path.read_text() == "kept"
    NewFile(path, replace=True).close()
    assert h5py.is_hdf5(path)
