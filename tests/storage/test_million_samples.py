"""A dataset of a million samples opens by a few operations, whatever its shards hold."""

import os
from collections import Counter

import h5py
import pytest

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.dimensions import dataset_scales, write_scales
from spinlock.storage.layout import create_dataset
from spinlock.storage.shard_files import shard_folder
from spinlock.storage.shard_index import Piece, ShardIndex
from spinlock.storage.virtual_datasets import write_virtual
from tests.storage.virtual_files import virtual

SAMPLES = 1_000_000


def write_simulated(path, shard_size):
    """Write a baseline dataset whose shards are empty files; return their number."""
    config = virtual(GenerationConfig(SAMPLES))
    folder = shard_folder(config, path)
    folder.mkdir(parents=True)
    index = ShardIndex(folder, 0)
    for start in range(0, SAMPLES, shard_size):
        stop = min(start + shard_size, SAMPLES)
        index.append(Piece(start, stop, start, stop, 0, 0, 64 * "0"))
        index.path(index.pieces[-1]).touch()
    with h5py.File(path, "w") as file, h5py.File(index.columns_path, "w") as columns:
        new = DatasetFile(file, config)
        file.attrs.update(new.identity | {"digest": 64 * "0"})
        same = {"fingerprint": config.fingerprint, "digest": 64 * "0"}
        columns.attrs.update(same | {schema.SAMPLES: [0, SAMPLES]})
        for spec in new.columns:
            # HDF5 allocates nothing for what is not written.
            create_dataset(columns, spec, range(SAMPLES), {})
        for spec in new.specs.values():
            write_virtual(file, spec, index, SAMPLES).attrs.update(spec.attributes)
        write_scales(file, new.specs.values(), dataset_scales(config).values())
    with h5py.File(path, "r+") as file:
        index.write(file)
    return len(index.pieces)


@pytest.fixture
def counted(monkeypatch):
    """Numbers of files that are opened, listed and examined."""
    counts = Counter()

    class Opened(h5py.File):
        def __init__(self, *args, **options):
            counts["opened"] += 1
            super().__init__(*args, **options)

    def counting(name, call):
        def count(*args, **options):
            counts[name] += 1
            return call(*args, **options)

        return count

    monkeypatch.setattr("h5py.File", Opened)
    for name in ("scandir", "stat", "lstat", "open", "listdir"):
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    return counts


@pytest.mark.parametrize("shard_size", [pytest.param(128, marks=pytest.mark.repeated), 1024])
def test_the_file_is_small_and_opens_without_its_shards(tmp_path, counted, shard_size):
    path = tmp_path / "million.h5"
    count = write_simulated(path, shard_size)
    assert path.stat().st_size < 10_000_000 / 2
    counted.clear()
    with DatasetFile.open(path) as dataset:
        dataset.validate()
        # The file and its columns, and one list of the folder: shards are not opened.
        assert counted["opened"] == 2
        assert counted["scandir"] == 1
        assert counted["open"] == counted["listdir"] == 0
        assert counted["stat"] + counted["lstat"] < 60
        assert len(dataset.shards.index.pieces) == count
        assert dataset.shards.index.find(SAMPLES - 1).last == SAMPLES
        assert dataset.layout_problems() == {}
    name = f"shard-{shard_size * 7:010d}-{shard_size * 8:010d}.h5"
    next(path.parent.rglob(name)).unlink()
    with pytest.raises(Exception, match=f"{name} is missing"):
        DatasetFile.open(path)
