"""A virtual dataset and the single file with the same samples, and ways to damage the former."""

import dataclasses
import os
import shutil
from pathlib import Path

import h5py

from spinlock.generation.build import generate
from spinlock.storage import read_info
from tests.helpers import small_config


def virtual(config):
    return dataclasses.replace(
        config, storage=dataclasses.replace(config.storage, layout="virtual")
    )


# Shards of 4, 4 and 2 samples; the probes of some operators are in two shards.
SINGLE = small_config(
    10,
    block_size=2,
    grid_size=24,
    base_channels=(2, 3),
    num_realizations=2,
    channels=2,
    probes_per_operator=3,
)
VIRTUAL = virtual(SINGLE)
OTHER = dataclasses.replace(VIRTUAL, seed=1)


def write(folder):
    for name, config in (("single", SINGLE), ("virtual", VIRTUAL), ("other", OTHER)):
        generate(config, folder / f"{name}.h5", progress=False)


def copy(source, path):
    """Copy a virtual dataset: its file, and the folder beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)
    shutil.copytree(f"{source}.shards", f"{path}.shards")
    return path


def shards(path):
    """Files of the folder of shards, by name."""
    folder = Path(f"{path}.shards") / read_info(path).fingerprint[:16]
    return sorted(folder.iterdir())


def content(path):
    """Bytes of all files of a virtual dataset."""
    files = [path, *Path(f"{path}.shards").rglob("*.h5")]
    return {str(each.relative_to(path.parent)): each.read_bytes() for each in files}


def missing(path, file, other):
    file.unlink()


def truncated(path, file, other):
    os.truncate(file, file.stat().st_size - 7)


def of_another_dataset(path, file, other):
    """The same samples of another dataset, with the same size."""
    size = file.stat().st_size
    shutil.copy(next(each for each in shards(other) if each.name == file.name), file)
    with file.open("r+b") as out:
        out.truncate(size)


def with_other_samples(path, file, other):
    """A shard that is intact, but was computed anew with other values."""
    with h5py.File(file, "r+") as shard:
        shard.attrs.modify("digest", "0" * 64)


def linked(path, file, other):
    elsewhere = path.parent / "elsewhere.h5"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def folder_linked(path, file, other):
    file.parent.rename(path.parent / "elsewhere")
    file.parent.symlink_to(path.parent / "elsewhere")


def folder_missing(path, file, other):
    shutil.rmtree(f"{path}.shards")


# Damage -> text of the refusal; None: only a check of the content finds it.
DAMAGES = {
    missing: "is missing",
    truncated: "bytes, expected",
    linked: ".h5 is not a regular file. Restore",
    folder_linked: "is a link",
    folder_missing: "is missing",
}
