"""Shards that are damaged, cannot be read or have another size never cost or spoil a sample."""

import dataclasses
import errno
import logging
import os
import random
import re
from functools import partial
from pathlib import Path

import h5py
import pytest

from spinlock.configuration.file_content import StorageConfig
from spinlock.errors import DatasetError
from spinlock.generation import shard_task
from spinlock.generation.build import generate, generate_part, shard_folder
from spinlock.generation.shard_task import ShardTask, compute_shard
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.shard_files import Shard, list_shards
from spinlock.storage.verify import verify_shard
from tests.durability import CONFIG
from tests.helpers import dataset_contents

pytestmark = pytest.mark.slow


def flip_byte(position):
    def damage(data):
        data[position % len(data)] ^= 0x10

    return damage


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_never_gets_into_the_dataset(seed, unfinished, undisturbed):
    folder = shard_folder(CONFIG, unfinished)
    victim = list_shards(folder)[seed % 2].path
    data = bytearray(victim.read_bytes())
    flip_byte(random.Random(seed).randrange(len(data)))(data)
    victim.write_bytes(data)
    generate(CONFIG, unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_a_truncated_shard_is_computed_again(kept, unfinished, undisturbed, caplog):
    victim = list_shards(shard_folder(CONFIG, unfinished))[0].path
    victim.write_bytes(victim.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING, logger="spinlock"):
        generate(CONFIG, unfinished, progress=False)
    assert "computing samples 8..15 again" in caplog.text
    assert dataset_contents(unfinished) == undisturbed


REFUSED = errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM
REFUSALS = [OSError(number, os.strerror(number)) for number in REFUSED]
REFUSALS.append(MemoryError())


def refuse_to_open(monkeypatch, shard, error):
    opened = h5py.File

    def refuse(name, *args, **options):
        if Path(name) == shard.path:
            raise error
        return opened(name, *args, **options)

    monkeypatch.setattr("h5py.File", refuse)


def refuse_to_read(monkeypatch, shard, error):
    read = DatasetFile.chunk

    def refuse(self, *args):
        if Path(self.file.filename) == shard.path:
            raise error
        return read(self, *args)

    monkeypatch.setattr(DatasetFile, "chunk", refuse)


@pytest.mark.parametrize("refuse", [refuse_to_open, refuse_to_read])
@pytest.mark.parametrize("error", REFUSALS, ids=repr)
def test_a_shard_that_cannot_be_read_is_not_damaged(unfinished, monkeypatch, refuse, error):
    """The system refuses it, for example to another user or while a disk fails: it is kept."""
    shards = list_shards(shard_folder(CONFIG, unfinished))
    before = [(shard.path, shard.path.read_bytes()) for shard in shards]
    monkeypatch.setattr(shard_task, "compute_shard", lambda *_: pytest.fail("computed again"))
    with monkeypatch.context() as patch:
        refuse(patch, shards[0], error)
        for build_again in (generate, partial(generate_part, part=1, num_parts=1)):
            with pytest.raises(DatasetError, match=re.escape(str(shards[0].path))):
                build_again(CONFIG, unfinished, progress=False)
    assert [(shard.path, shard.path.read_bytes()) for shard in shards] == before


def test_a_damaged_shard_stays_until_another_replaces_it(unfinished, monkeypatch):
    victim = list_shards(shard_folder(CONFIG, unfinished))[0].path
    victim.write_bytes(victim.read_bytes()[:5000])

    def fail(*args):
        assert len(victim.read_bytes()) == 5000
        raise InterruptedError

    monkeypatch.setattr(shard_task, "compute_shard", fail)
    with pytest.raises(DatasetError, match="finished shards are kept"):
        generate(CONFIG, unfinished, progress=False)
    assert len(victim.read_bytes()) == 5000


@pytest.mark.parametrize("size", [4, 12])
def test_a_damaged_shard_of_another_size_is_gone_in_the_end(unfinished, undisturbed, size):
    victim = list_shards(shard_folder(CONFIG, unfinished))[0].path
    victim.write_bytes(victim.read_bytes()[:5000])
    storage = StorageConfig(shard_size=size)
    generate(dataclasses.replace(CONFIG, storage=storage), unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed
    assert not victim.parent.exists()


def test_verification_reads_the_fields(unfinished):
    """A byte in the middle of a field's chunk is found, and named."""
    shard = list_shards(shard_folder(CONFIG, unfinished))[0]
    verify_shard(shard, CONFIG)
    data = bytearray(shard.path.read_bytes())
    data[len(data) // 2] ^= 1
    shard.path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"shard-0000000008-0000000016\.h5 is damaged"):
        verify_shard(shard, CONFIG)


def test_a_shard_of_another_dataset_is_not_used(unfinished, undisturbed):
    folder = shard_folder(CONFIG, unfinished)
    other = dataclasses.replace(CONFIG, seed=1)
    compute_shard(ShardTask(other, folder, 16, 24))
    assert isinstance(list_shards(folder)[1], Shard)
    generate(CONFIG, unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed


def test_the_shard_size_may_change_between_runs(unfinished, undisturbed):
    storage = StorageConfig(shard_size=12)
    generate(dataclasses.replace(CONFIG, storage=storage), unfinished, progress=False)
    assert dataset_contents(unfinished) == undisturbed


@pytest.mark.repeated
def test_digests_do_not_depend_on_compression(tmp_path, undisturbed):
    storage = StorageConfig(compression="none", shard_size=8)
    generate(dataclasses.replace(CONFIG, storage=storage), tmp_path / "a.h5", progress=False)
    assert dataset_contents(tmp_path / "a.h5") == undisturbed
