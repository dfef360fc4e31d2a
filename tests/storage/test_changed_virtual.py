"""A virtual dataset that is extended, or whose features are replaced, stays what it should be."""

import dataclasses
import json
import shutil
import stat
from functools import partial

import h5py
import numpy as np
import pytest
import torch

from spinlock.commands.info import describe
from spinlock.datamodules.field_reader import FieldReader
from spinlock.errors import DatasetError
from spinlock.generation import shard_task
from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.generation.feature_extraction import extract_features
from spinlock.simulation.provenance import provenance
from spinlock.storage import read_columns, read_info, schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.feature_update import update_features
from spinlock.storage.verify import require_intact, verify_shard
from tests.helpers import dataset_contents
from tests.storage import virtual_files
from tests.storage.virtual_files import OTHER, SINGLE, VIRTUAL, content, copy, shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def files(made_once):
    return made_once("virtual", virtual_files.write)


@pytest.fixture
def path(files, tmp_path):
    return copy(files / "virtual.h5", tmp_path / "virtual.h5")


def extended(path, config, count):
    generate(dataclasses.replace(config, num_samples=count), path, progress=False)


def test_extending_equals_generating_at_once(files, tmp_path):
    """Also where shards hold more samples than were asked for at first, or others."""
    path = tmp_path / "grown.h5"
    resized = dataclasses.replace(VIRTUAL.storage, shard_size=6, compression="none")
    for config, count in (
        (VIRTUAL, 3),
        (dataclasses.replace(VIRTUAL, storage=resized), 7),
        # A dataset keeps its layout.
        (SINGLE, 10),
    ):
        extended(path, config, count)
        assert read_info(path).config.storage.layout == "virtual"
        require_intact(path, "")
    held = dataset_contents(path)
    del held["shards"]
    assert held == dataset_contents(files / "single.h5")
    assert read_info(path).digest == read_info(files / "single.h5").digest
    assert {file.name[:6] for file in shards(path)} == {"column", "shard-"}
    assert sum(file.name.startswith("columns") for file in shards(path)) == 1
    assert not list(tmp_path.rglob("*.tmp"))
    # The field reader inflates what is packed either way.
    rows = np.arange(10)
    for name in (schema.INPUTS, schema.OUTPUTS):
        pair = (FieldReader(each, SINGLE) for each in (path, files / "single.h5"))
        np.testing.assert_array_equal(*(reader.read(name, rows) for reader in pair))


def test_a_single_file_stays_single_when_it_is_extended(files, tmp_path):
    path = tmp_path / "a.h5"
    extended(path, SINGLE, 3)
    extended(path, VIRTUAL, 10)
    assert dataset_contents(path) == dataset_contents(files / "single.h5")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.h5", "a.h5.lock"]


def test_additions_of_users_are_kept(path):
    with h5py.File(path, "r+") as file:
        file["mine/notes"] = np.arange(3)
        file.attrs["mine"] = "text"
        file[schema.OUTPUTS].attrs["mine"] = 7
    extended(path, VIRTUAL, 12)
    with h5py.File(path) as file:
        assert file["mine/notes"][:].tolist() == [0, 1, 2]
        assert (file.attrs["mine"], file[schema.OUTPUTS].attrs["mine"]) == ("text", 7)
        assert file[schema.OUTPUTS].is_virtual


@pytest.mark.parametrize("change", ["extended", "other features"])
def test_new_files_have_the_mode_of_the_old_one(path, change):
    """What is private stays so."""
    for file in (path, *shards(path)):
        file.chmod(0o600)
    extended(path, VIRTUAL, 12) if change == "extended" else spoil_features(path)
    files = [path, *shards(path)]
    assert len(files) == 5 + (change == "extended")
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_features_that_differ_are_replaced_in_new_shards(files, tmp_path):
    """As in a single file, with the same digest; the fingerprint and its folder change."""
    paths = {name: tmp_path / f"{name}.h5" for name in ("single", "virtual")}
    shutil.copy(files / "single.h5", paths["single"])
    copy(files / "virtual.h5", paths["virtual"])
    for path in paths.values():
        # Samples with other features, and digests that agree with them.
        spoil_features(path)
        result = extract_features(path, responses=False, progress=False)
        assert (result.changed, result.rewritten) == (10, True)
        require_intact(path, "")
    one, two = map(read_info, paths.values())
    before = read_info(files / "virtual.h5")
    assert two.design_quality == before.design_quality != {}
    # Only the assembly was timed anew.
    old, new = before.run_summary, two.run_summary
    assert {name for name in old | new if old[name] != new[name]} == {"assembly_seconds"}
    assert (one.digest, one.fingerprint) == (two.digest, two.fingerprint)
    assert two.config.storage.layout == "virtual"
    held = dataset_contents(paths["virtual"])
    del held["shards"]
    assert held == dataset_contents(paths["single"])
    # The old shards are gone, and the dataset can be extended.
    assert len(list(tmp_path.rglob("*.h5.shards/*/*.h5"))) == 4
    extended(paths["virtual"], two.config, 12)
    require_intact(paths["virtual"], "")


def spoil_features(path):
    """Write other features with a patched update, as another version of the package would."""
    with DatasetFile.open(path) as dataset:
        config = dataset.config
        features = {name: dataset.column(name) + 1 for name in schema.feature_specs(config)}
    update_features(path, config, features, provenance(config, torch.device("cpu")), 10)


@pytest.mark.parametrize("config", [SINGLE, VIRTUAL], ids=["single", "virtual"])
def test_a_longer_shard_does_not_replace_samples_of_the_dataset(tmp_path, config):
    path, short = tmp_path / "a.h5", dataclasses.replace(config, num_samples=3)
    generate_part(config, path, 1, 1, progress=False)
    generate(short, path, progress=False)
    features = list(schema.feature_specs(config))
    with DatasetFile.open(path) as dataset:
        spoiled = {name: dataset.column(name) + 1 for name in features}
    update_features(path, short, spoiled, provenance(short, torch.device("cpu")), 3)
    # The shard of the samples 0..3 is still there.
    generate(config, path, progress=False)
    held = read_columns(path, features, 3)
    for name in features:
        np.testing.assert_array_equal(held[name], spoiled[name])


def test_rewritten_shards_without_their_file_are_not_removed(path):
    spoil_features(path)
    path.rename(path.with_name("kept.h5"))
    before = {each: each.read_bytes() for each in path.parent.rglob("*.h5")}
    for make in (generate, partial(generate_part, part=1, num_parts=1), assemble_parts):
        quiet = {} if make is assemble_parts else {"progress": False}
        with pytest.raises(DatasetError, match=r"shard-0000000000-0000000004-\d+\.h5.*Move the"):
            make(VIRTUAL, path, **quiet)
    assert {each: each.read_bytes() for each in path.parent.rglob("*.h5")} == before
    path.with_name("kept.h5").rename(path)
    require_intact(path, "")


def test_a_failed_replacement_of_features_changes_nothing(path, monkeypatch):
    before = content(path)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spinlock.storage.assemble.Assembly.finish", fail)
    with pytest.raises(OSError, match="No space"):
        spoil_features(path)
    assert content(path) == before


def test_a_late_worker_does_not_replace_a_shard_of_the_dataset(path, monkeypatch):
    before, shard = content(path), shards(path)[2]
    task = shard_task.ShardTask(VIRTUAL, shard.parent, 4, 8)
    # The new shard has another size and other values, as of another device.
    origins = provenance(VIRTUAL, torch.device("cpu")) | {"device": json.dumps("x" * 1000)}
    monkeypatch.setattr(shard_task, "provenance", lambda *args: origins)
    shard_task.compute_shard(task)
    assert content(path) == before
    assert not list(shard.parent.glob("*.tmp"))
    # A damaged one is replaced, as before.
    shard.write_bytes(shard.read_bytes()[:-100])
    shard_task.compute_shard(task)
    verify_shard(task.shard, VIRTUAL)


def test_info_tells_shards_in_use_from_an_unfinished_run(path):
    assert "in 3 shards" in describe(path)
    assert "being written" not in describe(path)
    generate_part(dataclasses.replace(VIRTUAL, num_samples=14), path, 1, 1, progress=False)
    assert "14 of 14 samples" in describe(path)
    assert "nothing but the assembly" in describe(path)
    path.unlink()
    assert "not finished" in describe(path)


def test_another_dataset_is_not_replaced(path):
    with pytest.raises(DatasetError, match="seed: 42 there, 1 asked for"):
        generate(OTHER, path, progress=False)
