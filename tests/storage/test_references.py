"""References among what a user added are refused; links and data in other files are kept."""

import os
import re

import h5py
import numpy as np
import pytest

from spinlock.errors import DatasetError
from spinlock.generation.feature_extraction import extract_features
from spinlock.storage import schema
from tests.storage.additions import Bystander
from tests.storage.dataset_damages import OTHER_FEATURES
from tests.storage.extended_files import REMEDY, refusal, require_untouched

pytestmark = pytest.mark.slow


def scalar_reference(file, holder):
    holder.attrs["source"] = file[schema.PARAMS].ref


def array_of_references(file, holder):
    refs = [file[schema.PARAMS].ref, file["inputs"].ref]
    holder.attrs.create("source", refs, dtype=h5py.ref_dtype)


def region_reference(file, holder):
    region = file[schema.PARAMS].regionref[2:4]
    holder.attrs.create("source", region, dtype=h5py.regionref_dtype)


def list_of_references(file, holder):
    value = np.empty(1, object)
    value[0] = np.array([file[schema.PARAMS].ref], h5py.ref_dtype)
    holder.attrs.create("source", value, dtype=h5py.vlen_dtype(h5py.ref_dtype))


def record_with_a_reference(file, holder):
    kind = np.dtype([("n", "<i4"), ("to", h5py.ref_dtype)])
    value = np.array([(1, file[schema.PARAMS].ref)], kind)
    holder.attrs.create("source", value, dtype=kind)


REFERENCES = (
    scalar_reference,
    array_of_references,
    region_reference,
    list_of_references,
    record_with_a_reference,
)


def references_refused(path, written_anew, match="refer"):
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=match) as caught:
        written_anew(path)
    require_untouched(path, before)
    assert REMEDY.search(str(caught.value))


@pytest.mark.parametrize("add", REFERENCES)
@pytest.mark.parametrize("holder", ["/", "metadata", schema.INPUTS])
def test_attributes_with_references_are_refused(made, tmp_path, written_anew, add, holder):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        add(file, file[holder])
    references_refused(path, written_anew, "source.* refer")


def test_dimension_scales_are_refused(made, tmp_path, written_anew):
    """HDF5 keeps them as attributes with references, on both sides."""
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["mine/x"] = np.linspace(0, 1, 32)
        file["mine/x"].make_scale("x")
        file[schema.INPUTS].dims[3].attach_scale(file["mine/x"])
    references_refused(path, written_anew)


@pytest.mark.parametrize("name", [schema.PARAMS, "metadata"])
def test_other_names_of_datasets_with_scales_are_refused(made, tmp_path, written_anew, name):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["alias"] = file[name]
    references_refused(path, written_anew)


@pytest.mark.parametrize("add", REFERENCES)
@pytest.mark.parametrize("holder", ["mine/deep", "mine/data"])
def test_references_among_what_a_user_added_are_refused(made, tmp_path, written_anew, add, holder):
    """Copied as they are they would lead nowhere, or to something else."""
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["mine/data"] = np.arange(3)
        file.create_group("mine/deep")
        add(file, file[holder])
    references_refused(path, written_anew)


def test_references_as_values_are_refused(made, tmp_path, written_anew):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("pointers", data=[file[schema.PARAMS].ref], dtype=h5py.ref_dtype)
    references_refused(path, written_anew)


def test_a_group_that_holds_itself_is_kept(made, tmp_path, written_anew):
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file["mine/values"] = np.arange(3)
        file["mine/self"] = file["mine"]
    written_anew(path)
    with h5py.File(path) as file:
        assert file["mine/self/self/values"][...].tolist() == [0, 1, 2]


def test_data_in_other_files_are_not_read(made, tmp_path, written_anew):
    """A user's virtual dataset, and one with external storage, stay what they are."""
    path = made.short(tmp_path)
    bystander = Bystander(tmp_path)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(range(40)))
    os.utime(raw, Bystander.LONG_AGO)
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((4,), np.int64)
        layout[:] = h5py.VirtualSource("other.h5", "values", (12,))[:4]
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (5,), "i8", external=[("raw.bin", 0, 40)])
    written_anew(path)
    status = raw.stat()
    assert (status.st_atime, status.st_mtime) == Bystander.LONG_AGO
    bystander.require_untouched()
    with h5py.File(path) as file:
        assert file["virtual"].is_virtual
        assert [tuple(s)[1:3] for s in file["virtual"].virtual_sources()] == [
            ("other.h5", "values")
        ]
        assert file["external"].external == [("raw.bin", 0, 40)]


OWN_LOOKING = [(schema.GRID_SIZES, "names"), (schema.OUTPUTS, "sha256"), (schema.DIGESTS, "names")]


@pytest.mark.parametrize(("holder", "name"), OWN_LOOKING)
def test_attributes_that_only_look_like_the_schemas_do_not_vanish(
    made, tmp_path, written_anew, holder, name
):
    """The schema gives such an attribute to other datasets; here it is the user's."""
    path = made.short(tmp_path)
    with h5py.File(path, "r+") as file:
        file[holder].attrs[name] = "mine"
    before = path.read_bytes()
    if message := refusal(written_anew, path):
        assert re.search(rf"attributes|{name}", message)
        require_untouched(path, before)
    else:
        with h5py.File(path) as file:
            assert file[holder].attrs[name] == "mine"


def test_a_users_data_where_new_features_would_go_are_not_lost(made, tmp_path):
    path = made.short(tmp_path)
    name = "features/custom/per_timestep/features"
    with h5py.File(path, "r+") as file:
        file[name] = np.arange(5)
    before = path.read_bytes()
    with pytest.raises(DatasetError, match="features/custom"):
        extract_features(path, features=OTHER_FEATURES, progress=False)
    require_untouched(path, before)
