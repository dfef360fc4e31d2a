"""Fixtures of the tests of durability."""

import shutil

import pytest

from spinlock.generation import shard_task
from spinlock.generation.build import generate, shard_folder
from spinlock.generation.shard_task import ShardReport, ShardTask, compute_shard
from tests.durability import CONFIG
from tests.helpers import dataset_contents


@pytest.fixture(scope="session")
def undisturbed(made_once):
    """Content of the dataset of an undisturbed run."""

    def write(folder):
        generate(CONFIG, folder / "a.h5", progress=False)

    return dataset_contents(made_once("undisturbed", write) / "a.h5")


@pytest.fixture(scope="session")
def shards(made_once):
    """All shards of a run; copied by tests."""

    def write(folder):
        for start in range(0, 36, 8):
            compute_shard(ShardTask(CONFIG, folder, start, min(start + 8, 36)))

    return made_once("shards", write)


@pytest.fixture
def unfinished(shards, tmp_path):
    """The path of a dataset whose run was interrupted after two shards."""
    path = tmp_path / "a.h5"
    folder = shard_folder(CONFIG, path)
    folder.mkdir(parents=True)
    for start in (8, 24):
        shutil.copy(shards / f"shard-{start:010d}-{start + 8:010d}.h5", folder)
    return path


@pytest.fixture
def fetched(shards, monkeypatch):
    """Shards that are missing are fetched from those that were computed before, to save time."""

    def fetch(task, *_):
        shutil.copy(shards / task.shard.path.name, task.shard.path)
        return ShardReport(task.stop - task.start, 1.0, {}, 1, 0)

    monkeypatch.setattr(shard_task, "compute_shard", fetch)
