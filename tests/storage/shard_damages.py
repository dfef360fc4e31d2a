"""Ways in which tests damage, rename and replace shards."""

import dataclasses
import shutil

import h5py

from spinlock.generation.build import generate, shard_folder
from spinlock.generation.shard_task import ShardReport, ShardTask, compute_shard
from spinlock.storage import require_dataset, schema
from spinlock.storage.digests import combined_digest
from tests.helpers import dataset_contents, small_config
from tests.storage.dataset_damages import leftovers
from tests.storage.sabotage import (
    DATASETS,
    flip,
    swap,
)

SHARDED = small_config(6, grid_size=24, base_channels=(2, 3), num_realizations=2, block_size=1)
OTHER = dataclasses.replace(SHARDED, seed=1)


class Shards:
    """A dataset of three shards, and what tests copy: its shards, and one of another dataset."""

    def __init__(self, folder):
        self.folder = folder
        generate(SHARDED, folder / "undisturbed.h5", progress=False)
        self.contents = dataset_contents(folder / "undisturbed.h5")
        for start in (0, 2, 4):
            compute_shard(ShardTask(SHARDED, folder, start, start + 2))
        (folder / "other").mkdir()
        compute_shard(ShardTask(OTHER, folder / "other", 2, 4))

    def lay_out(self, path, *starts):
        """Put shards beside a dataset that is not there yet."""
        folder = shard_folder(SHARDED, path)
        folder.mkdir(parents=True)
        for start in starts:
            shutil.copy(self.folder / name_of(start), folder)
        return folder

    def fetch(self, task, *args):
        """As `compute_shard`, but the shard is one that was computed before: it saves time."""
        copied = shutil.copy(self.folder / task.shard.path.name, task.folder / "copied")
        # Like the shards that are computed, it replaces a link and not its target.
        copied.replace(task.shard.path)
        return ShardReport(task.stop - task.start, 1.0, {}, 1, 0)

    def require_whole(self, path):
        """The dataset is the one of an undisturbed run."""
        assert dataset_contents(path) == self.contents
        assert not leftovers(path)
        require_dataset(path, SHARDED)


def name_of(start, stop=None):
    return f"shard-{start:010d}-{start + 2 if stop is None else stop:010d}.h5"


def rename(folder, start, new_start, new_stop=None):
    (folder / name_of(start)).replace(folder / name_of(new_start, new_stop))


def renamed_forward(folder, shards):
    (folder / name_of(2)).unlink()
    rename(folder, 0, 2)


def renamed_backward(folder, shards):
    (folder / name_of(0)).unlink()
    rename(folder, 2, 0)


def renamed_to_the_end(folder, shards):
    (folder / name_of(4)).unlink()
    rename(folder, 0, 4)


def renamed_to_a_shorter_range(folder, shards):
    rename(folder, 2, 2, 3)


def renamed_to_a_longer_range(folder, shards):
    rename(folder, 2, 2, 6)
    (folder / name_of(4)).unlink()


def renamed_to_overlap(folder, shards):
    rename(folder, 2, 1, 3)


def swapped_names(folder, shards):
    (folder / name_of(0)).replace(folder / "aside")
    rename(folder, 4, 0)
    (folder / "aside").replace(folder / name_of(4))


def rotated_names(folder, shards):
    swapped_names(folder, shards)
    (folder / name_of(0)).replace(folder / "aside")
    rename(folder, 2, 0)
    (folder / "aside").replace(folder / name_of(2))


def copied_over_another(folder, shards):
    shutil.copy(folder / name_of(0), folder / name_of(4))


def linked_in_the_place_of_another(folder, shards):
    (folder / name_of(4)).unlink()
    (folder / name_of(4)).symlink_to(name_of(0))


def renamed_with_the_range_that_it_says(folder, shards):
    renamed_forward(folder, shards)
    with h5py.File(folder / name_of(2), "r+") as file:
        file.attrs[schema.SAMPLES] = [2, 4]


def a_dataset_in_the_place_of_a_shard(folder, shards):
    for start in (0, 2, 4):
        (folder / name_of(start)).unlink()
    shutil.copy(shards.folder / "undisturbed.h5", folder / name_of(0, 6))


# What may become of the shard of samples 2 and 3.


def flipped_in(name):
    def spoil(shard, shards):
        flip(shard, name, 1)

    spoil.__name__ = f"flipped_in_{name.replace('/', '_')}"
    return spoil


def truncated(shard, shards):
    shard.write_bytes(shard.read_bytes()[:4000])


def emptied(shard, shards):
    shard.write_bytes(b"")


def removed(shard, shards):
    shard.unlink()


def made_a_folder(shard, shards):
    shard.unlink()
    shard.mkdir()


def replaced_by_another_range(shard, shards):
    shutil.copy(shards.folder / name_of(0), shard)


def replaced_by_another_range_in_disguise(shard, shards):
    replaced_by_another_range(shard, shards)
    with h5py.File(shard, "r+") as file:
        file.attrs[schema.SAMPLES] = [2, 4]


def replaced_by_another_dataset(shard, shards):
    shutil.copy(shards.folder / "other" / name_of(2), shard)


def replaced_by_another_dataset_in_disguise(shard, shards):
    replaced_by_another_dataset(shard, shards)
    with h5py.File(shard, "r+") as file, h5py.File(shards.folder / name_of(0)) as own:
        for name in ("configuration", "fingerprint"):
            file.attrs[name] = own.attrs[name]


def replaced_by_a_dataset(shard, shards):
    shutil.copy(shards.folder / "undisturbed.h5", shard)


def rows_swapped(shard, shards):
    with h5py.File(shard, "r+") as file:
        swap(file, DATASETS, 0, 1)
        file.attrs["digest"] = combined_digest(file[schema.DIGESTS][...])


def fields_swapped(shard, shards):
    with h5py.File(shard, "r+") as file:
        swap(file, [schema.OUTPUTS], 0, 1)


def range_edited(shard, shards):
    with h5py.File(shard, "r+") as file:
        file.attrs[schema.SAMPLES] = [0, 2]


def provenance_garbled(shard, shards):
    with h5py.File(shard, "r+") as file:
        file.attrs["device"] = "a fast one"


def made_a_link(shard, shards):
    shard.unlink()
    shard.symlink_to(shards.folder / name_of(0))


def at_samples_2_and_3(spoil):
    """The move of a folder's shards that spoils one of them."""

    def move(folder, shards):
        spoil(folder / name_of(2), shards)

    move.__name__ = spoil.__name__
    return move


MOVES = (
    renamed_forward,
    renamed_backward,
    renamed_to_the_end,
    renamed_to_a_shorter_range,
    renamed_to_a_longer_range,
    renamed_to_overlap,
    swapped_names,
    rotated_names,
    copied_over_another,
    linked_in_the_place_of_another,
    renamed_with_the_range_that_it_says,
    at_samples_2_and_3(replaced_by_another_dataset),
    at_samples_2_and_3(replaced_by_another_dataset_in_disguise),
    a_dataset_in_the_place_of_a_shard,
    at_samples_2_and_3(rows_swapped),
)
