"""Shards that a stranger made are described, but neither followed nor assembled."""

import os
import shutil
import sys

import h5py
import pytest

from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.storage import read_info
from tests.helpers import dataset_contents
from tests.untrusted.forged_configurations import huge, names, opens, refused
from tests.untrusted.scene import CONFIG, STRANGER, custom_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """Dataset and shard of a run that was interrupted; copied by tests."""
    folder = tmp_path_factory.mktemp("shards")
    generate_part(CONFIG, folder / "unfinished.h5", 1, 2, progress=False)
    return folder / "unfinished.h5.parts"


@pytest.fixture
def shard(scene, unfinished):
    """The shard of an unfinished dataset in a scene."""
    shutil.copytree(unfinished, scene.folder / "unfinished.h5.parts")
    (found,) = (scene.folder / "unfinished.h5.parts").rglob("shard-*")
    return found


def shard_attacks(s):
    return refused(s) | opens(s) | huge(s)


@pytest.mark.parametrize("attack", names(shard_attacks))
def test_a_strangers_shard_is_described_and_not_assembled(scene, shard, attack):
    """It claims to be a shard of this dataset all the same."""
    path = scene.folder / "unfinished.h5"
    with h5py.File(shard, "r+") as file:
        file.attrs["configuration"] = shard_attacks(scene)[attack][0]
    scene.type("info", path)
    assembled = scene.run(lambda: assemble_parts(CONFIG, path))
    assert "samples 0..11 are missing" in assembled.error
    assert not path.exists()


@pytest.mark.parametrize(
    "attack", ["command in the operator", "module as the operator", "secret as storage", "weight"]
)
def test_a_strangers_shard_is_computed_again(scene, shard, original, attack):
    path = scene.folder / "unfinished.h5"
    with h5py.File(shard, "r+") as file:
        file.attrs["configuration"] = shard_attacks(scene)[attack][0]
    outcome = scene.run(lambda: generate(CONFIG, path, progress=False))
    assert outcome.error == ""
    assert dataset_contents(path) == dataset_contents(original)


def test_a_true_shard_of_custom_classes_is_no_reason_to_import(custom):
    """The user asks for this very dataset, with a configuration that was read from a file."""
    custom.lay_module(STRANGER)
    generate_part(custom_config(STRANGER), custom.folder / "b.h5", 1, 2, progress=False)
    del sys.modules[STRANGER]
    custom.imported.unlink()
    config = read_info(custom.data).config
    outcomes = [
        custom.type("info", custom.folder / "b.h5"),
        custom.run(lambda: generate(config, custom.folder / "b.h5", progress=False)),
    ]
    assert [bool(outcome.error) for outcome in outcomes] == [False, True]


def as_directory(shard, victim):
    shard.mkdir()


def as_pipe(shard, victim):
    os.mkfifo(shard)


def as_link(shard, victim):
    shard.symlink_to(victim)


def as_dangling_link(shard, victim):
    shard.symlink_to("nothing")


def as_hard_link(shard, victim):
    os.link(victim, shard)


FIRST = "shard-0000000000-0000000008.h5"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (as_directory, FIRST),
        (as_pipe, FIRST),
        (as_link, FIRST),
        (as_dangling_link, FIRST),
        (as_hard_link, FIRST),
        (as_link, "shard-9999999990-9999999999.h5"),
        (as_directory, f"unfinished.h5.{'0' * 32}.tmp"),
    ],
)
def test_what_lies_among_the_shards_harms_nothing_else(scene, kind, name):
    path, victim = scene.folder / "unfinished.h5", scene.folder / "victim.h5"
    shutil.copy(scene.data, victim)
    before = victim.read_bytes()
    folder = scene.folder / "unfinished.h5.parts" / CONFIG.fingerprint[:16]
    folder.mkdir(parents=True)
    kind(folder / name, victim)
    outcomes = [
        scene.type("info", path),
        scene.run(lambda: generate(CONFIG, path, progress=False)),
    ]
    assert victim.read_bytes() == before
    assert not victim.is_symlink()
    # Only a directory, which is never removed, can be in the way.
    assert not outcomes[1].error or kind is as_directory
