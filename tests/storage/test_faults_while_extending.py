"""Damage before and while a file is extended is found, and the old file is left as it was."""

import dataclasses
import os
import re
import zlib

import h5py
import numpy as np
import pytest

from spinlock.errors import DatasetError
from spinlock.generation.build import assemble_parts, generate, generate_part, shard_folder
from spinlock.storage import read_info, schema
from tests.storage.extended_files import (
    COLUMNS,
    SHORT,
    SOME_DATASETS,
    WHOLE,
    extend,
    refused,
    require_untouched,
)
from tests.storage.sabotage import (
    ThisThread,
    flip,
    flip_when_closed,
    names,
    swap_all_and_seal,
)

pytestmark = pytest.mark.slow


def test_nothing_is_computed_for_a_damaged_file(made, tmp_path, monkeypatch):
    path = made.short(tmp_path, shards=False)
    flip(path, schema.OUTPUTS, 2)
    monkeypatch.setattr(
        "spinlock.generation.shard_task.compute_shard",
        lambda *args: pytest.fail("samples are computed"),
    )
    assert re.search("Restore|another path", refused(path, names(2)))


def test_parts_are_not_joined_to_a_damaged_file(made, tmp_path):
    path = made.short(tmp_path, shards=False)
    generate_part(WHOLE, path, 1, 1, progress=False)
    flip(path, schema.PER_TIMESTEP, 11)
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=names(11)):
        assemble_parts(WHOLE, path)
    require_untouched(path, before)


def sabotaged(made, tmp_path, deed, compression="deflate", match=""):
    """Extend a file while a deed is done to it; it is not replaced, and the shards are kept."""
    path = made.short(tmp_path, compression)
    next(shard_folder(WHOLE, path).glob("shard-*16-*")).unlink()
    saboteur = ThisThread(lambda: deed(path), once=True)
    with pytest.raises(DatasetError, match=match):
        extend(path, compression, executor=saboteur)
    assert saboteur.done
    assert not list(tmp_path.rglob("*.tmp"))
    return path


@pytest.mark.parametrize(
    "name",
    [schema.INPUTS, schema.OUTPUTS, "parameters/values/dt", schema.PER_TIMESTEP, schema.DIGESTS],
)
def test_damage_while_samples_are_computed_is_found(made, tmp_path, name):
    damaged = {}

    def deed(path):
        flip(path, name, 5)
        damaged[path] = path.read_bytes()

    path = sabotaged(made, tmp_path, deed, "none")
    assert path.read_bytes() == damaged[path]


def test_rows_that_change_places_while_samples_are_computed_are_found(made, tmp_path):
    def deed(path):
        with h5py.File(path, "r+") as file:
            swap_all_and_seal(file)

    path = sabotaged(made, tmp_path, deed, match=r"a\.h5: .* Restore the file from a copy, or")
    assert read_info(path).config.num_samples == 12


def test_another_dataset_that_takes_the_place_of_the_old_one_is_found(made, tmp_path):
    other = tmp_path / "other.h5"
    generate(dataclasses.replace(SHORT, seed=1), other, progress=False)
    content = other.read_bytes()
    path = sabotaged(made, tmp_path, lambda path: os.replace(other, path))
    assert path.read_bytes() == content


def test_a_file_that_vanishes_while_samples_are_computed(made, tmp_path):
    path = sabotaged(made, tmp_path, lambda path: path.unlink())
    assert not path.exists()


class FaultyChunks(h5py.h5d.DatasetID):
    """A dataset whose chunks do not reach the file as they were given."""

    fault = None

    def write_direct_chunk(self, offsets, data, *args, **options):
        for offset, chunk, more in type(self).fault(tuple(offsets), bytes(data)):
            super().write_direct_chunk(offset, chunk, *args, **(options | more))


def install_faulty_chunks(monkeypatch, fault):
    """Let a fault at writing chunks: (offset, chunk) -> what is written in its place."""
    plain = h5py.Dataset.id.fget

    def identifier(dataset):
        real = plain(dataset)
        if h5py.h5i.get_file_id(real).get_intent() == h5py.h5f.ACC_RDONLY:
            return real
        faulty = FaultyChunks(real.id)
        h5py.h5i.inc_ref(faulty)
        return faulty

    monkeypatch.setattr(FaultyChunks, "fault", staticmethod(fault))
    monkeypatch.setattr(h5py.Dataset, "id", property(identifier))


def flipped_chunk(offset, chunk):
    middle = len(chunk) // 2
    return [(offset, chunk[:middle] + bytes([chunk[middle] ^ 4]) + chunk[middle + 1 :], {})]


def cut_chunk(offset, chunk):
    return [(offset, chunk[:-9], {})]


def lost_chunk(offset, chunk):
    return []


def misplaced_chunk(offset, chunk):
    return [((offset[0] - 1, *offset[1:]), chunk, {})]


def masked_chunk(offset, chunk):
    return [(offset, chunk, {"filter_mask": 1})]


def zeros(offset, chunk):
    return [(offset, zlib.compress(bytes(4 * 32 * 32 * (3 if len(offset) == 4 else 2))), {})]


FAULTS = (flipped_chunk, cut_chunk, lost_chunk, misplaced_chunk, masked_chunk, zeros)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ndim", [4, 5], ids=["inputs", "outputs"])
def test_a_chunk_that_is_not_written_as_given_is_found(made, tmp_path, monkeypatch, fault, ndim):
    path, hits = made.short(tmp_path), []

    def at_the_seventh_sample(offset, chunk):
        if len(offset) == ndim and offset[0] == 6:
            hits.append(offset)
            return fault(offset, chunk)
        return [(offset, chunk, {})]

    install_faulty_chunks(monkeypatch, at_the_seventh_sample)
    refused(path, names(6))
    assert hits


def test_a_fault_that_goes_away_does_no_harm(made, tmp_path, monkeypatch):
    path = made.short(tmp_path)
    install_faulty_chunks(monkeypatch, lost_chunk)
    refused(path, names(0))
    monkeypatch.undo()
    extend(path)
    made.require_whole(path)


@pytest.mark.parametrize("name", [name for name in SOME_DATASETS if name in COLUMNS])
def test_a_column_that_is_not_written_as_given_is_found(made, tmp_path, monkeypatch, name):
    path, hits, plain = made.short(tmp_path), [], h5py.Dataset.__setitem__

    def set_item(data, key, values):
        plain(data, key, values)
        if data.name == f"/{name}" and not hits:
            hits.append(key)
            rows = data[...]
            rows[[4, 9]] = rows[[9, 4]]
            if rows[4].tobytes() == rows[9].tobytes():
                rows[4] = np.zeros((), rows.dtype)
            plain(data, ..., rows)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", set_item)
    refused(path, rf"{name}|" + names(4))
    assert hits


@pytest.mark.parametrize("name", [name for name in SOME_DATASETS if name in COLUMNS])
def test_what_the_disk_made_of_the_new_file_is_read(made, tmp_path, monkeypatch, name):
    """A bit flips when the new file is closed, after everything was written as it should be.

    Fields are read back when they are written, while later samples are computed.
    """
    path = made.short(tmp_path)
    hits = flip_when_closed(monkeypatch, lambda file: file.filename.endswith(".tmp"), name, 5)
    refused(path, rf"{name}|" + names(5))
    assert hits
