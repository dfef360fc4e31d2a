"""Links and external data in the place of a dataset are refused."""

import os
import re

import h5py
import numpy as np
import pytest

from spinlock.storage import schema
from tests.datamodules.verified import FIELDS, VIEWS, columns_of, refused

pytestmark = pytest.mark.slow


def replaced(make):
    """Replace a dataset with another object of the same name that yields the same values."""

    def edit(file, name):
        attributes, values = dict(file[name].attrs), file[name][...]
        del file[name]
        make(file, name, values)
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            file[name].attrs.update(attributes)

    return edit


def elsewhere(file, values):
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        other["values"] = values


@replaced
def external_link(file, name, values):
    elsewhere(file, values)
    file[name] = h5py.ExternalLink("other.h5", "/values")


@replaced
def dangling_external_link(file, name, values):
    file[name] = h5py.ExternalLink("missing.h5", "/values")


@replaced
def soft_link(file, name, values):
    file["hidden"] = values
    file[name] = h5py.SoftLink("/hidden")


@replaced
def virtual_dataset(file, name, values):
    elsewhere(file, values)
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("other.h5", "values", values.shape)
    file.create_virtual_dataset(name, layout)


@replaced
def virtual_dataset_without_source(file, name, values):
    """HDF5 reads it as zeros."""
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("missing.h5", "values", values.shape)
    file.create_virtual_dataset(name, layout)


@replaced
def virtual_dataset_within(file, name, values):
    file["hidden"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(file["hidden"])
    file.create_virtual_dataset(name, layout)


@replaced
def external_storage(file, name, values):
    raw = os.path.join(os.path.dirname(file.filename), "raw.bin")
    with open(raw, "wb") as written:
        written.write(np.ascontiguousarray(values).tobytes())
    external = [("raw.bin", 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


@replaced
def external_storage_without_file(file, name, values):
    external = [("missing.bin", 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=external)


def group_in_another_file(file, name):
    """The group of the dataset is a link."""
    group = name.rpartition("/")[0]
    with h5py.File(os.path.join(os.path.dirname(file.filename), "other.h5"), "w") as other:
        file.copy(group, other, "group")
    del file[group]
    file[group] = h5py.ExternalLink("other.h5", "/group")


def group_under_another_name(file, name):
    group = name.rpartition("/")[0]
    file.move(group, "hidden")
    file[group] = h5py.SoftLink("/hidden")


@replaced
def group_in_its_place(file, name, values):
    file.create_group(name)


@replaced
def nothing(file, name, values):
    pass


ELSEWHERE = {
    "external link": external_link,
    "dangling external link": dangling_external_link,
    "soft link": soft_link,
    "virtual dataset": virtual_dataset,
    "virtual dataset without source": virtual_dataset_without_source,
    "virtual dataset within": virtual_dataset_within,
    "external storage": external_storage,
    "external storage without file": external_storage_without_file,
    "group in another file": group_in_another_file,
    "group under another name": group_under_another_name,
    "group in its place": group_in_its_place,
    "nothing": nothing,
}
READ_BY = {
    "features": schema.PER_TIMESTEP,
    "sequence": schema.INITIAL_FEATURES,
    "pairs": schema.OPERATOR_INDEX,
    "fields": schema.OUTPUTS,
    "both": schema.INPUTS,
}


@pytest.mark.parametrize("how", ELSEWHERE)
@pytest.mark.parametrize("view", VIEWS)
def test_what_the_file_does_not_store_itself_is_not_served(path, view, how):
    name = READ_BY[view]
    with h5py.File(path, "r+") as file:
        ELSEWHERE[how](file, name)
    group = name.rpartition("/")[0]
    refused(path, view, rf"{re.escape(name)}|{re.escape(group)}")


@pytest.mark.parametrize(
    ("view", "name"),
    [(view, name) for view in VIEWS for name in (*columns_of(view), *FIELDS)],
)
def test_links_and_sources_that_lead_nowhere_are_named(path, view, name):
    with h5py.File(path, "r+") as file:
        virtual_dataset_without_source(file, name)
    refused(path, view, re.escape(name))
