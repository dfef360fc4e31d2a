"""Files that are stored in another way, or have additions, are no damage."""

import dataclasses
import re

import h5py
import numpy as np
import pytest

from spinlock.errors import DatasetError
from spinlock.storage import schema
from tests.datamodules import collect
from tests.datamodules.verified import (
    CONFIG,
    FEATURES,
    FIELDS,
    LABELS,
    RAW,
    VIEWS,
    module,
    require_equal,
    served,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compression", ["deflate", "none"])
@pytest.mark.parametrize("view", VIEWS)
def test_undamaged_files_are_served(intact, batches, view, compression):
    config = CONFIG if compression == "deflate" else RAW
    require_equal(served(intact[compression], view, config), batches[view])


@pytest.mark.parametrize("view", VIEWS)
def test_the_first_samples_of_a_longer_file_are_served(intact, batches, view):
    """With 13 samples the last operator has only one probe, which leaves 12 pairs."""
    for count in (16, 13):
        shorter = dataclasses.replace(CONFIG, num_samples=count)
        rows = 12 if view == "pairs" and count == 13 else count
        require_equal(served(intact["deflate"], view, shorter), batches[view], rows)


def replace_dataset(file, name, **options):
    old = file[name]
    attributes, values = dict(old.attrs), old[...]
    del file[name]
    file.create_dataset(name, data=values, **options).attrs.update(attributes)


def columns_in_chunks(file):
    for name in (*LABELS, *FEATURES, schema.DIGESTS):
        replace_dataset(file, name, chunks=True)


def columns_compressed(file):
    for name in (*LABELS, *FEATURES, schema.DIGESTS):
        options = {"shuffle": True, "compression": "gzip", "fletcher32": True}
        replace_dataset(file, name, chunks=True, **options)


def columns_that_grow(file):
    for name in (*LABELS, *FEATURES):
        replace_dataset(file, name, maxshape=(None, *file[name].shape[1:]))


def fields_through_lzf(file):
    for name in FIELDS:
        replace_dataset(file, name, chunks=file[name].chunks, compression="lzf")


def fields_contiguous(file):
    for name in FIELDS:
        replace_dataset(file, name)


REPACKED = (
    columns_in_chunks,
    columns_compressed,
    columns_that_grow,
    fields_through_lzf,
    fields_contiguous,
)


@pytest.mark.parametrize("repack", REPACKED)
@pytest.mark.parametrize("view", VIEWS)
def test_repacked_files_pass(path, batches, view, repack):
    """If the same values are stored in another way, `setup` passes and no value differs.

    Fields that are packed in another way may be refused when a loader is made, but never misread.
    """
    with h5py.File(path, "r+") as file:
        repack(file)
    require_same_or_refused(path, view, batches, repack in (fields_through_lzf, fields_contiguous))


def require_same_or_refused(path, view, batches, fields_repacked):
    datamodule = module(path, view)
    datamodule.setup()
    message = ""
    try:
        require_equal(collect(datamodule.predict_dataloader()), batches[view])
    except DatasetError as error:
        message = str(error)
    if message:
        assert fields_repacked, message
        assert view in ("fields", "both"), message
        assert re.search("inputs/fields|outputs/fields", message)
        assert "repacked" in message


@pytest.mark.parametrize("options", [{"userblock_size": 512}, {"libver": "latest"}])
@pytest.mark.parametrize("view", ["features", "fields"])
def test_files_of_other_kinds_are_served(intact, tmp_path, batches, view, options):
    """Files may have a user block before the data, or a newer format."""
    path = tmp_path / "a.h5"
    with h5py.File(intact["deflate"]) as old, h5py.File(path, "w", **options) as file:
        for name in old:
            old.copy(name, file)
        for name in old.attrs:
            file.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
    require_equal(served(path, view), batches[view])


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_user_added_is_no_damage(path, batches, view):
    with h5py.File(path, "r+") as file:
        file.attrs["my note"] = "measured on a Tuesday"
        file.attrs["my empty"] = h5py.Empty("f4")
        for name in (*LABELS, *FEATURES, *FIELDS, "features", "metadata"):
            file[name].attrs["my number"] = 42
        file["predictions"] = np.full((24, 3), np.nan)
        file["mine/deep/er"] = np.arange(5)
        file["features/mine/features"] = np.full((24, 2, 3), np.inf)
        file["shortcut"] = h5py.SoftLink("/outputs/fields")
        file["nowhere"] = h5py.SoftLink("/there/is/nothing")
        file["metadata/elsewhere"] = h5py.ExternalLink("missing.h5", "/values")
        layout = h5py.VirtualLayout((24,), np.int64)
        layout[:] = h5py.VirtualSource("missing.h5", "values", (24,))
        file.create_virtual_dataset("mine/virtual", layout)
    require_equal(served(path, view), batches[view])


@pytest.mark.parametrize("mode", [0o400, 0o444])
def test_files_that_cannot_be_written_are_served(path, batches, mode):
    path.chmod(mode)
    require_equal(served(path, "both"), batches["both"])
