"""Other programs read a dataset file, with named dimensions where they have them."""

import json
import re
import shutil
import subprocess
import warnings

import h5py
import numpy as np
import pytest

from spinlock.configuration.file_content import Every, StorageConfig
from spinlock.errors import DatasetError
from spinlock.generation import generate
from spinlock.storage import read_info, schema
from spinlock.storage.dimensions import dataset_scales
from tests.helpers import attached_scales, small_config

CONFIG = small_config(
    10,
    grid_size=24,
    base_channels=(2, 3),
    num_realizations=2,
    num_timesteps=4,
    probes_per_operator=2,
    dynamics=True,
    storage=StorageConfig(shard_size=4, fields=Every(2)),
)
NAMES = [spec.name for spec in schema.dataset_specs(CONFIG)]
SPECS = {spec.name: spec for spec in schema.dataset_specs(CONFIG)}
SCALES = dataset_scales(CONFIG)
NOISE_SCALE, ACTIVATION = "parameters/values/noise_scale", "parameters/values/activation"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tools") / "data.h5"
    generate(CONFIG, path, progress=False)
    return path


@pytest.fixture(scope="module")
def values(path):
    with h5py.File(path) as file:
        return {name: file[name][...] for name in NAMES}


def imported(name):
    return pytest.importorskip(name, reason=f"{name} is not installed: the file is not read by it")


def require_equal(found, expected, name):
    found = np.asarray(found)
    if expected.dtype.kind == "S" and found.dtype.kind != "S":
        expected = expected.astype(str)
    np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_xarray_reads_everything_by_name(path, values, engine):
    xarray = imported("xarray")
    imported({"netcdf4": "netCDF4"}.get(engine, engine))
    # h5netcdf would warn of unnamed dimensions.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The 'phony_dims' kwarg now defaults")
        tree = xarray.open_datatree(path, engine=engine).load()
    found = {
        f"{node.path}/{name}".lstrip("/"): variable
        for node in tree.subtree
        for name, variable in node.to_dataset(inherit=False).data_vars.items()
    }
    assert sorted(found) == sorted(NAMES)
    for name, variable in found.items():
        assert variable.dims == SPECS[name].dims, name
        require_equal(variable, values[name], name)
    sizes = {"sample": 10, "realization": 2, "timestep": 2, "channel": 3, "y": 24, "x": 24}
    assert dict(found["outputs/fields"].sizes) == sizes
    assert tree["outputs"]["timestep"].values.tolist() == [2, 4]
    features = tree["features/sdf/per_timestep"]["features"]
    one = features.sel(feature="spatial_std", timestep=3)
    place = schema.PER_TIMESTEP_NAMES.index("spatial_std")
    np.testing.assert_array_equal(one, values[schema.PER_TIMESTEP][:, 2, place])
    dynamics = tree["operators"]["dynamics"].sel(quantity="noise")
    place = SPECS[schema.DYNAMICS].names.index("noise")
    np.testing.assert_array_equal(dynamics, values[schema.DYNAMICS][:, place])


def test_netcdf4_reads_every_value(path, values):
    with imported("netCDF4").Dataset(path) as file:
        for name in NAMES:
            require_equal(file[name][...], values[name], name)
            assert file[name].dimensions == SPECS[name].dims
        assert not any("phony" in name for name in file.dimensions)


def test_pytables_walks_the_file(path, values):
    tables = imported("tables")
    with warnings.catch_warnings():
        # It has no types for references, nor for texts of variable length.
        warnings.simplefilter("ignore")
        with tables.open_file(path) as file:
            nodes = {node._v_pathname.strip("/"): node for node in file.walk_nodes("/", "Leaf")}
            assert set(nodes) == {*NAMES, *SCALES}
            for name in NAMES:
                require_equal(nodes[name][...], values[name], name)


def test_pandas_makes_a_table_of_the_parameters(path, values):
    pandas = imported("pandas")
    with h5py.File(path) as file:
        table = pandas.DataFrame({n: column[:] for n, column in file["parameters/values"].items()})
    assert sorted(table.columns) == sorted(CONFIG.space.names)
    assert table["noise_scale"].tolist() == values[NOISE_SCALE].tolist()
    assert table["activation"].str.decode("utf-8").isin(["relu", "gelu", "silu"]).all()


def test_kerchunk_refers_to_every_dataset(path, values):
    """Its zarr needs another fsspec than the-well, so it is rarely installed."""
    kerchunk = imported("kerchunk.hdf")
    refs = kerchunk.SingleHdf5ToZarr(str(path), inline_threshold=0).translate()["refs"]
    scales = attached_scales(path)
    for name in NAMES:
        found = json.loads(refs[f"{name}/.zattrs"])["_ARRAY_DIMENSIONS"]
        assert found == [scale.lstrip("/") for scale in scales[name]]
    _, offset, size = refs[f"{NOISE_SCALE}/0"]
    stored = path.read_bytes()[offset : offset + size]
    assert stored == values[NOISE_SCALE].tobytes()


def run(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (hdf5-tools)")
    return subprocess.run(command, check=True, timeout=100, capture_output=True, text=True).stdout


def test_h5dump_shows_columns_and_scales(path, values):
    shown = run("h5dump", "-d", ACTIVATION, path)
    texts = re.findall(r'^ +\(\d+\): "(\w+)\\000', shown, re.MULTILINE)
    assert texts == values[ACTIVATION].astype(str).tolist()
    assert re.search(r'"DIMENSION_LIST".*?\(DATASET \d+ "/sample"\)', shown, re.DOTALL)


def test_h5repack_keeps_scales(path, tmp_path, values):
    new = tmp_path / "repacked.h5"
    run("h5repack", "-f", "GZIP=1", path, new)
    assert attached_scales(new) == attached_scales(path)
    assert read_info(new).digest == read_info(path).digest
    with h5py.File(new) as file:
        for name in NAMES:
            require_equal(file[name][...], values[name], name)


def test_every_dimension_has_the_scale_of_its_name(path):
    found = attached_scales(path)
    assert sorted(found) == sorted(NAMES)
    for name, scales in found.items():
        assert tuple(scale.rpartition("/")[2] for scale in scales) == SPECS[name].dims


@pytest.mark.parametrize("name", ["sample", "outputs/timestep", "parameters/axis"])
@pytest.mark.parametrize("damage", ["missing", "too long", "other values", "a link"])
def test_wrong_scales_are_refused(path, tmp_path, name, damage):
    copy = shutil.copy(path, tmp_path / "copy.h5")
    with h5py.File(copy, "r+") as file:
        old = file[name][...]
        del file[name]
        if damage == "too long":
            file.create_dataset(name, (len(old) + 1,), old.dtype)
        elif damage == "other values" and name == "sample":
            file[name] = np.arange(len(old))
        elif damage == "other values":
            file.create_dataset(name, data=old[::-1], dtype=SCALES[name].dtype)
        elif damage == "a link":
            file[name] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(DatasetError, match=name):
        read_info(copy)
