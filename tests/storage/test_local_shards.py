"""Shards and additions that refer to other files are refused or not followed."""

import contextlib
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from spinlock.commands.command_line import main
from spinlock.errors import DatasetError, SpinlockError
from spinlock.generation.build import assemble_parts, generate, generate_part
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import schema
from tests.helpers import dataset_contents, seal
from tests.storage.forgeries import CONFIG, NAMES, SECRET, VARIANTS, virtual_that_grows
from tests.storage.forgery_entries import ENTRIES, attempt, forge

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    generate_part(CONFIG, folder / "data.h5", 1, 2, progress=False)
    return folder / "data.h5.parts"


SHARD_VARIANTS = [
    f"external_link: {schema.PER_TIMESTEP}",
    f"external_link: {schema.OUTPUTS}",
    "external_link: metadata",
    f"external_storage: {schema.PER_TIMESTEP}",
    f"external_storage: {schema.OUTPUTS}",
    f"external_storage: {schema.DIGESTS}",
    f"virtual: {schema.PER_TIMESTEP}",
    f"virtual: {schema.OUTPUTS}",
    f"soft_link: {schema.PER_TIMESTEP}",
    f"soft_link_out: {schema.PER_TIMESTEP}",
    f"virtual_without_source: {schema.INPUTS}",
]


@pytest.mark.parametrize("variant", SHARD_VARIANTS)
def test_a_shard_that_lies_elsewhere_is_no_part(parts, original, tmp_path, victims, variant):
    """Its content is that of a good shard; the files it lies in are others all the same."""
    path = tmp_path / "data.h5"
    shutil.copytree(parts, tmp_path / "data.h5.parts")
    (shard,) = (tmp_path / "data.h5.parts").rglob("shard-*")
    with h5py.File(shard, "r+") as file:
        VARIANTS[variant][0](file, victims)
    main(["info", str(path)])
    assert victims.harm() == ""
    with pytest.raises(DatasetError, match=r"samples 0\.\.11 are missing"):
        assemble_parts(CONFIG, path)
    assert victims.harm() == ""
    assert not path.exists()


@pytest.mark.parametrize("variant", SHARD_VARIANTS[:4])
def test_a_shard_that_lies_elsewhere_is_computed_again(parts, original, tmp_path, victims, variant):
    path = tmp_path / "data.h5"
    shutil.copytree(parts, tmp_path / "data.h5.parts")
    (shard,) = (tmp_path / "data.h5.parts").rglob("shard-*")
    with h5py.File(shard, "r+") as file:
        VARIANTS[variant][0](file, victims)
    generate(CONFIG, path, progress=False)
    assert victims.harm() == ""
    assert dataset_contents(path) == dataset_contents(original)
    with h5py.File(path) as file:
        for name in NAMES:
            assert not file[name].is_virtual
            assert not file[name].external


# ------------------------------------------------------------------------- what a stranger added


def added_link(file, victims):
    file["added"] = h5py.ExternalLink(victims.hdf5(file, "features"), "/features")
    file["features/added"] = h5py.ExternalLink(victims.hdf5(file, "metadata"), "/")
    file["metadata/added"] = h5py.SoftLink("/added")


def added_external_storage(file, victims):
    content = np.full(12, SECRET)
    storage = [(victims.raw(content.tobytes()), 0, content.nbytes)]
    # Not a row for each sample: such a dataset could not be kept when there are more.
    file.create_dataset("added", (3, 4), np.float32, external=storage)
    file.create_dataset("outputs/added", (3, 4), np.float32, external=storage)


def added_virtual(file, victims):
    path = victims.hdf5(file, schema.PER_TIMESTEP)
    shape = file[schema.PER_TIMESTEP].shape
    layout = h5py.VirtualLayout(shape[1:], np.float32)
    layout[...] = h5py.VirtualSource(path, schema.PER_TIMESTEP, shape)[0]
    file.create_virtual_dataset("added", layout)
    file.create_virtual_dataset("features/sdf/added", layout)


def added_growing_virtual(file, victims):
    file.copy(schema.PER_TIMESTEP, "added")
    virtual_that_grows("added")(file, victims)


ADDED = (added_link, added_external_storage, added_virtual, added_growing_virtual)


@pytest.mark.parametrize("add", ADDED)
@pytest.mark.parametrize("entry", ["extract-features", "generate more", "info", "features"])
def test_what_was_added_is_not_followed(telling, tmp_path, victims, add, entry):
    """The file itself is good: it is written anew, with what was added or not at all."""
    path = forge(telling, tmp_path, victims, add)
    with h5py.File(path, "r+") as file:
        seal(file, CONFIG)
    victims.watch.events()
    content = path.read_bytes()
    error, _ = attempt(ENTRIES[entry], path, tmp_path / "out")
    assert victims.harm() == ""
    if error:
        assert "added" in error
        assert path.read_bytes() == content
        return
    with h5py.File(path) as file:
        link = file.get("added", getlink=True)
        if add is added_link:
            assert isinstance(link, h5py.ExternalLink)
        else:
            data = file["added"]
            assert data.is_virtual or data.external
    if entry in ("extract-features", "generate more") and add is added_external_storage:
        # Nothing of a victim was put into the file.
        assert path.read_bytes().count(SECRET.tobytes() * 12) <= content.count(
            SECRET.tobytes() * 12
        )


def test_a_leftover_that_is_a_link_is_removed_alone(telling, tmp_path, victims):
    path = Path(shutil.copy(telling, tmp_path / "data.h5"))
    victim = victims.raw(b"precious")
    leftover = tmp_path / f".data.h5.{'0' * 32}.tmp"
    leftover.symlink_to(victim)
    extract_features(path, progress=False)
    assert victims.harm() == ""


# ---------------------------------------------------------------------- files that change meanwhile


@pytest.mark.parametrize("entry", ["extract-features", "generate more"])
def test_a_file_that_is_swapped_meanwhile_writes_nothing_elsewhere(
    telling, tmp_path, victims, monkeypatch, entry
):
    """Just before it is opened for the n-th time, a stranger's file takes its place."""
    change, _ = VARIANTS[f"external_storage: {schema.PER_TIMESTEP}"]
    evil = forge(telling, tmp_path, victims, change).rename(tmp_path / "evil.h5")
    path, real = tmp_path / "data.h5", h5py.File.__init__
    opened = swapped_at = 0

    def counting(self, name, *arguments, **options):
        nonlocal opened
        if str(name) == str(path):
            opened += 1
            if opened == swapped_at:
                shutil.copy(evil, tmp_path / "copy.h5")
                os.replace(tmp_path / "copy.h5", path)
        real(self, name, *arguments, **options)

    monkeypatch.setattr(h5py.File, "__init__", counting)
    # The first time around nothing is swapped.
    times = 1
    while swapped_at < times:
        shutil.copy(telling, path)
        opened = 0
        with contextlib.suppress(SpinlockError):
            attempt(ENTRIES[entry], path, tmp_path / "out")
        times = opened if swapped_at == 0 else times
        assert opened >= swapped_at
        for victim, before in victims.before.items():
            assert (victim.read_bytes(), victim.stat().st_mtime_ns) == before
        swapped_at += 1
    assert times > 1


def test_a_file_that_came_while_waiting_is_looked_at_again(telling, tmp_path, victims, monkeypatch):
    """Extraction waits for the lock: the file it then finds may be another one."""
    change, _ = VARIANTS[f"external_storage: {schema.PER_TIMESTEP}"]
    evil = forge(telling, tmp_path, victims, change).rename(tmp_path / "evil.h5")
    path = Path(shutil.copy(telling, tmp_path / "data.h5"))
    from spinlock.generation import feature_extraction as extraction

    real = extraction.dataset_lock

    @contextlib.contextmanager
    def slow(locked):
        with real(locked):
            os.replace(evil, path)
            yield

    monkeypatch.setattr(extraction, "dataset_lock", slow)
    with pytest.raises(DatasetError, match=schema.PER_TIMESTEP):
        extract_features(path, progress=False)
    assert victims.harm() == ""
