"""A run of the layout ``virtual`` that is killed at any step leaves a whole dataset, or shards."""

import os
import shutil
import signal
from functools import partial
from itertools import count

import pytest

from spinlock.generation import shard_task
from spinlock.generation.build import generate
from spinlock.storage import read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.feature_update import update_features
from spinlock.storage.verify import require_intact
from tests.forks import Fork
from tests.storage import virtual_files
from tests.storage.virtual_files import VIRTUAL, copy, shards

pytestmark = pytest.mark.slow

# The calls of the system by which files appear, change their name and disappear.
STEPS = ("replace", "link", "unlink", "fsync", "rmdir")


@pytest.fixture(scope="session")
def files(made_once):
    return made_once("virtual", virtual_files.write)


def do_until(number, task, path):
    """Do a task, and kill the process before its call ``number`` of STEPS."""
    done = []

    def counted(call):
        def step(*args, **options):
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(call)
            return call(*args, **options)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    task(path)


def kills(task, paths, *chosen):
    """Paths at which the task was killed before chosen calls; SPINLOCK_KILLS=1: before any call."""
    everything = bool(os.environ.get("SPINLOCK_KILLS"))
    for number in count() if everything else chosen:
        path = paths(number)
        fork = Fork(do_until, number, task, path)
        fork.process.join()
        if everything and fork.process.exitcode == 0:
            assert number > max(chosen)
            break
        assert fork.process.exitcode == -signal.SIGKILL
        yield path


def fetch(source, task, simulator, on_samples, finish):
    """Take a shard that was computed before, to save time."""
    temporary = task.shard.path.with_name(f"{task.shard.path.name}.{32 * '0'}.tmp")
    shutil.copy(next(f for f in shards(source) if f.name == task.shard.path.name), temporary)
    finish(temporary, task.shard.path)
    return shard_task.ShardReport(task.stop - task.start, 1.0, {}, 1, 0)


def build(source, path):
    shard_task.compute_shard = partial(fetch, source)
    generate(VIRTUAL, path, progress=False)


def replace_features(path):
    """Give the file other features than its own."""
    with DatasetFile.open(path) as dataset:
        config = dataset.config
        provenance = {name: dataset.text(name) for name in schema.PROVENANCE}
        features = {name: 1 + dataset.column(name) for name in schema.feature_specs(config)}
    update_features(path, config, features, provenance, config.num_samples)


def leftovers(path):
    """Files beside a finished dataset that it does not refer to."""
    with DatasetFile.open(path) as dataset:
        used = {path, path.with_name(f"{path.name}.lock"), *dataset.shards.index.files}
    return {each for each in path.parent.rglob("*") if each.is_file()} - used


def test_a_build_that_is_killed_at_any_step_goes_on(files, tmp_path):
    source = files / "virtual.h5"
    run = partial(build, source)
    for path in kills(run, lambda number: tmp_path / str(number) / "virtual.h5", 6, 15):
        complete = path.exists()
        if complete:
            require_intact(path, "")
        Fork(build, source, path).result()
        assert read_info(path).digest == read_info(source).digest
        # A complete dataset is looked at only, so that what is left goes when it is extended.
        assert complete or leftovers(path) == set()


def test_features_that_are_replaced_until_a_kill(files, tmp_path):
    """The dataset is the old one or the new one, and the next run removes the other's files."""
    source = files / "virtual.h5"

    def prepared(number):
        return copy(source, tmp_path / str(number) / "virtual.h5")

    for path in kills(replace_features, prepared, 12):
        require_intact(path, "")
        replace_features(path)
        require_intact(path, "")
        assert leftovers(path) == set()
        assert read_info(path).digest != read_info(source).digest
