"""Damaged datasets are refused by extraction and extension, which would give them new digests."""

import dataclasses
import itertools
import shutil
import sys
from functools import partial

import h5py
import numpy as np
import pytest

from spinlock.__main__ import main as command_line
from spinlock.checks import check_dataset
from spinlock.configuration.file_content import CustomFeatureConfig
from spinlock.errors import DatasetError
from spinlock.generation.build import generate
from spinlock.generation.feature_extraction import Extraction, extract_features
from spinlock.storage import schema
from tests.helpers import dataset_contents
from tests.storage import dataset_damages
from tests.storage.dataset_damages import (
    DAMAGES,
    HARMLESS_TO_VALUES,
    LONGER,
    OTHER_FEATURES,
    RAW,
    edited,
    leftovers,
    set_value,
)
from tests.storage.sabotage import (
    FIELDS,
    flip,
    flip_when_closed,
    names,
    swap,
)

pytestmark = pytest.mark.slow


def refused(path, pattern, compression="deflate", features=(None,), **options):
    """The file is neither extracted from nor extended, and is left as it was."""
    before, beside = path.read_bytes(), leftovers(path)
    longer = LONGER if compression == "deflate" else dataclasses.replace(RAW, num_samples=16)
    extractions = [
        partial(extract_features, path, features=wanted, progress=False, **options)
        for wanted in features
    ]
    for use in (*extractions, lambda: generate(longer, path, progress=False)):
        with pytest.raises(DatasetError, match=pattern):
            use()
        assert path.read_bytes() == before
        assert leftovers(path) == beside


# Features of the file and other ones in turn.
EXTRACTIONS = itertools.cycle((None, OTHER_FEATURES))
HARMFUL = [damage for damage in DAMAGES if damage not in HARMLESS_TO_VALUES]


@pytest.mark.parametrize(("damage", "features"), zip(HARMFUL, EXTRACTIONS, strict=False))
def test_damage_is_found_and_never_certified(path, damage, features):
    spoil, pattern = DAMAGES[damage]
    spoil(path)
    before = path.read_bytes()
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert not report.passed
    assert path.read_bytes() == before
    refused(path, pattern, features=(features,))


@pytest.mark.parametrize("name", [*FIELDS, "parameters/values/alpha", schema.PER_TIMESTEP])
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
    refused(path, names(7), "none", features=(None, OTHER_FEATURES))


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


WHILE = (schema.INPUTS, schema.OUTPUTS, "parameters/values/dt", schema.PER_TIMESTEP, schema.DIGESTS)


@pytest.mark.parametrize("name", WHILE)
def test_damage_while_features_are_computed_is_found(path, monkeypatch, name):
    """The file was verified before, and is damaged when it is copied."""
    damaged = []

    def deed():
        flip(path, name, 9)
        damaged.append(path.read_bytes())

    monkeypatch.setattr(dataset_damages, "DEED", [deed])
    features = CustomFeatureConfig(("tests.storage.dataset_damages.mean_and_deed",))
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
