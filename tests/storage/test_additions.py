"""What a user added to a file is kept when the file is rewritten, or refused."""

import dataclasses
import os
import re
import stat

import h5py
import numpy as np
import pytest

from spinlock.checks import check_dataset
from spinlock.generation.build import generate
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import read_info
from tests.storage.additions import Bystander, additions, decorated
from tests.storage.dataset_damages import OTHER_FEATURES
from tests.storage.extended_files import (
    REMEDY,
    WHOLE,
    extend,
    extracted,
    own_attributes,
    refusal,
    refused,
    require_untouched,
)
from tests.storage.rewrites import copy_with
from tests.storage.sabotage import (
    DATASETS,
)

pytestmark = pytest.mark.slow


def test_what_a_user_added_is_no_damage(made, tmp_path):
    path = decorated(made, tmp_path)
    read_info(path)
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures


def test_what_a_user_added_is_kept(made, tmp_path, written_anew):
    path = decorated(made, tmp_path)
    bystander = Bystander(tmp_path)
    before = additions(path)
    assert len(before) > 100
    written_anew(path)
    after = additions(path)
    custom = {k for k in after if (k if isinstance(k, str) else k[0]).startswith("features/custom")}
    assert {k: v for k, v in after.items() if k not in custom} == before
    bystander.require_untouched()
    report = check_dataset(path, full=True, replay=0, progress=False)
    assert report.passed, report.failures


def text_that_is_no_utf_8(file):
    value = np.array([b"gr\xf6\xdfe"], object)
    file.attrs.create("odd", value, dtype=h5py.string_dtype("utf-8"))


def large_attribute(file):
    file.attrs["odd"] = np.arange(20_000)


def opaque_attribute(file):
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 4)
    kind.set_tag(b"secret")
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(file.id, b"odd", kind, space)
    attribute.write(np.array(np.void(b"wxyz")), mtype=kind)


@pytest.mark.parametrize("add", [text_that_is_no_utf_8, large_attribute, opaque_attribute])
def test_odd_attributes_are_kept_or_refused(made, tmp_path, written_anew, add):
    path = made.short(tmp_path)
    copy_with(libver="latest")(path)
    with h5py.File(path, "r+", libver="latest") as file:
        add(file)
    before = path.read_bytes()
    if refusal(written_anew, path):
        require_untouched(path, before)
    else:
        with h5py.File(path) as file:
            assert "odd" in file.attrs


def test_samples_are_the_same_beside_what_a_user_added(made, tmp_path):
    path = decorated(made, tmp_path)
    extend(path)
    contents = dataset_contents_of_the_schema(path)
    assert contents == {name: made.contents[name] for name in DATASETS}
    assert own_attributes(path) == made.attributes


def dataset_contents_of_the_schema(path):
    with h5py.File(path) as file:
        return {name: file[name][...].tobytes() for name in DATASETS}


@pytest.mark.repeated
def test_additions_survive_both_twice(made, tmp_path):
    """A longer life: other features, more samples, the old features again."""
    path = decorated(made, tmp_path)
    before = additions(path)
    extracted(path)
    longer = dataclasses.replace(WHOLE, features=OTHER_FEATURES)
    generate(longer, path, progress=False)
    extract_features(path, features="sdf", progress=False)
    assert additions(path) == before
    contents = dataset_contents_of_the_schema(path)
    assert contents == {name: made.contents[name] for name in DATASETS}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o664])
def test_the_mode_of_the_file_is_kept(made, tmp_path, written_anew, mode):
    path = made.short(tmp_path)
    path.chmod(mode)
    written_anew(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_the_file_is_kept(made, tmp_path, written_anew):
    path = made.short(tmp_path)
    os.chown(path, 12345, 54321)
    path.chmod(0o640)
    written_anew(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (12345, 54321)
    assert stat.S_IMODE(status.st_mode) == 0o640


def test_the_new_file_is_never_more_open_than_the_old_one(made, tmp_path, monkeypatch):
    """What is private stays so, also while it is being written."""
    path, seen, plain = made.short(tmp_path), [], os.replace
    path.chmod(0o600)

    def watch(source, target, **options):
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        plain(source, target, **options)

    monkeypatch.setattr(os, "replace", watch)
    extend(path)
    assert seen
    assert set(seen) == {0o600}


def rows_in_a_dataset(file):
    file["predictions"] = np.zeros((12, 3))
    return "predictions"


def rows_in_a_group(file):
    file["mine/deep/predictions"] = np.arange(12)
    return "mine/deep/predictions"


def rows_beside_features(file):
    file.create_dataset("features/mine/features", (12, 4, 2), "f4", chunks=True, compression="gzip")
    return "features/mine/features"


def rows_that_grow(file):
    file.create_dataset("metadata/quality", data=np.arange(12), maxshape=(None,))
    return "metadata/quality"


ROWS = (
    rows_in_a_dataset,
    rows_in_a_group,
    rows_beside_features,
    rows_that_grow,
)


@pytest.mark.parametrize("add", ROWS)
def test_a_dataset_with_a_row_for_each_sample_is_refused(made, tmp_path, add):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        name = add(file)
    message = refused(path, re.escape(name))
    assert REMEDY.search(message)
    assert re.search(r"\b12\b", message)


@pytest.mark.parametrize("add", ROWS)
def test_a_dataset_with_a_row_for_each_sample_outlives_other_features(made, tmp_path, add):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        add(file)
    before = additions(path)
    extracted(path)
    after = additions(path)
    assert {k: v for k, v in after.items() if k in before} == before
