"""Damage of heaps for which HDF5 hangs or crashes is an error when a file is opened."""

import os
import re
import shutil
import tracemalloc
from contextlib import suppress

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.errors import DatasetError
from spinlock.storage.hdf5_access import open_hdf5
from spinlock.storage.verify import require_intact
from tests.storage import virtual_files
from tests.storage.virtual_files import shards


@pytest.fixture(scope="session")
def files(made_once):
    return made_once("virtual", virtual_files.write)


def heaps(content):
    return [match.start() for match in re.finditer(rb"GCOL\x01\0\0\0", content)]


def lengths(content, heap):
    """The places of the lengths of all objects of a heap."""
    end = heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
    at, found = heap + 16, []
    while at + 16 <= end:
        index = int.from_bytes(content[at : at + 2], "little")
        length = int.from_bytes(content[at + 8 : at + 16], "little")
        found.append(at)
        at += 16 + -(-length // 8) * 8 if index else length
    return found


@pytest.mark.parametrize("layout", ["single", "virtual", "shard"])
def test_no_heap_is_read_without_end(files, tmp_path, layout):
    whole = shards(files / "virtual.h5")[0] if layout == "shard" else files / f"{layout}.h5"
    content = whole.read_bytes()
    assert heaps(content)
    for heap in heaps(content):
        objects = lengths(content, heap)
        for place in (objects[0], objects[len(objects) // 2], objects[-1]):
            damaged = bytearray(content)
            damaged[place : place + 16] = bytes(16)
            (tmp_path / "a.h5").write_bytes(damaged)
            with pytest.raises(DatasetError, match=f"byte {heap} holds an object without a length"):
                open_hdf5(tmp_path / "a.h5")


def test_a_heap_of_zeros_fails_a_check(files, tmp_path):
    path = shutil.copy(files / "single.h5", tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    content[heaps(content)[0] + 16 : heaps(content)[0] + 2000] = bytes(1984)
    path.write_bytes(content)
    (row,) = check_dataset(path, replay=0, progress=False).rows
    assert not row.passed
    assert "without a length" in row.measured


def test_files_of_other_programs_open(tmp_path):
    """Empty heaps, headers of version 2, and user blocks."""
    with h5py.File(tmp_path / "old.h5", "w", userblock_size=512) as file:
        file.attrs["text"] = "text"
    with h5py.File(tmp_path / "new.h5", "w", libver="latest", track_order=True) as file:
        file.attrs["text"] = "text"
        file["texts"] = ["a", "", "c" * 10_000]
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.attrs["texts"] = ["", ""]
        file.create_dataset("none", (3,), h5py.string_dtype())
    for name in ("old", "new", "empty"):
        open_hdf5(tmp_path / f"{name}.h5").close()


def test_virtual_datasets_of_users_stay(files, tmp_path):
    """Whatever rows they select, of whatever other files."""
    path = shutil.copy(files / "single.h5", tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        selections = {
            "all": np.s_[...],
            "a range": np.s_[1:9],
            "every third": np.s_[::3],
            "some": np.array([0, 1, 2, 5, 6]),
            "no end": np.s_[2 : h5py.h5s.UNLIMITED],
            "far apart": np.array([1, 5, 2**33]),
        }
        for name, rows in selections.items():
            length = 2**34 if name == "far apart" else 9
            source = h5py.VirtualSource("other.h5", "values", (length,), maxshape=(None,))
            part = source[rows]
            end = None if name == "no end" else part.shape
            layout = h5py.VirtualLayout(part.shape, np.float32, maxshape=end and (None,))
            layout[: h5py.h5s.UNLIMITED if end is None else end[0]] = part
            file.create_virtual_dataset(f"mine/{name}", layout)
    open_hdf5(path).close()
    require_intact(path, "")


@pytest.mark.parametrize("change", [4, 12, 16, 20], ids=["form", "length", "rank", "blocks"])
def test_sources_that_hdf5_cannot_read_are_found(files, tmp_path, change):
    """HDF5 would write to memory that is not its own."""
    content = (files / "virtual.h5").read_bytes()
    places = [match.end() for match in re.finditer(rb"\.h5\0/inputs/fields\0", content)]
    assert places
    for place in places:
        damaged = bytearray(content)
        damaged[place + change] ^= 0x10
        (tmp_path / "a.h5").write_bytes(damaged)
        with pytest.raises(DatasetError, match="a damaged list of sources"):
            open_hdf5(tmp_path / "a.h5")


def test_what_is_read_is_bounded(files, tmp_path):
    """A heap that claims to be as large as a sparse file is left to HDF5."""
    content = bytearray((files / "single.h5").read_bytes())
    place = heaps(content)[0]
    content[place + 8 : place + 16] = (2**40).to_bytes(8, "little")
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    os.truncate(path, 2**41)
    tracemalloc.start()
    try:
        with suppress(DatasetError):
            open_hdf5(path).close()
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
