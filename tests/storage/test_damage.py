"""Damage is found by whoever is about to make something of a file, and made to look like no truth.

Damaged datasets are refused by `extract_features`, which would give them new digests; damaged and
misnamed shards never get into a dataset; edited attributes are noticed by all who read them.
"""

import dataclasses
import json
import os
import re
import shutil
import sys
import zlib

import h5py
import numpy as np
import pytest
import yaml

import spinlock.generation.build
from spinlock import SpinlockDataModule
from spinlock.__main__ import main as command_line
from spinlock.checks import check_dataset
from spinlock.configuration.generation_config import CustomFeatureConfig
from spinlock.errors import DatasetError
from spinlock.features import custom_feature
from spinlock.generation.build import assemble_parts, generate, generate_part, shard_folder
from spinlock.generation.feature_extraction import Extraction, extract_features
from spinlock.generation.shard_task import ShardReport, ShardTask, compute_shard
from spinlock.storage import require_dataset, schema
from spinlock.storage.digests import combined_digest
from spinlock.storage.shards import list_shards
from tests.helpers import dataset_contents, reseal, seal, small_config
from tests.storage.sabotage import (
    CONFIG,
    DATASETS,
    FIELDS,
    ThisThread,
    flip,
    flip_when_closed,
    names,
    replace_dataset,
    swap,
    swap_all,
    swap_all_and_seal,
)

RAW = dataclasses.replace(CONFIG, storage=dataclasses.replace(CONFIG.storage, compression="none"))
LONGER = dataclasses.replace(CONFIG, num_samples=16)
OTHER_FEATURES = CustomFeatureConfig(("tests.features.custom_features.mean_modulus",))
# What the feature below does besides, in the middle of an extraction.
DEED = []


@custom_feature(formula="⟨u⟩", unit="u", range="ℝ", exponent=1)
def mean_and_deed(fields):
    if DEED:
        DEED.pop()()
    return fields.mean((-2, -1))


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """Compression -> an undamaged file."""
    folder = tmp_path_factory.mktemp("intact")
    for config in (CONFIG, RAW):
        generate(config, folder / f"{config.storage.compression}.h5", progress=False)
    return {name: folder / f"{name}.h5" for name in ("deflate", "none")}


@pytest.fixture
def path(intact, tmp_path):
    return shutil.copy(intact["deflate"], tmp_path / "a.h5")


def leftovers(path):
    """What lies beside a file, but for its lock."""
    return sorted(set(os.listdir(path.parent)) - {path.name, f"{path.name}.lock"})


# ------------------------------------------------------------------------- damage to a dataset


def flipped(name):
    def damage(path):
        flip(path, name, 5)

    return damage, r"metadata/digests|" + names(5) if name == schema.DIGESTS else names(5)


def edited(function, pattern):
    """Damage done through HDF5."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            function(file)

    return damage, pattern


def set_value(name, row, where, value):
    def edit(file):
        entry = file[name][row]
        assert entry[where].tobytes() != np.asarray(value, entry.dtype).tobytes()
        entry[where] = value
        file[name][row] = entry

    return edited(edit, names(row))


def different_rows(file, name):
    """Two samples whose entries differ."""
    rows = [entry.tobytes() for entry in file[name][...]]
    return 0, next(row for row, entry in enumerate(rows) if entry != rows[0])


def swapped(name):
    def edit(file):
        swap(file, [name], *different_rows(file, name))

    return edited(edit, "metadata/digests|" + names(0) if name == schema.DIGESTS else names(0))


def roll_all_and_seal(file):
    for name in DATASETS:
        file[name][...] = np.roll(file[name][...], 1, axis=0)
    seal(file, CONFIG)


def repeat_a_sample_and_seal(file):
    for name in DATASETS:
        file[name][8] = file[name][2]
    seal(file, CONFIG)


def edit_a_digest(file):
    file[schema.DIGESTS][5] = b"0" * 64


def edit_a_digest_and_seal(file):
    edit_a_digest(file)
    seal(file, CONFIG)


def change_a_chunk(function, name=schema.OUTPUTS, row=6):
    """Replace the bytes of a chunk by others."""

    def edit(file):
        data = file[name].id
        offset = (row,) + (0,) * (len(data.shape) - 1)
        _, chunk = data.read_direct_chunk(offset)
        data.write_direct_chunk(offset, function(chunk))

    return edited(edit, names(row))


def take_a_chunk_of_another_sample(file):
    data = file[schema.OUTPUTS].id
    _, chunk = data.read_direct_chunk((2, 0, 1, 0, 0))
    data.write_direct_chunk((6, 0, 1, 0, 0), chunk)


def say_that_filters_were_skipped(file):
    data = file[schema.INPUTS].id
    _, chunk = data.read_direct_chunk((6, 0, 0, 0))
    # HDF5 takes no note of the filters of a chunk that keeps its size.
    data.write_direct_chunk((6, 0, 0, 0), chunk + bytes(1), filter_mask=3)
    assert data.get_chunk_info_by_coord((6, 0, 0, 0)).filter_mask == 3


def leave_a_chunk_out(file):
    """HDF5 reads what was never written as zeros."""

    def create(file, name, values):
        options = {"chunks": (1, *values.shape[1:]), "shuffle": True, "compression": "gzip"}
        data = file.create_dataset(name, values.shape, "<f4", **options)
        data[:6], data[7:] = values[:6], values[7:]

    replace_dataset(file, schema.INPUTS, create)


def replaced(name, make):
    """A dataset gives way to something else of its name."""

    return edited(lambda file: replace_dataset(file, name, make), re.escape(name))


def shorter(file, name, values):
    file[name] = values[:-1]


def of_another_type(file, name, values):
    file[name] = values.astype(np.float64)


def a_link_within(file, name, values):
    file["hidden"] = values
    file[name] = h5py.SoftLink("/hidden")


def a_link_to_another_file(file, name, values):
    elsewhere = os.path.join(os.path.dirname(file.filename), "other.h5")
    with h5py.File(elsewhere, "w") as other:
        other["values"] = values
    file[name] = h5py.ExternalLink("other.h5", "/values")


def a_virtual_dataset(file, name, values):
    file["hidden"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(file["hidden"])
    file.create_virtual_dataset(name, layout)


def a_virtual_dataset_without_its_source(file, name, values):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("missing.h5", "values", values.shape)
    file.create_virtual_dataset(name, layout)


def values_in_another_file(file, name, values):
    elsewhere = os.path.join(os.path.dirname(file.filename), "raw.bin")
    with open(elsewhere, "wb") as raw:
        raw.write(np.ascontiguousarray(values).tobytes())
    external = [("raw.bin", 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


def nothing(file, name, values):
    pass


def attribute(holder, name, value):
    def edit(file):
        assert file[holder].attrs[name] != value
        file[holder].attrs[name] = value

    return edited(edit, rf"attributes|{name}")


def cut_the_file(path):
    path.write_bytes(path.read_bytes()[:-3000])


def wipe_the_start(path):
    path.write_bytes(bytes(8) + path.read_bytes()[8:])


def claim_fewer_samples(file):
    configuration = json.loads(file.attrs["configuration"])
    file.attrs["configuration"] = json.dumps(configuration | {"num_samples": 11})


def claim_another_seed(file):
    configuration = json.loads(file.attrs["configuration"])
    file.attrs["configuration"] = json.dumps(configuration | {"seed": 43})


SWAPPED = (
    *FIELDS,
    schema.PARAMS,
    schema.VALUES,
    schema.IC_TYPES,
    schema.POLICIES,
    schema.OPERATOR_INDEX,
    schema.PER_TIMESTEP,
    schema.INITIAL_FEATURES,
    schema.DIGESTS,
)
# Damage -> (how it is done, what a refusal names).
DAMAGES = {
    **{f"a flipped bit in {name}": flipped(name) for name in DATASETS},
    **{f"swapped rows of {name}": swapped(name) for name in SWAPPED},
    "NaN in inputs": set_value(schema.INPUTS, 2, (1, 3, 3), np.nan),
    "NaN in outputs": set_value(schema.OUTPUTS, 11, (1, 2, 31, 31), np.nan),
    "a rounding error": set_value(schema.OUTPUTS, 0, (0, 0, 0, 0), np.float32(1e-30)),
    "NaN in features": set_value(schema.PER_TIMESTEP, 4, (0, 45), np.nan),
    "infinity in features": set_value(schema.INITIAL_FEATURES, 4, (0,), np.inf),
    "a number where features are missing": set_value(schema.AGGREGATED, 9, (0,), 0.0),
    "another operator": set_value(schema.PARAMS, 7, (3,), 0.5),
    "swapped samples": edited(swap_all, "metadata/digests|" + names(3, 7)),
    "swapped samples, sealed": edited(swap_all_and_seal, names(3, 7)),
    "shifted samples, sealed": edited(roll_all_and_seal, names(0, 1, 2)),
    "a sample twice, sealed": edited(repeat_a_sample_and_seal, names(8)),
    "an edited digest": edited(edit_a_digest, "metadata/digests|" + names(5)),
    "an edited digest, sealed": edited(edit_a_digest_and_seal, names(5)),
    "an edited digest of the file": attribute("/", "digest", "0" * 64),
    "an edited digest of attributes": attribute("/", "attributes_digest", "0" * 64),
    "an edited digest of a column": attribute(schema.PARAMS, "sha256", "0" * 64),
    "a truncated chunk": change_a_chunk(lambda chunk: chunk[: len(chunk) // 2]),
    "a chunk of zeros": change_a_chunk(lambda chunk: zlib.compress(bytes(2 * 4 * 32 * 32))),
    "a chunk of one byte": change_a_chunk(lambda chunk: chunk[:1], schema.INPUTS),
    "a chunk too long": change_a_chunk(lambda chunk: zlib.compress(bytes(9 * 4 * 32 * 32))),
    "a chunk with more behind it": change_a_chunk(lambda chunk: chunk + b"more"),
    "a chunk of another sample": edited(take_a_chunk_of_another_sample, names(6)),
    "filters that were not skipped": edited(say_that_filters_were_skipped, names(6)),
    "a chunk left out": edited(leave_a_chunk_out, names(6)),
    "a dataset gone": replaced(schema.GRID_SIZES, nothing),
    "a dataset too short": replaced(schema.PER_TIMESTEP, shorter),
    "a dataset of another type": replaced(schema.AGGREGATED, of_another_type),
    "a link within the file": replaced(schema.OUTPUTS, a_link_within),
    "a link to another file": replaced(schema.INPUTS, a_link_to_another_file),
    "a virtual dataset": replaced(schema.INITIAL_FEATURES, a_virtual_dataset),
    "a virtual dataset of nothing": replaced(schema.OUTPUTS, a_virtual_dataset_without_its_source),
    "values in another file": replaced(schema.PARAMS, values_in_another_file),
    "fewer samples than there are": edited(claim_fewer_samples, "configuration|attributes|12"),
    "another seed": edited(claim_another_seed, "fingerprint|configuration|attributes|" + names(0)),
    "the end of the file gone": (cut_the_file, "HDF5"),
    "the start of the file gone": (wipe_the_start, "HDF5"),
}
# Bytes that are no content: HDF5 and zlib alike read the same values without them.
HARMLESS_TO_VALUES = {"a chunk with more behind it"}


def refused(path, pattern, compression="deflate", **options):
    """The file is neither extracted from nor extended, and is left as it was."""
    before, beside = path.read_bytes(), leftovers(path)
    longer = LONGER if compression == "deflate" else dataclasses.replace(RAW, num_samples=16)
    for use in (
        lambda: extract_features(path, progress=False, **options),
        lambda: generate(longer, path, progress=False),
    ):
        with pytest.raises(DatasetError, match=pattern):
            use()
        assert path.read_bytes() == before
        assert leftovers(path) == beside


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d not in HARMLESS_TO_VALUES])
def test_damage_is_found_and_never_certified(path, damage):
    spoil, pattern = DAMAGES[damage]
    spoil(path)
    before = path.read_bytes()
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert not report.passed
    assert path.read_bytes() == before
    refused(path, pattern)
    refused(path, pattern, features=OTHER_FEATURES)


@pytest.mark.parametrize("name", [*FIELDS, schema.VALUES, schema.PER_TIMESTEP])
def test_damage_beyond_the_first_samples_is_found(path, name):
    """Of those the features would be taken over as they are, and get new digests."""
    flip(path, name, 9)
    with h5py.File(path, "r+") as file:
        # Something to write anew.
        file[schema.INITIAL_FEATURES][0, 0] += 1
    refused(path, names(0, 9), max_samples=1)


@pytest.mark.parametrize("damage", HARMLESS_TO_VALUES)
def test_what_does_not_change_a_value_is_found_or_harmless(path, intact, damage):
    spoil, pattern = DAMAGES[damage]
    spoil(path)
    if check_dataset(path, full=True, replay=0, progress=False).passed:
        assert extract_features(path, progress=False) == Extraction(12, 0, False)
        assert dataset_contents(path) == dataset_contents(intact["deflate"])
    else:
        refused(path, pattern)


def half_a_chunk(path):
    with h5py.File(path, "r+") as file:
        data, place = file[schema.OUTPUTS].id, (7, 0, 2, 0, 0)
        _, chunk = data.read_direct_chunk(place)
        half = len(chunk) // 2
        data.write_direct_chunk(place, chunk[:half] + bytes(len(chunk) - half))


# Without compression there is no checksum but the digest.
PLAIN_DAMAGES = {
    **{
        f"bit {bit:#x} of {name}": lambda path, name=name, bit=bit: flip(path, name, 7, bit)
        for name in FIELDS
        for bit in (0x01, 0x80)
    },
    "half a chunk": half_a_chunk,
    "NaN": set_value(schema.OUTPUTS, 7, (1, 2, 5, 5), np.nan)[0],
    "swapped inputs": edited(lambda file: swap(file, [schema.INPUTS], 3, 7), "")[0],
}


@pytest.mark.parametrize("damage", PLAIN_DAMAGES)
def test_plain_fields_are_covered_too(intact, tmp_path, damage):
    path = shutil.copy(intact["none"], tmp_path / "a.h5")
    PLAIN_DAMAGES[damage](path)
    assert not check_dataset(path, full=True, replay=0, progress=False).passed
    refused(path, names(7), "none")
    refused(path, names(7), "none", features=OTHER_FEATURES)


def test_every_damaged_sample_is_named(path):
    for row in (1, 4, 10):
        flip(path, schema.OUTPUTS, row)
    flip(path, schema.PARAMS, 6)
    refused(path, names(1, 4, 6, 10))


def test_many_damaged_samples_are_counted(path):
    with h5py.File(path, "r+") as file:
        file[schema.PER_TIMESTEP][...] += 1
    refused(path, r"samples 0, 1, 2, .* \d+ more|" + names(*range(12)))


def test_the_command_says_so_and_fails(path, monkeypatch):
    flip(path, schema.INPUTS, 3)
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["spinlock", "extract-features", str(path)])
    with pytest.raises(SystemExit, match=rf"spinlock: error: .*{names(3)}") as caught:
        command_line()
    assert isinstance(caught.value.code, str)
    assert path.read_bytes() == before
    assert not leftovers(path)


def test_undamaged_files_pass(intact, path):
    for compression in ("deflate", "none"):
        shutil.copy(intact[compression], path)
        report = check_dataset(path, full=True, replay=0, progress=False)
        assert report.passed, report.failures
        assert extract_features(path, progress=False) == Extraction(12, 0, False)
        assert extract_features(path, features=OTHER_FEATURES, progress=False).rewritten
        report = check_dataset(path, full=True, replay=0, progress=False)
        assert report.passed, report.failures
        assert extract_features(path, features="sdf", progress=False).rewritten
        assert dataset_contents(path) == dataset_contents(intact[compression])


WHILE = (schema.INPUTS, schema.OUTPUTS, schema.VALUES, schema.PER_TIMESTEP, schema.DIGESTS)


@pytest.mark.parametrize("name", WHILE)
def test_damage_while_features_are_computed_is_found(path, monkeypatch, name):
    """The file was verified before, and is damaged when it is copied."""
    damaged = []

    def deed():
        flip(path, name, 9)
        damaged.append(path.read_bytes())

    monkeypatch.setattr(sys.modules[__name__], "DEED", [deed])
    features = CustomFeatureConfig((f"{__name__}.mean_and_deed",))
    with pytest.raises(DatasetError):
        extract_features(path, features=features, progress=False)
    assert [path.read_bytes()] == damaged
    assert not leftovers(path)


@pytest.mark.parametrize("name", WHILE)
def test_what_the_disk_made_of_the_new_file_is_read(path, monkeypatch, name):
    """A bit flips when the new file is closed, after everything was written as it should be."""
    before = path.read_bytes()
    hits = flip_when_closed(monkeypatch, lambda file: schema.DIGESTS in file, name, 9)
    with pytest.raises(DatasetError):
        extract_features(path, features=OTHER_FEATURES, progress=False)
    monkeypatch.undo()
    assert hits
    assert hits != [path]
    assert path.read_bytes() == before
    assert not leftovers(path)


# -------------------------------------------------------------------------------------- shards

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


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return Shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a.h5"


@pytest.fixture
def fetched(shards, monkeypatch):
    """Shards that are to be computed are fetched from those that there are."""
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", shards.fetch)


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


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("move", MOVES)
def test_shards_under_wrong_names_are_computed_again(shards, target, move):
    move(shards.lay_out(target, 0, 2, 4), shards)
    generate(SHARDED, target, progress=False)
    shards.require_whole(target)


SOME_MOVES = (
    renamed_forward,
    swapped_names,
    linked_in_the_place_of_another,
    at_samples_2_and_3(replaced_by_another_dataset_in_disguise),
    at_samples_2_and_3(rows_swapped),
)


@pytest.mark.parametrize("move", SOME_MOVES)
def test_shards_under_wrong_names_are_not_joined(shards, target, move):
    move(shards.lay_out(target, 0, 2, 4), shards)
    with pytest.raises(DatasetError, match=r"samples .* are missing"):
        assemble_parts(SHARDED, target)
    assert not target.exists()
    generate_part(SHARDED, target, 1, 1, progress=False)
    assemble_parts(SHARDED, target)
    shards.require_whole(target)


def test_a_shard_says_which_samples_it_holds(shards):
    for shard in list_shards(shards.folder):
        with h5py.File(shard.path) as file:
            assert file.attrs[schema.SAMPLES].tolist() == [shard.start, shard.stop]


SPOILED = (
    *(flipped_in(name) for name in (*FIELDS, schema.PARAMS, schema.VALUES)),
    *(flipped_in(name) for name in (schema.IC_TYPES, schema.PER_TIMESTEP, schema.DIGESTS)),
    truncated,
    emptied,
    removed,
    made_a_folder,
    replaced_by_another_range,
    replaced_by_another_range_in_disguise,
    replaced_by_another_dataset,
    replaced_by_another_dataset_in_disguise,
    replaced_by_a_dataset,
    rows_swapped,
    fields_swapped,
    range_edited,
    provenance_garbled,
    made_a_link,
)
SOME_SPOILED = (
    SPOILED[1],
    truncated,
    removed,
    replaced_by_another_range,
    replaced_by_another_dataset_in_disguise,
)


def and_spoil(compute, spoil, shards):
    """`compute_shard`, but the shard is spoiled right after it was published."""

    def compute_and_spoil(task, *args):
        report = compute(task, *args)
        spoil(task.shard.path, shards)
        return report

    return compute_and_spoil


def require_nothing_made(target):
    assert not target.exists()
    assert not list(target.parent.rglob("*.tmp"))
    for folder in target.parent.rglob("shard-*"):
        if folder.is_dir():
            # Nothing that this package made: the user has to take it away.
            folder.rmdir()


def repaired(shards, target):
    """After a failure: no dataset, nothing half-written; and a plain run puts it right."""
    require_nothing_made(target)
    generate(SHARDED, target, progress=False)
    shards.require_whole(target)


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda function: function.__name__)
def test_a_shard_that_is_spoiled_after_it_was_written(shards, target, monkeypatch, spoil):
    shards.lay_out(target, 0, 4)
    spoiling = and_spoil(shards.fetch, spoil, shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    with pytest.raises(DatasetError):
        generate(SHARDED, target, progress=False)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", shards.fetch)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
def test_a_workers_shard_that_is_spoiled(shards, target, spoil):
    folder = shards.lay_out(target, 0, 4)
    executor = ThisThread(lambda: spoil(folder / name_of(2), shards))
    with pytest.raises(DatasetError):
        generate(SHARDED, target, executor=executor, progress=False)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
def test_a_verified_shard_that_is_spoiled_while_others_are_computed(shards, target, spoil):
    folder = shards.lay_out(target, 0, 2)
    executor = ThisThread(lambda: spoil(folder / name_of(2), shards))
    with pytest.raises(DatasetError):
        generate(SHARDED, target, executor=executor, progress=False)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
def test_a_part_that_is_spoiled_after_it_was_written(shards, target, monkeypatch, spoil):
    shards.lay_out(target, 0, 4)
    spoiling = and_spoil(shards.fetch, spoil, shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    generate_part(SHARDED, target, 2, 3, progress=False)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", shards.fetch)
    with pytest.raises(DatasetError, match=r"samples 2\.\.3 are missing"):
        assemble_parts(SHARDED, target)
    repaired(shards, target)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("spoil", SOME_SPOILED, ids=lambda function: function.__name__)
def test_a_shard_that_is_spoiled_between_verification_and_assembly(
    shards, target, monkeypatch, spoil
):
    """While parts are joined nothing is computed, yet the disk may fail at any time."""
    folder, plain = shards.lay_out(target, 0, 2, 4), spinlock.generation.build.plan_assembly

    def plan_assembly(*args, **options):
        spoil(folder / name_of(2), shards)
        return plain(*args, **options)

    monkeypatch.setattr(spinlock.generation.build, "plan_assembly", plan_assembly)
    with pytest.raises(DatasetError):
        assemble_parts(SHARDED, target)
    monkeypatch.setattr(spinlock.generation.build, "plan_assembly", plain)
    repaired(shards, target)


def test_a_spoiled_shard_is_named(shards, target, monkeypatch):
    shards.lay_out(target, 0, 4)
    spoiling = and_spoil(compute_shard, SPOILED[1], shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    with pytest.raises(DatasetError, match=rf"{names(3)}.*{re.escape(name_of(2))}"):
        generate(SHARDED, target, progress=False)


@pytest.mark.parametrize("spoil", [SPOILED[1], removed, replaced_by_another_range])
def test_the_command_fails_where_a_shard_is_spoiled(shards, target, monkeypatch, spoil):
    shards.lay_out(target, 0, 4)
    run = {"data": {"path": str(target), "generation": json.loads(SHARDED.to_json())}}
    file = target.with_name("run.yaml")
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    monkeypatch.setattr(sys, "argv", ["spinlock", "generate", "--config", str(file)])
    spoiling = and_spoil(compute_shard, spoil, shards)
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", spoiling)
    with pytest.raises(SystemExit) as caught:
        command_line()
    # A text as the status is printed to the standard error stream, and the status is 1.
    assert isinstance(caught.value.code, str)
    assert not target.exists()
    monkeypatch.setattr(spinlock.generation.shard_task, "compute_shard", compute_shard)
    command_line()
    file.unlink()
    shards.require_whole(target)


# ---------------------------------------------------------------------------------- attributes


def edit_record(attribute, /, **changes):
    """Change what a JSON list of records says, or a JSON record."""

    def edit(file):
        records = json.loads(file.attrs[attribute])
        record = records[0] if isinstance(records, list) else records
        assert set(changes) <= set(record)
        assert record | changes != record
        record.update(changes)
        file.attrs[attribute] = json.dumps(records)

    return edit


def add_record(attribute, /, **record):
    def edit(file):
        file.attrs[attribute] = json.dumps([*json.loads(file.attrs[attribute]), record])

    return edit


def drop(holder, name):
    def edit(file):
        del file[holder].attrs[name]

    return edit


def set_attribute(holder, name, value):
    def edit(file):
        assert np.any(file[holder].attrs[name] != value)
        file[holder].attrs[name] = value

    return edit


def exchange_names(file):
    """Two columns change their names: every model would learn from the wrong one."""
    held = list(file[schema.PER_TIMESTEP].attrs["names"])
    held[0], held[1] = held[1], held[0]
    file[schema.PER_TIMESTEP].attrs["names"] = held


def claim_no_compression(file):
    """Another configuration with the same fingerprint, by which chunks would be read wrongly."""
    configuration = json.loads(file.attrs["configuration"])
    configuration["storage"]["compression"] = "none"
    file.attrs["configuration"] = json.dumps(configuration)


def respell_the_configuration(file):
    file.attrs["configuration"] = " " + file.attrs["configuration"]


ATTRIBUTES_ROW = ("integrity", "attributes digest")
# Edit -> rows of the check that fail besides that of the digest of attributes.
EDITS = {
    "features": (edit_record("features", formula="⟨u⟩ + 1"), set()),
    "a feature more": (add_record("features", name="mine"), set()),
    "device": (edit_record("device", name="a fast one"), set()),
    "a device more": (add_record("device", type="cuda", name="a fast one"), set()),
    "package_versions": (edit_record("package_versions", torch="0.0.1"), set()),
    "run_summary": (edit_record("run_summary", computed_samples=0), set()),
    "design_quality": (
        edit_record("design_quality", max_abs_correlation=0.001),
        {("design", "stored quality")},
    ),
    "digest": (set_attribute("/", "digest", "0" * 64), {("integrity", "file digest")}),
    "attributes_digest": (set_attribute("/", "attributes_digest", "0" * 64), set()),
    "names": (exchange_names, {("integrity", "dataset attributes")}),
    "names of texts": (
        set_attribute(schema.NOISE_REGIMES, "names", ["high", "medium", "low"]),
        {("integrity", "dataset attributes")},
    ),
    "description": (
        set_attribute(schema.OUTPUTS, "description", "pressure in Pa"),
        {("integrity", "dataset attributes")},
    ),
    "dimensions": (
        set_attribute(schema.INPUTS, "dimensions", ["sample", "channel", "x", "y"]),
        {("integrity", "dataset attributes")},
    ),
    "no description": (
        drop(schema.INPUTS, "description"),
        {("integrity", "dataset attributes")},
    ),
    "digest of a column": (
        set_attribute(schema.OPERATOR_INDEX, "sha256", "0" * 64),
        {("integrity", "column digests")},
    ),
    "no digest of a column": (
        drop(schema.PER_TIMESTEP, "sha256"),
        {("integrity", "column digests")},
    ),
    "no features": (drop("/", "features"), {("integrity", "root attributes")}),
    "no run_summary": (drop("/", "run_summary"), {("integrity", "root attributes")}),
    "no attributes_digest": (drop("/", "attributes_digest"), {("integrity", "root attributes")}),
    "compression": (claim_no_compression, None),
    "spelling of the configuration": (respell_the_configuration, set()),
}


@pytest.mark.parametrize("what", EDITS)
def test_edited_attributes_are_noticed_by_all(path, what):
    edit, others = EDITS[what]
    with h5py.File(path, "r+") as file:
        edit(file)
    before = path.read_bytes()
    report = check_dataset(path, full=True, replay=0, progress=False)
    failed = {(row.group, row.name) for row in report.failures}
    if others is None:
        assert ATTRIBUTES_ROW in failed
    else:
        assert failed == {ATTRIBUTES_ROW} | others
    longer = dataclasses.replace(CONFIG, num_samples=16)
    datamodule = SpinlockDataModule(path, CONFIG, batch_size=4, progress=False)
    for use in (
        lambda: require_dataset(path, CONFIG),
        datamodule.prepare_data,
        datamodule.setup,
        lambda: generate(longer, path, progress=False),
        lambda: assemble_parts(longer, path),
        lambda: extract_features(path, progress=False),
    ):
        with pytest.raises(DatasetError, match="attribute"):
            use()
    assert path.read_bytes() == before
    assert set(leftovers(path)) <= {"a.h5.parts"}
    assert not list(path.parent.rglob("*.tmp"))


def test_the_digest_of_attributes_follows_them(path):
    """Resealed by the writer's own means, an edited file is a file like any other."""
    with h5py.File(path, "r+") as file:
        edit_record("device", name="a fast one")(file)
        reseal(file, CONFIG)
    require_dataset(path, CONFIG)
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures
